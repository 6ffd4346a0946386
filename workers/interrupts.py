"""How a stop, Ctrl-C and SIGTERM reach the main thread of a program, while a `JobScope` of it is open.

All are exceptions, raised wherever the program is, but never in the midst of a scope's own work: there they are noted,
and the scope looks. A stop that was lost (in `__del__`, in an `except Exception: pass`) is raised again.

- SIGINT and SIGTERM are taken only where nobody else has them: a handler of the program's own stays what it is.
- The nudge is SIGCONT, which is ignored by default: one that comes late ends nobody. It comes from the agent's thread,
  again and again, since Python can miss a signal that comes just before it waits for something.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from workers import forks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

AGAIN_S, AGAIN_MAX_S = 0.001, 0.05
SAME_PLACE = 3  # so often in a row: there it waits
NUDGE = signal.SIGCONT
TAKEN = ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))
OWN_WORK = {"workers.scope", "workers.forks"}
RANK = "workers.rank"  # what stands above it on the stack of a forked rank is the program's past


class Interrupts:
    """One scope's. `error()`: what to raise when the job is being stopped. `later(wait_s, call)`: on another thread."""

    def __init__(self, error: Callable[[], BaseException], later: Callable[[float, Callable[[], None]], None]) -> None:
        self._error = error
        self._later = later
        self._raised: weakref.ref[BaseException] | None = None
        self._wanted = False
        self._leaving = False
        self._nudging = False
        self._main = False  # the scope is the main thread's: Python runs handlers nowhere else

    def take(self) -> None:
        """Begin, where the scope is opened."""
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            _signals.open(self)

    def leave(self) -> None:
        """Raise nothing of this scope's stop any more: its block is being left."""
        self._wanted, self._leaving = False, True

    def give_back(self) -> None:
        """Let signals do again what they did before."""
        if self._main:
            _signals.close(self)

    def check(self, *, but_own: bool = False) -> None:
        """Raise what has come meanwhile, for this scope or for another one that is open."""
        if self._main and threading.current_thread() is threading.main_thread():
            _raise(_signals.due(self if but_own else None))

    def noted(self) -> BaseException | None:
        """Give what a signal wants to be raised, if one came."""
        return _signals.take_note() if self._main else None

    def interrupt(self) -> None:
        """Have the error raised in the main thread; from another one."""
        if self._main and not self._leaving:
            self._wanted = True
            self.nudge()

    def nudge(self) -> None:
        """Have the main thread look, until nothing is due any more; from any thread."""
        if not self._nudging:
            self._nudging = True
            self._nudge(AGAIN_S)

    def pending(self) -> BaseException | None:
        """Give what is to be raised now: the error, unless it was raised and somebody still has it."""
        if not self._wanted or (self._raised and self._raised()):
            return None
        return self._error()

    def raised(self, error: BaseException) -> None:
        """Note that this is being raised: as long as somebody has it, it need not be raised again."""
        self._raised = weakref.ref(error)

    def _nudge(self, pause_s: float) -> None:
        self._nudging = self._wanted or _signals.note is not None
        if self._nudging:
            signal.pthread_kill(threading.main_thread().ident or 0, NUDGE)
            self._later(pause_s, lambda: self._nudge(min(2 * pause_s, AGAIN_MAX_S)))


class _Signals:
    """The program's handlers, there while a scope of the main thread is open."""

    def __init__(self) -> None:
        self.note: BaseException | None = None
        self._open: list[Interrupts] = []  # outermost first
        self._before: dict[int, Any] = {}
        self._places: deque[tuple[CodeType, int]] = deque(maxlen=SAME_PLACE)

    def open(self, scope: Interrupts) -> None:
        if not self._open:
            taken = [number for number, default in TAKEN if signal.getsignal(number) == default]
            self._before = {number: signal.signal(number, self._handle) for number in (*taken, NUDGE)}
        self._open.append(scope)

    def close(self, scope: Interrupts) -> None:
        if scope in self._open:
            self._open.remove(scope)
        if not self._open:
            self.give_back()

    def give_back(self) -> None:
        """Let go of all signals; what the program has set meanwhile stays."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before, self.note = {}, None
        self._places.clear()
        self._open.clear()

    def take_note(self) -> BaseException | None:
        note, self.note = self.note, None
        return note

    def due(self, but: Interrupts | None = None) -> BaseException | None:
        """Give what is to be raised now: a signal, else the stop of the outermost scope that has one."""
        stops = (scope.pending() for scope in self._open if scope is not but)
        return self.take_note() or next((error for error in stops if error), None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == NUDGE:
            if callable(before := self._before.get(NUDGE)):
                before(number, frame)
        else:
            self.note = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        if not _in_own_work(frame) and not self._moves_on(frame):
            _raise(self.due())
        elif self.note and self._open:
            self._open[-1].nudge()

    def _moves_on(self, frame: FrameType | None) -> bool:
        """Tell whether it is in the midst of `threading`, which handles its own locks there, and does not just wait.

        Raised there, an error becomes "cannot release un-acquired lock".
        """
        if frame is None or frame.f_globals is not threading.__dict__:
            return False
        self._places.append((frame.f_code, frame.f_lasti))
        return len(set(self._places)) > 1 or len(self._places) < SAME_PLACE


def _raise(error: BaseException | None) -> None:
    """Raise it, if there is one, and keep no hold of it: when nobody has it any more, it was lost."""
    try:
        if error:
            raise error
    finally:
        del error


def _in_own_work(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_globals.get("__name__") != RANK:
        if frame.f_globals.get("__name__") in OWN_WORK:
            return True
        frame = frame.f_back
    return False


_signals = _Signals()
forks.in_child.append(_signals.give_back)
