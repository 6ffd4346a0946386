"""What processes have, and what of it is still there when they are dead: real processes, real SIGKILL."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import until
from tests.process.holding import kill
from workers.belongings import Belonging
from workers.inspection import inspect
from workers.leftovers import still_there
from workers.proc import read_stat
from workers.sockets import address

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.process.holding import Holder
    from workers.belongings import Inventory

    Hold = Callable[..., Holder]

BUDGET_S = 60.0  # far above what a loaded machine needs


def look(*holders: Holder) -> Inventory:
    """Inspect them, who are readable to us."""
    inventory = inspect([pid for holder in holders for pid in holder.pids], BUDGET_S)
    assert inventory.whole
    return inventory


def texts(items: tuple[Belonging, ...]) -> list[str]:
    return [item.text for item in items]


def test_shared_memory_outlives_its_process(hold: Hold, shm: Path) -> None:
    """The commonest leftover: multiprocessing.shared_memory, by name and size."""
    holder = hold("shared_memory", shm.name)
    inventory = look(holder)
    assert [item.to_dict() for item in inventory.items] == [
        {"kind": "shm", "name": str(shm), "size": 64 << 20, "pid": holder.pid, "text": f"{shm} 64 MiB"}
    ]
    holder.kill()
    assert still_there(inventory) == inventory.items
    shm.unlink()
    assert still_there(inventory) == ()


def test_mapped_memory_and_semaphores_need_no_descriptor(hold: Hold, shm: Path, semaphore: str) -> None:
    """What a C program mapped and closed is found in its memory map."""
    holders = hold("mapped", shm), hold("semaphore", semaphore)
    inventory = look(*holders)
    for holder in holders:
        holder.kill()
    assert texts(inventory.items) == [f"{shm} 1 MiB", f"semaphore /dev/shm/sem.{semaphore}"]
    assert still_there(inventory) == inventory.items


def test_a_segment_outlives_its_process(hold: Hold, forget_segment: Callable[[str], None]) -> None:
    """System V shared memory stays until somebody removes it."""
    holder = hold("segment")
    forget_segment(holder.words[0])
    inventory = look(holder)
    holder.kill()
    assert texts(inventory.items) == [f"System V shared memory {holder.words[0]} 1 MiB"]
    assert still_there(inventory) == inventory.items


@pytest.mark.parametrize("program", ["flock", "fcntl_lock"])
def test_a_lock_file_outlives_its_lock(hold: Hold, tmp_path: Path, program: str) -> None:
    """The kernel released the lock; who looks whether the file exists is misled. Locked anew, it is no leftover."""
    path = tmp_path / "x.lock"
    holder = hold(program, path)
    inventory = look(holder)
    holder.kill()
    assert texts(inventory.items) == texts(still_there(inventory)) == [f"lock file {path}"]
    second = hold(program, path)
    assert still_there(inventory) == ()
    second.kill()
    assert texts(still_there(inventory)) == [f"lock file {path}"]
    third = hold("opened", path)
    assert still_there(inventory) == (), "who has it open may well wait for it, or hide its lock in a container"
    third.kill()
    path.unlink()
    assert still_there(inventory) == ()


def test_a_locked_database_is_data(hold: Hold, tmp_path: Path) -> None:
    """A file that is not there for the sake of its lock is nobody's leftover; nor is a lock file that is not locked."""
    (tmp_path / "x.lock").touch()
    assert look(hold("fcntl_lock", tmp_path / "x.db"), hold("opened", tmp_path / "x.lock")).items == ()


def test_a_deleted_file_goes_with_the_last_who_has_it(hold: Hold, tmp_path: Path) -> None:
    """Its space is still used while somebody alive has it open. What never had a name is not listed at all."""
    holder = hold("nameless", tmp_path)
    path, fd = holder.words
    inventory = look(holder)
    assert texts(inventory.items) == [f"deleted file {path} 1 MiB"]
    second = hold("opened", f"/proc/{holder.pid}/fd/{fd}")
    holder.kill()
    assert texts(still_there(inventory)) == [f"deleted file {path} 1 MiB (process {second.pid} has it)"]
    second.kill()
    assert still_there(inventory) == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_tcp_listener_goes_with_its_process(hold: Hold, host: str) -> None:
    """It is listed by its address, and gone after the kill: nothing to report."""
    if host == "::1" and not Path("/proc/net/if_inet6").read_text():
        pytest.skip("this machine has no IPv6")
    holder = hold("listener", f"{host}:0")
    inventory = look(holder)
    shown = f"[{host}]" if ":" in host else host
    assert texts(inventory.items) == [f"listening socket {shown}:{holder.words[0]}"]
    holder.kill()
    assert still_there(inventory) == ()


def test_a_listener_that_somebody_else_has_is_still_there(hold: Hold) -> None:
    """A child that inherited it keeps the port busy."""
    holder = hold("shared_listener")
    port, child = holder.words
    inventory = inspect([holder.pid], BUDGET_S)
    kill(holder.pid)
    assert texts(still_there(inventory)) == [f"listening socket 127.0.0.1:{port} (another process has it)"]
    kill(int(child))
    assert still_there(inventory) == ()


def test_a_unix_listener_leaves_its_path(hold: Hold, tmp_path: Path) -> None:
    """The socket is gone, its file is not: who starts again finds the address in use. Not when somebody serves it."""
    path = tmp_path / "a socket"
    holder = hold("listener", path)
    inventory = look(holder)
    assert texts(inventory.items) == [f"listening socket {path}"]
    holder.kill()
    assert still_there(inventory) == inventory.items
    path.unlink()
    hold("listener", path)
    assert still_there(inventory) == ()


def test_a_connection_is_there_until_the_other_side_lets_go(hold: Hold) -> None:
    """A server that doesn't notice the death keeps the connection: the kernel says goodbye, and waits for an answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        holder = hold("connection", port)
        theirs, _ = server.accept()
        inventory = look(holder)
        assert texts(inventory.items) == [f"connection to 127.0.0.1:{port}"]
        holder.kill()
        until(lambda: "(FIN_WAIT2)" in "".join(texts(still_there(inventory))), "the kernel to wait for the server")
        theirs.close()
        until(lambda: not still_there(inventory), "the connection to be over")


def test_what_we_have_as_well_is_not_theirs(hold: Hold, shm: Path) -> None:
    """What was handed down by this process is no leftover of its children; a copy of its own is."""
    holder = hold("mapped", shm)
    with shm.open("rb"):
        assert look(holder).items == ()
    assert texts(look(holder).items) == [f"{shm} 1 MiB"]


def test_what_many_share_is_listed_once(hold: Hold, shm: Path) -> None:
    """A thousand ranks on one segment are one leftover."""
    holders = [hold("mapped", shm) for _ in range(3)]
    assert [item.pid for item in look(*holders).items] == [holders[0].pid]


def test_a_process_without_its_first_thread_has_belongings(hold: Hold, tmp_path: Path) -> None:
    """Its own folder in /proc shows nothing any more; that of a living thread does."""
    holder = hold("headless", tmp_path / "x.lock")
    until(lambda: (stat := read_stat(holder.pid)) and stat.state == "Z", "the main thread to be over")
    assert texts(look(holder).items) == [f"lock file {tmp_path / 'x.lock'}"]


def test_text_and_address_are_for_people() -> None:
    """Sizes have units, addresses are those that one types, and no name can steer a terminal."""
    item = Belonging("shm", "/x/a\x1b[2J\udcff", 7, 1536, note="why", namespace="mnt:[1]")
    assert item.text == "/x/a?[2J? 1.5 KiB (in another mount namespace; why)"
    assert [replace(item, size=size).text.split()[1] for size in (0, 1023, 1 << 40)] == ["0", "1023", "1"]
    assert address("0500000A:1538") == "10.0.0.5:5432"
    assert address("0000000000000000FFFF00000500000A:1538") == "10.0.0.5:5432"
    assert address("00000000000000000000000001000000:0050") == "[::1]:80"
