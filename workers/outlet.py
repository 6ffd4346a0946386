"""Writes our own lines to stderr without ever waiting for who reads it: a full pipe must not hold up a shutdown.

A thread writes; when more lines wait than LINES_MAX, the newest are dropped, and the next one that fits says how many.
"""

from __future__ import annotations

import os
import queue
import select
import threading
import time

LINES_MAX = 10_000
LOOK_S = 0.001


class Outlet:
    """A stream for the logger (`write`, `flush`), and for what a person reads (`say`)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._pump, name="outlet", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Take a line; never waits."""
        try:
            if self._dropped:
                self._lines.put_nowait(f"coord: {self._dropped} lines were dropped, since nobody read them\n")
                self._dropped = 0
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Do nothing: writing goes on by itself; see `drain`."""

    def say(self, line: str) -> None:
        """Tell the person at this terminal one thing."""
        self.write(f"coord: {line}\n")

    def drain(self, wait_s: float) -> None:
        """Wait until all is written, but not longer than this."""
        end_s = time.monotonic() + wait_s
        while self._lines.unfinished_tasks and time.monotonic() < end_s:
            time.sleep(LOOK_S)

    def close(self) -> None:
        """End the thread, once all is written."""
        self._lines.put(None)
        self._thread.join(LOOK_S)

    def _pump(self) -> None:
        while (line := self._lines.get()) is not None:
            write_all(self._fd, line.encode(errors="replace"))
            self._lines.task_done()


class LateOutlet:
    """An outlet that starts when there is something to write: its thread stays, and most programs need none."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._outlet: Outlet | None = None

    def write(self, text: str) -> None:
        """Take a line; never waits."""
        self._outlet = self._outlet or Outlet(self._fd)
        self._outlet.write(text)

    def flush(self) -> None:
        """Do nothing: writing goes on by itself; see `drain`."""

    def close(self, wait_s: float) -> None:
        """Wait until all is written, but not longer than this; then let the thread end."""
        if self._outlet:
            self._outlet.drain(wait_s)
            self._outlet.close()
            self._outlet = None


def write_all(fd: int, data: bytes) -> None:
    """Write it all, however slowly it is read; when nobody reads it any more, there is nobody left to tell."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody made it non-blocking for all who share it
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        except OSError:
            return
