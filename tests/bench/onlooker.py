"""Sees from outside when the children of a contestant are gone, and takes nobody's word for it.

A mark in their environment finds them, wherever they hang in the process tree; pidfds, opened before the stop, tell
when each has ended, pidfd_open(2).
"""

from __future__ import annotations

import os
import select
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MARK = "COORD_BENCH"
START_S = 60.0
GONE_S = 60.0  # longer than any contestant's own patience
SWEEPS_MAX = 50


@dataclass(frozen=True, slots=True)
class Gone:
    """When the children ended, in milliseconds from the moment the stop was called."""

    first_ms: float
    all_ms: float


@contextmanager
def children(mark: str, count: int) -> Iterator[tuple[int, ...]]:
    """Wait until `count` marked sleeps are there, and hold a pidfd of each."""
    deadline_s = time.monotonic() + START_S
    while len(found := sleeps_of(mark)) < count:
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"only {len(found)} of {count} children were started")
        time.sleep(0.02)
    pidfds = tuple(os.pidfd_open(pid) for pid in found)
    try:
        # looked at again after opening, a pid can't have gone to a stranger
        if len(pidfds) != count or sleeps_of(mark) != found:
            raise RuntimeError(f"{len(found)} children where there should be {count}")
        yield pidfds
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def time_stop(stop: Callable[[], None], pidfds: Sequence[int]) -> Gone:
    """Call `stop` on a thread of its own, and watch. Raises RuntimeError when a child outlives GONE_S."""
    with ThreadPoolExecutor(1) as caller:
        began_s = time.monotonic()
        called = caller.submit(stop)
        # Wait for any, then for each in turn: few wake-ups, which would cost the contestant processor time.
        _wait(pidfds, began_s)
        first_s = time.monotonic()
        for pidfd in pidfds:
            _wait([pidfd], began_s)
        all_s = time.monotonic()
        called.result(GONE_S)
    return Gone((first_s - began_s) * 1000, (all_s - began_s) * 1000)


def must_be_gone(mark: str) -> None:
    """Look everywhere, once more: raises RuntimeError when anything with the mark is alive."""
    deadline_s = time.monotonic() + GONE_S / 10
    while left := marked(mark):
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"left behind after the stop: pids {left}")
        time.sleep(0.01)


def sleeps_of(mark: str) -> list[int]:
    """Find the children: the marked ones that are a sleep."""
    return [pid for pid in marked(mark) if _read(pid, "comm") == b"sleep\n"]


@contextmanager
def killed_on_failure(mark: str) -> Iterator[None]:
    """When this run is interrupted, kill the children first: RQ's workers do not leave before them."""
    try:
        yield
    except BaseException:
        kill_marked(mark)
        raise


def kill_marked(token: str) -> None:
    """Kill by handle whatever still has a mark that begins with `token`: nothing is left when this run ends early."""
    for _ in range(SWEEPS_MAX):
        left = [pid for pid in marked(token, exact=False) if pid != os.getpid()]
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                if _has_mark(pid, token, exact=False):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
        time.sleep(0.05)


def _wait(pidfds: Sequence[int], began_s: float) -> None:
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    if not poll.poll(max(0.0, began_s + GONE_S - time.monotonic()) * 1000):
        raise RuntimeError(f"a child outlived the stop by {GONE_S:.0f} s")


def marked(mark: str, *, exact: bool = True) -> list[int]:
    """Find who has the mark, or one that begins so."""
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if _has_mark(pid, mark, exact=exact)]


def _has_mark(pid: int, mark: str, *, exact: bool) -> bool:
    wanted = f"\0{MARK}={mark}".encode() + (b"\0" if exact else b"")
    return wanted in b"\0" + _read(pid, "environ")


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # gone, or another user's
        return b""
