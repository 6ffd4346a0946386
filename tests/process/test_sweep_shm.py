"""Sweeping: what only the dead had is removed, and nothing else, ever. Each guard has its negative control."""

from __future__ import annotations

import array
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import WAIT_S, until
from workers import sweep_shm as sweeping
from workers.belongings import Inventory
from workers.inspection import inspect, segments
from workers.leftovers import HELD, still_there
from workers.sweep_shm import sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.process.holding import Holder
    from workers.belongings import Belonging

    Hold = Callable[..., Holder]

BUDGET_S = 60.0


def killed(*holders: Holder) -> tuple[Belonging, ...]:
    """Kill them, and give what is still there."""
    inventory = inspect([pid for holder in holders for pid in holder.pids], BUDGET_S)
    for holder in holders:
        holder.kill()
    return still_there(inventory)


def notes(items: tuple[Belonging, ...]) -> list[str]:
    return [item.note for item in items]


def test_what_only_the_dead_had_is_removed(
    hold: Hold, shm: Path, semaphore: str, forget_segment: Callable[[str], None]
) -> None:
    """Shared memory of both kinds and a semaphore: removed, and said to be."""
    holders = [hold("shared_memory", shm.name), hold("semaphore", semaphore), hold("segment")]
    shmid = holders[2].words[0]
    forget_segment(shmid)
    left = killed(*holders)
    assert [item.kind for item in left] == ["shm", "semaphore", "sysv-shm"]
    swept = sweep(left)
    assert (swept.removed, swept.kept) == (left, ())
    assert not shm.exists()
    assert not shm.with_name(f"sem.{semaphore}").exists()
    assert int(shmid) not in segments()
    assert sweep(left) == sweeping.Swept(), "what is gone is neither removed nor kept"


@pytest.mark.parametrize("program", ["mapped", "opened"])
def test_what_somebody_alive_has_is_kept(hold: Hold, shm: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has it open for reading, or only mapped: kept. With the guard off, the same sweep takes it."""
    holder = hold("mapped", shm)
    hold(program, shm)
    left = killed(holder)
    swept = sweep(left)
    assert (swept.removed, notes(swept.kept)) == ((), [HELD])
    assert shm.exists()
    monkeypatch.setattr(sweeping, "_have_alone", lambda _fd: None)
    assert sweep(left).removed == left
    assert not shm.exists()


def test_what_proc_does_not_show_is_kept(hold: Hold, shm: Path) -> None:
    """Who has it may be hidden from us: here it has no process at all, it is on its way through a socket."""
    holder = hold("mapped", shm)
    left = killed(holder)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = os.open(shm, os.O_RDONLY)
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        os.close(fd)
        assert notes(sweep(left).kept) == [HELD]
    assert sweep(left).removed == left


def test_a_segment_that_somebody_alive_has_is_kept(
    hold: Hold, forget_segment: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attached by another process: kept. With the guard off, the same sweep marks it to go."""
    holder = hold("segment")
    shmid = holder.words[0]
    forget_segment(shmid)
    hold("segment", shmid)
    left = killed(holder)
    swept = sweep(left)
    assert (swept.removed, notes(swept.kept)) == ((), [HELD])
    blind = {int(shmid): replace(segments()[int(shmid)], attached=0)}
    monkeypatch.setattr(sweeping, "segments", lambda: blind)
    assert sweep(left).removed == left


def test_another_one_by_the_same_name_is_kept(hold: Hold, shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody made it anew in between: kept. With the guard off, the same sweep takes it."""
    left = killed(hold("mapped", shm))
    shm.unlink()
    shm.write_bytes(b"somebody else's")
    assert still_there(Inventory(left)) == ()
    assert notes(sweep(left).kept) == [sweeping.OTHER]
    assert shm.read_bytes() == b"somebody else's"
    monkeypatch.setattr(sweeping, "same_file", lambda *_: True)
    assert sweep(left).removed == left


def test_what_is_older_than_the_job_is_kept(hold: Hold, shm: Path, forget_segment: Callable[[str], None]) -> None:
    """A data set that was put there beforehand is no leftover. A job that began earlier might have made it."""
    holders = hold("mapped", shm), hold("segment")
    forget_segment(holders[1].words[0])
    left = killed(*holders)
    assert notes(sweep(left, since=time.time() + 1).kept) == [sweeping.OLDER, sweeping.OLDER]
    assert shm.exists()
    assert sweep(left, since=time.time() - 3600).removed == left


def test_the_job_is_no_older_than_we_are(hold: Hold, shm: Path) -> None:
    """Who does not say when the job began means: not before this process did."""
    holder = hold("mapped", shm)
    younger = python(
        "inventory = inspect([int(sys.argv[1])], 60); print('ready', flush=True); sys.stdin.readline();"
        "print(*(item.note for item in sweep(still_there(inventory)).kept))",
        str(holder.pid),
    )
    holder.kill()
    assert finish(younger) == f"{sweeping.OLDER}\n"


def test_another_users_is_kept(hold: Hold, shm: Path) -> None:
    """What the dead could open, but somebody else owns, was never theirs."""
    holder = hold("mapped", shm)
    (item,) = inspect([holder.pid], BUDGET_S).items
    assert item.own
    if os.getuid() == 0:
        os.chown(shm, 65534, 65534)
        (item,) = inspect([holder.pid], BUDGET_S).items
        assert not item.own
    holder.kill()
    assert notes(sweep([replace(item, own=False)]).kept) == ["another user's"]
    assert sweep([replace(item, own=True)]).removed, "the negative control"


def test_nothing_outside_is_ever_touched(hold: Hold, shm: Path, tmp_path: Path) -> None:
    """Whatever an item says, a path that leads out of /dev/shm is refused; so is what is no memory."""
    (item,) = killed(hold("mapped", shm))
    outside = tmp_path / "x"
    outside.touch()
    there = outside.stat()
    item = replace(item, device=there.st_dev, inode=there.st_ino)
    shm.unlink()
    shm.symlink_to(outside)
    for name in (str(outside), f"{shm.parent}/../..{outside}", str(shm), f"{shm.parent}/"):
        assert sweep([replace(item, name=name)]).removed == ()
    assert sweep([replace(item, name=str(outside), kind="lock")]).removed == ()
    assert outside.exists()
    assert shm.is_symlink()


@pytest.mark.parametrize("guarded", [True, False])
def test_who_opens_it_meanwhile_waits_and_ends_nobody(shm: Path, *, guarded: bool) -> None:
    """The kernel tells us by signal that somebody waits for the file. By default, the negative control, it ends us."""
    shm.touch()
    off = "" if guarded else "sweep_module.signal = type('Off', (), {'SIGURG': 0});"
    alone = python(
        f"import workers.sweep_shm as sweep_module; {off} fd = os.open(sys.argv[1], os.O_RDONLY);"
        "sweep_module._have_alone(fd); print('ready', flush=True); sys.stdin.readline(); os.close(fd)",
        str(shm),
    )
    opener = python("print('ready', flush=True); os.open(sys.argv[1], os.O_RDWR); print('in')", str(shm))
    if guarded:
        until(lambda: f":{shm.stat().st_ino} " in breaking(), "the kernel to have the opener wait")
    else:
        assert alone.wait(WAIT_S) == -signal.SIGIO
    finish(alone)
    assert finish(opener) == "in\n"
    assert alone.returncode == (0 if guarded else -signal.SIGIO)


def finish(popen: subprocess.Popen[str]) -> str:
    """Let it go on to its end; gives what it had to say."""
    assert popen.stdin
    assert popen.stdout
    with popen:
        popen.stdin.close()
        return popen.stdout.read()


def breaking() -> str:
    """Give the leases that somebody waits for."""
    return "".join(line for line in Path("/proc/locks").read_text().splitlines(keepends=True) if "BREAKING" in line)


def python(code: str, argument: str) -> subprocess.Popen[str]:
    """Run code in a process that begins now; gives it back once it said `ready`."""
    head = (
        "import os, sys; from workers.inspection import inspect; from workers.leftovers import still_there;"
        "from workers.sweep_shm import sweep;"
    )
    popen = subprocess.Popen(
        [sys.executable, "-c", head + code, argument], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert popen.stdout
    assert popen.stdout.readline() == "ready\n"
    return popen
