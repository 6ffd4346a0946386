"""Runs in the process of a rank: waits for the word to go, calls the user's function, says how it ended.

The program holds the other end of its line. When it has put the rank in its place, it gives the word; when it can't,
since the job is being stopped, or the program is dead, the rank leaves, and nothing of the user's was run.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coord.child import stop
from workers.prctl import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable

TRACE_MAX = 32 * 1024  # characters of a traceback; its end says what happened
STOPPED = 128 + signal.SIGTERM


@dataclass(frozen=True, slots=True)
class Rank:
    """What a rank needs to know. `mask`: the signals that are blocked when it runs, as in the program.

    `parent_pid`: whose end is its end; None: whoever starts it may end before it does.
    """

    environment: dict[str, str]
    line: socket.socket
    mask: frozenset[int]
    parent_pid: int | None

    def run(self, target: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Call the function. Its exception goes on to multiprocessing, which prints it and exits with code 1."""
        self._settle_in()
        self._wait_to_go()
        pid = os.getpid()
        try:
            target(*args, **kwargs)
        except SystemExit as error:
            self._say(pid, exit_code=_code(error))
            raise
        except BaseException as error:
            if error.__traceback__:
                error.__traceback__ = error.__traceback__.tb_next  # without us
            self._say(pid, exit_code=1, trace="".join(traceback.format_exception(error))[-TRACE_MAX:])
            raise
        self._say(pid, exit_code=0)

    def _settle_in(self) -> None:
        with suppress(PermissionError):  # it leads a group already
            os.setsid()  # the terminal's Ctrl-C comes to the program alone, which has its ranks stopped in order
        os.environ.pop("COORD_SECRET", None)
        os.environ.update(self.environment)
        signal.set_wakeup_fd(-1)  # a forked rank has the program's
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # drops one that came to the group before it was left: POSIX
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop.raises_exit()
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        if self.parent_pid == os.getppid():
            end_with_parent(self.parent_pid)

    def _wait_to_go(self) -> None:
        if not self.line.recv(1) or stop.requested:
            raise SystemExit(STOPPED)

    def _say(self, pid: int, *, exit_code: int, trace: str = "") -> None:
        if os.getpid() != pid:
            return  # one that it forked, on its way out
        with suppress(OSError):  # nobody listens any more
            self.line.send(json.dumps({"exit_code": exit_code, "trace": trace}).encode(), socket.MSG_DONTWAIT)


def _code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1
