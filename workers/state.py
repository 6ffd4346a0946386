"""What is known of one agent's processes, and where their stopping is: the state that `stopping` decides on. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from coord.messages import Outcome, ProcessReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coord.plan import Plan, Step
    from workers.events import Found, Key


class Phase(StrEnum):
    """Where the agent's work is."""

    RUNNING = "running"
    STOPPING = "stopping"  # asked to leave
    KILLING = "killing"  # held out
    OVER = "over"  # nothing left, or survivors


@dataclass(frozen=True, slots=True)
class Process:
    """What is known of one process."""

    found: Found
    outcome: Outcome = Outcome.RUNNING
    exit_code: int | None = None
    signal: str | None = None  # what it died of; while nobody knows, the last one it was sent
    took_s: float | None = None


@dataclass(frozen=True, slots=True)
class State:
    """All of it. `plan` is the agent's own until a request shortens it."""

    plan: Plan
    phase: Phase = Phase.RUNNING
    step: int = 0
    began_s: float = 0.0
    deadline_s: float = 0.0  # of the present step
    proved: bool = False  # the tree was seen empty
    sealed: bool = True  # no more children will be started
    ask_all: bool = True  # whole trees; else the children alone, and what is left of their trees when they have gone
    asked: bool = False  # the present stop has begun: who comes now was started by somebody who was asked
    processes: Mapping[Key, Process] = field(default_factory=dict)

    @property
    def alive(self) -> tuple[Key, ...]:
        """Processes not known to be gone."""
        return tuple(key for key, process in self.processes.items() if process.outcome is Outcome.RUNNING)

    @property
    def children(self) -> tuple[Key, ...]:
        """Of these, the children."""
        return tuple(key for key in self.alive if self.processes[key].found.child)

    @property
    def unasked(self) -> tuple[Key, ...]:
        """Of these, the ones that got no signal yet."""
        return tuple(key for key in self.alive if self.processes[key].signal is None)

    @property
    def current(self) -> Step:
        """The step of the plan that is being done."""
        return self.plan.steps[self.step]

    @property
    def kill_at_s(self) -> float:
        """When hold-outs are killed."""
        return self.began_s + self.plan.kill_at_s

    @property
    def kill_max_s(self) -> float:
        """The latest instant to which a process can put that off by asking for more time."""
        return self.began_s + self.plan.kill_max_s

    @property
    def survivors(self) -> tuple[Process, ...]:
        """Processes that outlived the whole plan."""
        return tuple(process for process in self.processes.values() if process.outcome is Outcome.SURVIVED)

    def reports(self) -> tuple[ProcessReport, ...]:
        """Give what the record is told of each process."""
        return tuple(map(_report, self.processes.values()))


def _report(process: Process) -> ProcessReport:
    found, took_s = process.found, process.took_s
    return ProcessReport(
        pid=found.key[0],
        label=found.label,
        command=found.command,
        outcome=process.outcome,
        exit_code=process.exit_code,
        signal=process.signal,
        took_s=None if took_s is None else round(took_s, 4),
    )
