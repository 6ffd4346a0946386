"""The limits of looking: it never holds up a kill, and says when it has not seen everything."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.holding import kill
from workers import inspection, leftovers
from workers.inspection import inspect
from workers.leftovers import still_there
from workers.sweep_shm import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.process.holding import Holder

    Hold = Callable[..., Holder]

BUDGET_S = 60.0  # far above what a loaded machine needs


def test_who_vanishes_is_passed_over(hold: Hold, shm: Path) -> None:
    """A process that ended, waited for or not, hides nothing of the others and makes the look no less whole."""
    gone, zombie, holder = hold("opened", "/dev/null"), hold("opened", "/dev/null"), hold("mapped", shm)
    gone.kill()
    kill(zombie.pid)
    inventory = inspect([gone.pid, zombie.pid, holder.pid], BUDGET_S)
    assert inventory.whole
    assert [item.name for item in inventory.items] == [str(shm)]


def test_what_may_not_be_read_is_said_to_be_left_out(hold: Hold) -> None:
    """A process of another user's: nothing is known of it, and that is what is said."""
    holder = hold("opened", "/dev/null")
    assert inspect([holder.pid], BUDGET_S).whole
    with nobody():
        assert not inspect([holder.pid if os.getuid() == 0 else 1], BUDGET_S).whole


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A /proc that does not answer until the event is set: that of a process whose memory map is locked for long."""
    answers = threading.Event()

    def hang(path: str) -> Iterator[bytes]:
        if path.endswith("/maps"):
            assert answers.wait(BUDGET_S)
        yield from ()

    monkeypatch.setattr(inspection, "read_pieces", hang)
    yield answers
    answers.set()
    for thread in threading.enumerate():
        if thread.name == "belongings":
            thread.join(BUDGET_S)
            assert not thread.is_alive(), "who was left behind ends when the read does"


def test_a_read_that_hangs_holds_up_nobody(hold: Hold, shm: Path, stuck: threading.Event) -> None:
    """SIGKILL is not put off by a process that can't be looked at: what was found until then is what there is."""
    assert not inspect([hold("mapped", shm).pid], 0.05).whole
    assert not stuck.is_set()


def test_without_the_thread_it_would(hold: Hold, shm: Path, stuck: threading.Event) -> None:
    """The negative control: the same look, in our own thread, comes back only when /proc answers."""
    look = inspection._Look([hold("mapped", shm).pid], time.monotonic() + 0.05)
    threading.Timer(0.5, stuck.set).start()
    look.run()
    assert stuck.is_set()


@pytest.mark.parametrize("budget_s", [0.0, -1.0])
def test_no_time_is_no_look(hold: Hold, shm: Path, budget_s: float) -> None:
    """A budget that is over finds little and promises nothing; what was not looked at again is said to be unknown."""
    holder = hold("mapped", shm)
    assert not inspect([holder.pid], budget_s).whole
    inventory = inspect([holder.pid], BUDGET_S)
    assert [item.note for item in still_there(inventory, budget_s)] == [leftovers.UNKNOWN]


def test_no_thread_is_no_look(hold: Hold, shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host where no thread can be started is just where a kill is needed: no error, and no promise."""
    holder = hold("mapped", shm)

    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    inventory = inspect([holder.pid], BUDGET_S)
    assert (inventory.items, inventory.whole) == ((), False)


def fail() -> None:
    raise ZeroDivisionError


def test_an_error_of_ours_is_not_swallowed() -> None:
    """What goes wrong in the thread reaches who asked."""
    with pytest.raises(ZeroDivisionError):
        inspection.within(BUDGET_S, fail)


def test_there_is_a_limit(hold: Hold, shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with more than anybody would read is cut short, and that is said."""
    holders = hold("mapped", shm), hold("flock", tmp_path / "x.lock")
    monkeypatch.setattr(inspection, "ITEMS_MAX", 1)
    inventory = inspect([holder.pid for holder in holders], BUDGET_S)
    assert (len(inventory.items), inventory.whole) == (1, False)


def test_other_namespaces_are_named_and_never_swept(hold: Hold, shm: Path) -> None:
    """In a container, paths and ports mean something else: it is said so, and ours are not taken for them."""
    holder = hold("elsewhere", shm)
    if holder.words == ["refused"]:
        pytest.skip("the kernel lets this user make no namespaces")
    port = int(holder.words[0])
    with socket.socket() as ours:
        ours.bind(("0.0.0.0", port))  # noqa: S104
        ours.listen()
        inventory = inspect([holder.pid], BUDGET_S)
    assert [item.text for item in inventory.items] == [
        f"{shm} (in another mount namespace)",
        f"listening socket 0.0.0.0:{port} (in another network namespace)",
    ]
    with_holder = still_there(inventory)
    assert [item.note for item in with_holder] == [leftovers.UNKNOWN, leftovers.HELD]
    assert sweep(with_holder).removed == ()
    holder.kill()
    assert still_there(inventory) == (), "nobody lives there any more"
    assert shm.exists()


def test_no_descriptor_is_left_open(hold: Hold, shm: Path, tmp_path: Path) -> None:
    """Looking and sweeping give back every file they open, also where they stop early."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    holders = [hold("mapped", shm), hold("flock", tmp_path / "x.lock"), hold("listener", "127.0.0.1:0")]
    pids = [holder.pid for holder in holders]
    inventory = inspect(pids, BUDGET_S)
    inspect(pids, 0.0)
    for holder in holders:
        holder.close()
    sweep(still_there(inventory))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@contextmanager
def nobody() -> Iterator[None]:
    """Be another user for a while, where we are root; /proc then shows what it shows to that user."""
    if os.getuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(os.getuid())
