"""What a program gets to know when its job was stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coord.errors import REFUSED, CoordError
from coord.messages import STDERR_LINES_MAX, FirstFailure, clip, one_line
from coord.render.text import failure_words, why

if TYPE_CHECKING:
    from coord.messages import AgentInfo, ShutdownRequest
    from workers.state import Process


class RankFailed(Exception):  # noqa: N818  # it says what a rank did, as the traceback shows it
    """What a rank said last: its traceback, from its own process or from another host."""

    def __init__(self, lines: str) -> None:
        super().__init__(f"\n{lines}")


class JobStopped(CoordError):  # noqa: N818  # somebody may have wanted it
    """The job was stopped, and nothing of it is left on this host once the block has been left.

    `failure`: the one that stopped it, here or on another host (`host`, `label`, `pid`, `exit_code`, `signal`,
    `stderr_tail`); None if none did. `request`: who wanted it, and why (`cause`, `by`, `reason`); None for a local
    scope. `__cause__` shows the traceback of the rank that failed.
    """

    exit_code = REFUSED
    failure: FirstFailure | None = None
    request: ShutdownRequest | None = None

    def tell(self, job_id: str, failure: FirstFailure | None, request: ShutdownRequest | None, trace: str) -> None:
        """Say what is known of it by now. `trace`: of a rank of this program; of others, the failure has the end."""
        self.failure, self.request = failure, request
        if request:
            self.hint = f"See `coord status --job-id {job_id}`"
        lines = (trace.splitlines() or list(failure.stderr_tail)) if failure else []
        self.message = f"job {job_id} was {_how(failure, request)}"
        if lines:
            self.message += f": {one_line(lines[-1])}"
            self.__cause__ = RankFailed("\n".join(lines))
        self.args = (self.message,)


def _how(failure: FirstFailure | None, request: ShutdownRequest | None) -> str:
    if failure:
        return f"stopped: {failure_words(failure)}"
    return f"shut down {why(request)}" if request else "stopped"


for _each in (RankFailed, JobStopped):
    _each.__module__ = "workers"  # where programs find them, and what a traceback shows


def failure_of(process: Process, info: AgentInfo, trace: str) -> FirstFailure:
    """Say how a rank of this program failed. `trace`: its traceback."""
    return FirstFailure(
        agent_id=info.agent_id,
        host=info.host,
        label=process.found.label,
        pid=process.found.key[0],
        exit_code=process.exit_code,
        signal=process.signal,
        stderr_tail=tuple(clip(line) for line in trace.splitlines()[-STDERR_LINES_MAX:]),
    )
