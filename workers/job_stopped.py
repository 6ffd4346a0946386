"""What a program gets to know when its job was stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coord.errors import REFUSED, CoordError
from coord.render.text import failure_words, why

if TYPE_CHECKING:
    from coord.messages import FirstFailure, ShutdownRequest


class RankFailed(Exception):  # noqa: N818  # it says what a rank did, as the traceback shows it
    """The traceback of a rank, from its own process."""

    def __init__(self, trace: str) -> None:
        super().__init__(f"\n{trace.rstrip()}")


class JobStopped(CoordError):  # noqa: N818  # somebody may have wanted it
    """The job was stopped. `failure`: the one that stopped it, None if none did; `request`: who wanted it, and why.

    Its `__cause__` shows the traceback of the rank that failed.
    """

    def __init__(self, message: str, failure: FirstFailure | None, request: ShutdownRequest | None) -> None:
        super().__init__(message, "See `coord status`", exit_code=REFUSED)
        self.failure = failure
        self.request = request


def stopped(job_id: str, failure: FirstFailure | None, request: ShutdownRequest | None, trace: str = "") -> JobStopped:
    """Make the error. `trace`: the traceback of a rank of this program; of others, the failure has the last lines."""
    if failure:
        message = f"job {job_id} was stopped: {failure_words(failure)}"
        lines = trace.splitlines() or list(failure.stderr_tail)
        if lines:
            message += f": {lines[-1]}"
    else:
        lines = []
        message = f"job {job_id} was shut down {why(request)}" if request else f"job {job_id} was stopped"
    error = JobStopped(message, failure, request)
    if lines:
        error.__cause__ = RankFailed("\n".join(lines))
    return error
