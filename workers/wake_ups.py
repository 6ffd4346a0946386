"""Signals to an agent on asyncio: none is lost, and a thousand children that end at once drown nobody.

asyncio learns of a signal from a byte in a pipe. When the pipe is full, Python complains on stderr, for each signal,
and waits for who reads that; and the byte is lost. So a full pipe is no reason to complain (its first byte wakes the
loop), and what must not be lost is taken by Python's own handler, which needs no byte of its own.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable


def hear(
    loop: asyncio.AbstractEventLoop, numbers: Iterable[signal.Signals], take: Callable[[signal.Signals], None]
) -> None:
    """Have `take` called in the loop for each of these signals; one that is ignored, as under nohup, stays ignored."""
    for each in numbers:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, lambda number, _: loop.call_soon_threadsafe(take, signal.Signals(number)))


def hear_children(loop: asyncio.AbstractEventLoop, reap: Callable[[], None]) -> None:
    """Have `reap` called in the loop when children have ended: once for many. It sets up the pipe for `hear`, too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # none may come while there is no pipe
    loop.add_signal_handler(signal.SIGCHLD, reap)
    signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
