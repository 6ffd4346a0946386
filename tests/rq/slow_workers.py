"""A worker that pauses once, at a step that the test names: what the test does then finds it, or its horse, just there.

TEST_STEP names the step, TEST_REACHED the file by which it says that it is there; TEST_UNTIL says how long it stays:
until its host's `signals` were sent, the `drain` was heard, or the file of this name is there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rq.worker.base import BaseWorker

from workers.rq_desk import Desk
from workers.rq_ending import Ending
from workers.rq_horse import Horse
from workers.rq_reaping import ReapingWorker
from workers.rq_worker import CoordWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.rq_take import Hosting

WAIT_S = 20.0
SIGNALS_S = 0.3  # they follow the stop file
BEFORE: dict[str, tuple[type, str]] = {  # step -> the method that begins then
    "taken": (CoordWorker, "prepare_execution"),
    "allowed": (BaseWorker, "prepare_execution"),
    "prepared": (CoordWorker, "fork_work_horse"),
    "forked": (CoordWorker, "monitor_work_horse"),
    "horse born": (CoordWorker, "main_work_horse"),
    "horse deaf": (CoordWorker, "setup_work_horse_signals"),
    "horse hears": (CoordWorker, "perform_job"),
    "function begins": (Horse, "run"),
    "function over": (Horse, "over"),
    "horse records": (CoordWorker, "handle_job_success"),
    "horse leaves": (CoordWorker, "_note"),
    "horse reaped": (Ending, "_read_notes"),
    "end told": (Ending, "_await_settled"),
    "all written": (Desk, "finish"),
}
AFTER: dict[str, tuple[type, str]] = {  # step -> the method that is over then
    "asked": (Desk, "ask"),
    "fork untold": (ReapingWorker, "fork_work_horse"),
}
ASKED = ".asked"  # behind TEST_REACHED: a command was passed on to the agent


class Slow(CoordWorker):
    """See above."""

    made_for: ClassVar[Hosting]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        step = os.environ["TEST_STEP"]
        for steps, after in ((BEFORE, False), (AFTER, True)):
            if step in steps:
                slow_down(*steps[step], after=after)
        super().__init__(*args, **kwargs)
        assert self.hosting
        Slow.made_for = self.hosting

    def _ask(self, command: str, execution: Any) -> None:
        super()._ask(command, execution)
        Path(os.environ["TEST_REACHED"] + ASKED).touch()


def slow_down(owner: type, name: str, *, after: bool) -> None:
    """Have a method pause."""
    method: Callable[..., Any] = getattr(owner, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        if not after:
            pause()
        done = method(*args, **kwargs)
        if after:
            pause()
        return done

    setattr(owner, name, slow)


def pause() -> None:
    """Say that the step is reached, and stay; the first who comes."""
    try:
        os.close(os.open(os.environ["TEST_REACHED"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    end_s = time.monotonic() + WAIT_S
    while not over() and time.monotonic() < end_s:
        time.sleep(0.005)


def over() -> bool:
    """Tell whether to go on."""
    until, hosting = os.environ["TEST_UNTIL"], Slow.made_for
    if until == "drain":
        return hosting.desk.draining
    if until == "signals":
        signalled = Path(str(hosting.host_stop_file)).exists()
        time.sleep(SIGNALS_S if signalled else 0.0)
        return signalled
    return Path(until).exists()
