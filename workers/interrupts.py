"""Interrupts the main thread of a program when its job is being stopped, and has SIGTERM end the program in order."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

AGAIN_S = 0.05


class Interrupts:
    """`error()`: what to raise in the main thread when the job is being stopped. Takes SIGTERM where nobody has it.

    Nothing is raised within `own_work`: what runs there looks itself whether the job is being stopped.
    """

    def __init__(self, error: Callable[[], BaseException]) -> None:
        self._error = error
        self._main_ident = threading.get_ident()
        self._inside = False
        self._wanted = False
        self._owns = False

    def take(self) -> None:
        """Take SIGTERM, in the main thread."""
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._owns = True
            signal.signal(signal.SIGTERM, self._handle)

    def give_back(self) -> None:
        """Let SIGTERM do again what it did before."""
        if self._owns:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @contextmanager
    def own_work(self) -> Iterator[None]:
        """Raise nothing of the stop in this block; SIGTERM from outside still ends the program."""
        before, self._inside = self._inside, True
        try:
            yield
        finally:
            self._inside = before

    def interrupt(self, later: Callable[[float, Callable[[], None]], None]) -> None:
        """Interrupt the main thread, wherever it is; from another thread. `later(wait_s, call)`: how to come back."""
        if self._owns and not self._wanted:
            self._wanted = True
            self._nudge(later)

    def _nudge(self, later: Callable[[float, Callable[[], None]], None]) -> None:
        """Again and again, since Python can miss a signal that comes just before it waits for something."""
        if not self._inside:
            signal.pthread_kill(self._main_ident, signal.SIGTERM)
            later(AGAIN_S, lambda: self._nudge(later))

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._wanted and self._inside:
            return
        self._inside = True  # for good: the block is being left
        raise self._error() if self._wanted else SystemExit(128 + signal.SIGTERM)
