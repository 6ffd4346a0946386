"""Runs in the process of a rank: takes its place, then the user's function, and writes down how that ended."""

from __future__ import annotations

import json
import os
import signal
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coord.child import stop
from workers.prctl import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.containment import Entry

TRACE_MAX = 32 * 1024  # characters of a traceback; its end says what happened


@dataclass(frozen=True, slots=True)
class Rank:
    """What a rank needs to know. `parent_pid` None: whoever starts it may end before it does."""

    entry: Entry
    environment: dict[str, str]
    ending: str  # the file that says how it ended
    parent_pid: int | None

    def run(self, target: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Call the function. Its exception goes on to multiprocessing, which prints it and exits with code 1."""
        self._settle_in()
        try:
            target(*args, **kwargs)
        except SystemExit as error:
            self._say(exit_code=_code(error))
            raise
        except BaseException:
            self._say(exit_code=1, trace=traceback.format_exc()[-TRACE_MAX:])
            raise
        self._say(exit_code=0)

    def _settle_in(self) -> None:
        with suppress(PermissionError):  # it leads a group already
            os.setsid()  # the terminal's Ctrl-C comes to the program alone, which has its ranks stopped in order
        os.environ.update(self.environment)
        signal.set_wakeup_fd(-1)  # a forked rank has the handlers of the program
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop.raises_exit()
        if self.parent_pid == os.getppid():
            end_with_parent(self.parent_pid)
        self.entry.take()

    def _say(self, *, exit_code: int, trace: str = "") -> None:
        with suppress(OSError):
            Path(self.ending).write_text(json.dumps({"exit_code": exit_code, "trace": trace}))


def how_it_ended(ending: str) -> tuple[int | None, str]:
    """Give the exit code and the traceback that a rank wrote down; None when it ended without a word."""
    try:
        told = json.loads(Path(ending).read_text())
    except (OSError, ValueError):
        return None, ""
    return told["exit_code"], told["trace"]


def _code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1
