"""How `coord run` ends: its exit code, and what the person at its terminal is told. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coord.messages import Outcome
from coord.render.text import left_behind_words, milliseconds, survivor_words, why

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.messages import LeftBehind, ShutdownRequest, Survivor
    from workers.state import Process, State

TERMINATED = 128 + 15
KILLED = 128 + 9


@dataclass(frozen=True, slots=True)
class Ending:
    """What `coord run` knows when its agent is through."""

    job_id: str
    label: str
    state: State
    request: ShutdownRequest | None
    drained_by: str | None  # the signal that began the stop, if one did
    stop_on_failure: bool
    told: bool  # the record has all that this agent had to tell
    signal_number: Callable[[str], int]
    survivors: tuple[Survivor, ...] = ()
    left_behind: tuple[LeftBehind, ...] = ()

    @property
    def ended_by_itself(self) -> bool:
        """Nobody stopped it."""
        return self._child is not None and self._child.outcome is Outcome.EXITED

    def code(self) -> int:
        """Give the command's own code if it ended by itself, else 143 or 137."""
        child = self._child
        if child is None or child.outcome is Outcome.TERMINATED:
            return TERMINATED
        if child.outcome is not Outcome.EXITED:
            return KILLED
        return self._own_code(child)

    def lines(self) -> list[str]:
        """Give what a person has to know: why it ended, and whatever is not as it should be."""
        child = self._child
        lines = [
            f"process {process.found.key[0]} ({process.found.command}) survived SIGKILL and is still there"
            f"{survivor_words(self.survivors, process.found.key[0])}"
            for process in self.state.survivors
        ]
        if self.left_behind:
            lines.append(left_behind_words(self.left_behind))
        if child is None:
            lines.append(f"{self._why()}; {self.label} was not started")
        elif child.outcome is Outcome.EXITED:
            lines += self._own_end(child)
        else:
            lines.append(f"{self._why()}; {self.label} {_how(child)}{self._others(child)}")
        if not self.told:
            lines.append("the record could not be told of this end: other hosts may still run. Redis is not reachable")
        return lines

    @property
    def _child(self) -> Process | None:
        return next((process for process in self.state.processes.values() if process.found.child), None)

    def _own_code(self, child: Process) -> int:
        return 128 + self.signal_number(child.signal) if child.signal else child.exit_code or 0

    def _own_end(self, child: Process) -> list[str]:
        lines = []
        left = len(self.state.processes) - 1
        if left:
            lines.append(f"{self.label} ended and left {left} more of its processes, which were stopped")
        if (code := self._own_code(child)) and self.stop_on_failure:
            how = f"was killed by {child.signal}" if child.signal else f"exited with code {code}"
            lines.append(f"{self.label} {how}{self._everywhere('; ')}")
        return lines

    def _others(self, child: Process) -> str:
        """Name what the command's own end does not show."""
        others = (process for process in self.state.processes.values() if process is not child)
        killed = sum(process.outcome is Outcome.KILLED for process in others)
        return f"; {killed} more of its processes had to be killed" if killed else ""

    def _why(self) -> str:
        if self.drained_by:
            return f"{self.drained_by} received{self._everywhere('; ') if self.stop_on_failure else ''}"
        if self.request:
            return f"job {self.job_id} was shut down {why(self.request)}"
        return f"job {self.job_id} was stopped"

    def _everywhere(self, before: str) -> str:
        return f"{before}job {self.job_id} is stopped on all hosts" if self.told else ""


def _how(child: Process) -> str:
    took = milliseconds(None if child.took_s is None else child.took_s * 1000)
    if child.outcome is Outcome.SURVIVED:
        return "survived SIGKILL"
    return (
        f"left when asked, after {took}" if child.outcome is Outcome.TERMINATED else f"had to be killed, after {took}"
    )
