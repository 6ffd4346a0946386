"""What SIGTERM does in this process, and that it always does it: the half of `coord.child` that deals with signals.

The kernel's signal only leaves a note; Python runs the handler later, in the main thread, between two bytecodes. A main
thread that is just about to enter a blocking system call sleeps on the note, and so does one whose signal the kernel
gave to another thread. The bell is a thread that hears of each note through Python's wakeup fd, and then nudges the
main thread again and again, until it has run its handlers.

- The nudge is SIGURG: ignored by default, so one that comes late (after exec, or while Python ends) kills nobody, and
  those who use it must expect it for no reason. A handler that was there before is still called.
- SIGTERM is not blocked and waited for instead: programs started from here would inherit the mask, and be deaf.
- There is one wakeup fd, and asyncio takes it without asking. The bell passes on to whoever had it, and looks
  once in `LOOK_MS` whether a byte still comes back to it; if not, it nudges the main thread to take the fd again.
- A thread of ours lives while the program forks. It holds no lock that a child could miss, but Python >= 3.12 counts
  threads, and says so with a DeprecationWarning.

Knows nothing of stop files. Standard library only; quick to import.
"""

from __future__ import annotations

import _thread
import os
import queue
import select
import signal
import sys
import threading
from contextlib import suppress

TYPE_CHECKING = False  # typing is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

TERM = signal.SIGTERM
NUDGE = signal.SIGURG
AGAIN = 0  # no signal has this number: what is written to the bell's pipe to have SIGTERM answered once more
LOOK_MS = 1000
PAUSE_S, PAUSE_MAX_S = 0.001, 0.1  # between two nudges; the second is for long calls that no signal interrupts
PIPE_BYTES = 65536


class Left(SystemExit):
    """Raised by SIGTERM; a class of its own, so that one that Python lost can be told from the program's."""


class Bell:
    """The thread, its pipe, and what becomes of both in a fork. `muted` > 0: nobody is to be nudged."""

    def __init__(self) -> None:
        self.muted = 0
        self._armed = False
        self._ends = (-1, -1)
        self._masks: dict[int, set[signal.Signals | int]] = {}  # of the threads that fork right now

    def arm(self) -> None:
        """Watch over this process and over those that it forks. Main thread only.

        A second call changes nothing, unless the program has closed our pipe meanwhile.
        """
        if not self._armed:
            self._other = signal.signal(NUDGE, self._answer)
            os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._begin_anew)
        if not self._armed or not self._whole():
            self._begin()
        self._armed = True

    def again(self) -> bool:
        """Have SIGTERM answered once more, by the bell's hand, since from here it can't be; False without a bell."""
        try:
            return self._whole() and bool(os.write(self._ends[1], bytes([AGAIN])))
        except OSError:
            return False

    def _begin(self) -> None:
        self._main = _thread.get_ident()
        self._answers: queue.SimpleQueue[None] = queue.SimpleQueue()  # its put() may interrupt itself
        former_end = self._ends[1]
        self._ends = os.pipe()
        self._identity = [os.fstat(end)[1:3] for end in self._ends]
        for end in self._ends:
            os.set_blocking(end, False)
        self._lost = False
        before = signal.set_wakeup_fd(self._ends[1], warn_on_full_buffer=False)
        self._foreign = -1 if before == former_end else before
        _thread.start_new_thread(self._listen, (self._ends[0], self._identity))

    def _take(self) -> None:
        """Make the wakeup fd ours; who had it hears through us from now on."""
        before = signal.set_wakeup_fd(self._ends[1], warn_on_full_buffer=False)
        if before != self._ends[1]:
            self._foreign = before

    def _whole(self) -> bool:
        """Tell whether the pipe is still ours: who becomes a daemon closes every file, and uses the numbers anew."""
        try:
            return [os.fstat(end)[1:3] for end in self._ends] == self._identity
        except OSError:
            return False

    def _hold(self) -> None:
        """Before a fork: a new child drops the notes that it finds, so let SIGTERM wait in the kernel for a moment."""
        self._masks[_thread.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, (TERM,))  # on its own, since it may raise what SIGTERM raises

    def _release(self) -> None:
        mask = self._masks.pop(_thread.get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _begin_anew(self) -> None:
        """In a forked child: threads don't survive a fork, and the pipe is the parent's."""
        try:
            if self._whole():
                for end in self._ends:
                    os.close(end)
            signal.set_wakeup_fd(-1)  # it is the parent's, whosever it was
            self._begin()
        finally:
            self._release()

    def _listen(self, end: int, identity: list[tuple[int, int]]) -> None:
        poller = select.poll()
        poller.register(end, select.POLLIN)
        while True:
            due = poller.poll(LOOK_MS)
            if identity is not self._identity or not self._whole():
                return
            heard = self._read(end) if due else self._look(end)
            if AGAIN in heard:
                _thread.interrupt_main(TERM)  # leaves a note as the kernel's signal does, and rings
            if TERM in heard or self._lost:
                self._ring()

    def _read(self, end: int) -> bytes:
        try:
            heard = os.read(end, PIPE_BYTES)
        except BlockingIOError:
            return b""
        passed_on = bytes(number for number in heard if number not in {NUDGE, AGAIN})
        if passed_on and self._foreign != -1:
            with suppress(OSError):  # full: its owner has enough to read; closed: it has no owner
                os.write(self._foreign, passed_on)
        return heard

    def _look(self, end: int) -> bytes:
        """Leave a note of a nudge, which interrupts nobody, and see whether its byte comes to us."""
        if not self._answered_here():
            return b""
        self._forget()
        _thread.interrupt_main(NUDGE)
        heard = self._read(end)
        self._lost = NUDGE not in heard
        return heard

    def _ring(self) -> None:
        """Nudge until the main thread has answered twice: the first answer may have begun before the signal came."""
        self._forget()
        answers, pause_s = 0, PAUSE_S
        while answers < 2 and not self.muted and self._answered_here():
            signal.pthread_kill(self._main, NUDGE)
            try:
                self._answers.get(timeout=pause_s)
                answers += 1
            except queue.Empty:
                pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _answered_here(self) -> bool:
        """Tell whether nobody has taken SIGURG since; who has is not to be plagued with it."""
        return signal.getsignal(NUDGE) == self._answer

    def _forget(self) -> None:
        while not self._answers.empty():
            self._answers.get()

    def _answer(self, number: int, frame: FrameType | None) -> None:
        """Handle a nudge: Python has run what came before it, since it looks whenever a function begins."""
        self._answers.put(None)
        if self._lost:
            self._lost = False
            self._take()
        if callable(self._other):
            self._other(number, frame)


bell = Bell()


class Deferred:
    """A block in which SIGTERM waits."""

    def __enter__(self) -> None:
        self._came = False
        self._before = signal.signal(TERM, self._note)
        bell.muted += 1  # nobody has to be woken for a signal that waits

    def __exit__(self, *_: object) -> None:
        bell.muted -= 1
        try:
            self._restore()
        except BaseException:  # another signal's handler raised: Python runs what is due before it changes a handler
            self._restore()
            raise
        finally:
            if self._came:
                signal.raise_signal(TERM)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True

    def _restore(self) -> None:
        if signal.getsignal(TERM) == self._note:  # what was set inside the block stays
            signal.signal(TERM, self._before or signal.SIG_DFL)


class Leave:
    """Raises SystemExit(143), as a handler, but never where Python would lose it: then the bell has it called again."""

    raised: type[BaseException] = Left

    def __init__(self) -> None:
        self._place: tuple[FrameType, int] | None = None
        self._hook = sys.unraisablehook

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM."""
        if not (self.later(frame) and bell.again()):
            raise self.raised(128 + number)

    def later(self, frame: FrameType | None) -> bool:
        """Tell whether what is raised here would be lost."""
        return is_inside(OURS, frame) or self._moves_on(frame)

    def hook(self) -> None:
        """Hear of what Python drops."""
        if sys.unraisablehook != self._dropped:
            self._hook, sys.unraisablehook = sys.unraisablehook, self._dropped

    def _moves_on(self, frame: FrameType | None) -> bool:
        """Tell whether it is in the midst of `threading`: where a thread doesn't wait, but handles its own locks.

        Raised there, SystemExit becomes "cannot release un-acquired lock", a RuntimeError that programs catch. A thread
        that waits is found twice at the same place.
        """
        if frame is None or frame.f_globals is not threading.__dict__:
            return False
        before, self._place = self._place, (frame, frame.f_lasti)
        if before != self._place:
            return True
        self._place = None
        return False

    def _dropped(self, what: sys.UnraisableHookArgs, /) -> None:
        """Handle what was raised in `__del__`, in a fork hook, or at the program's end, which is the end anyway."""
        if not isinstance(what.exc_value, self.raised):
            self._hook(what)
        elif not at_exit(what):
            self.again()

    def again(self) -> None:
        """Have it raised once more, since it was dropped."""
        bell.again()


def is_inside(codes: set[CodeType], frame: FrameType | None) -> bool:
    """Tell whether one of these is among the frame and those above it."""
    while frame is not None and frame.f_code not in codes:
        frame = frame.f_back
    return frame is not None


def at_exit(what: sys.UnraisableHookArgs) -> bool:
    """Tell whether it was raised while the program waited for its threads after its end, or in an atexit callback."""
    said = what.err_msg or ""
    ends = what.object is threading or "threading shutdown" in said or "atexit callback" in said
    return ends or not threading.main_thread().is_alive()


# handlers of ours, which may have interrupted what must not be cut off; and the hook, where Python drops what is raised
OURS = {Leave.__call__.__code__, Bell._answer.__code__, Leave._dropped.__code__}  # noqa: SLF001  # in this file
leave = Leave()


def call_on_sigterm(callback: Callable[[], object]) -> None:
    """Have the callback called in the main thread for each SIGTERM."""
    bell.arm()
    signal.signal(TERM, lambda _number, _frame: callback())


def raise_on_sigterm(handler: Leave = leave) -> None:
    """Have SIGTERM raise SystemExit(143) in the main thread, or what another kind of handler raises."""
    bell.arm()
    handler.hook()
    signal.signal(TERM, handler)


def require_main(name: str) -> None:
    """Refuse, with RuntimeError, where Python neither sets nor runs signal handlers."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(f"stop.{name}() works in the main thread only: Python runs signal handlers nowhere else")
