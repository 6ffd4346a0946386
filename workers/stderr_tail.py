"""Passes a child's stderr through untouched, and keeps its last lines for the first-failure report.

A thread does it, since whoever reads our stderr may be slow: that must never hold up a shutdown. Knows no process.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import termios
import threading
import time
from collections import deque

from coord.messages import STDERR_LINES_MAX, TEXT_MAX, clip
from workers.outlet import write_all

READ_BYTES = 65536
PENDING_MAX = 4 * TEXT_MAX  # bytes of a line that has no end yet
LOOK_S = 0.001


class StderrTail:
    """Give `write_fd` to the child as its stderr, then call `close_write`."""

    def __init__(self, out_fd: int) -> None:
        self._read_fd, self.write_fd = os.pipe()
        self._out_fd = out_fd
        self._lines: deque[bytes] = deque(maxlen=STDERR_LINES_MAX)
        self._pending = b""
        self._lock = threading.Lock()
        self._passed = threading.Event()
        self._passed.set()
        self._thread = threading.Thread(target=self._pump, name="stderr", daemon=True)
        self._thread.start()

    def close_write(self) -> None:
        """Leave the writing end to the child alone."""
        os.close(self.write_fd)

    def lines(self, wait_s: float) -> tuple[str, ...]:
        """Give the last lines, once everything written so far was read, or `wait_s` has passed."""
        self._until_read(wait_s)
        with self._lock:
            last = [*self._lines, self._pending] if self._pending else [*self._lines]
        return tuple(clip(line.decode(errors="replace")) for line in last[-STDERR_LINES_MAX:])

    @property
    def passed(self) -> bool:
        """Tell whether all that was written so far has been passed on; a grandchild may hold the pipe open for ever."""
        with self._lock:
            return not self._thread.is_alive() or (self._passed.is_set() and not self._unread())

    def _until_read(self, wait_s: float) -> None:
        end_s = time.monotonic() + wait_s
        while self._thread.is_alive() and time.monotonic() < end_s:
            with self._lock:
                if not self._unread():
                    return
            time.sleep(LOOK_S)

    def _unread(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self._read_fd, termios.FIONREAD, count)
        return count[0]

    def _pump(self) -> None:
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        while True:
            poll.poll()
            # read and kept in one step: whoever finds the pipe empty under the lock finds the lines complete
            with self._lock:
                data = os.read(self._read_fd, READ_BYTES)
                self._keep(data)
                self._passed.clear()
            if not data:
                self._passed.set()
                return
            write_all(self._out_fd, data)  # who reads it may be gone: the child must not be held up for that
            self._passed.set()

    def _keep(self, data: bytes) -> None:
        *whole, rest = (self._pending + data).split(b"\n")
        self._lines.extend(line[:PENDING_MAX] for line in whole[-STDERR_LINES_MAX:])
        self._pending = rest[-PENDING_MAX:]
