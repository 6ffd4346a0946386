"""What crosses Redis, as frozen dataclasses, and how they are written; `decode` reads them. Pure: no clock."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coord.plan import Plan

VERSION = 1
MESSAGE_MAX_BYTES = 64 * 1024
TEXT_MAX = 500  # characters of a reason, a name, a line of stderr
COMMAND_MAX = 200
STDERR_LINES_MAX = 20
PROCESSES_MAX = 10_000  # per report; more are counted, not listed
SURVIVORS_MAX = 1_000
LEFT_BEHIND_MAX = 1_000


class Cause(StrEnum):
    """Why a job is shut down."""

    OPERATOR = "operator"
    FAILURE = "failure"
    HOST_LOST = "host-lost"
    DRAIN = "drain"


class Outcome(StrEnum):
    """How a process ended."""

    RUNNING = "running"
    EXITED = "exited"
    TERMINATED = "terminated"
    KILLED = "killed"
    SURVIVED = "survived"


class AgentState(StrEnum):
    """What an agent is doing; `lost` is said about it, never by it."""

    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class ShutdownRequest:
    """Who wants which job stopped, why, and by which plan."""

    id: str
    job_id: str
    cause: Cause
    by: str
    reason: str
    plan: Plan
    requested_us: int = 0  # Redis time of the record
    rev: int = 1  # counts up each time the plan was shortened
    elapsed_s: float = 0.0  # Redis time that had passed since requested_us when this copy was sent
    rq: bool = False  # the job has RQ jobs, which somebody has to sweep
    seal: str = ""  # see `coord.seal`

    def body(self) -> str:
        """Give the part that the requester writes; the plan, the time and the revision are the record's own."""
        return dump(
            {
                "id": self.id,
                "job_id": self.job_id,
                "cause": self.cause,
                "by": clip(self.by),
                "reason": clip(self.reason),
            }
        )


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """What an agent says of itself when it joins."""

    agent_id: str
    host: str
    label: str
    pid: int
    command: str
    fail_fast: bool = False  # its failure, or its loss, stops the job
    alone_s: float | None = None  # so long after its last word it has stopped its processes by itself; None: it goes on


@dataclass(frozen=True, slots=True)
class FirstFailure:
    """The failure that started the shutdown; `exit_code` or `signal` is set; of a `lost` host neither."""

    agent_id: str
    host: str
    label: str
    pid: int
    exit_code: int | None
    signal: str | None
    stderr_tail: tuple[str, ...] = ()
    at_us: int = 0  # Redis time of the record
    lost: bool = False  # its host: nobody has heard of the agent any more


@dataclass(frozen=True, slots=True)
class Lost:
    """An agent of which nobody has heard for longer than its lease."""

    info: AgentInfo
    silent_s: float

    @property
    def failure(self) -> FirstFailure:
        """What a lost host is to its job: a failure of which nobody knows more."""
        info = self.info
        return FirstFailure(info.agent_id, info.host, info.label, info.pid, None, None, lost=True)


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """One process of a tree. `signal` is the one that it died of, or the last one it was sent while nobody knows."""

    pid: int
    label: str
    command: str
    outcome: Outcome
    exit_code: int | None = None
    signal: str | None = None
    took_s: float | None = None  # from the stop's start to its end; None while it runs, or when it left before

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return _fields(self)


@dataclass(frozen=True, slots=True)
class Survivor:
    """Why a process is still there: `state` as in /proc (`D`: uninterruptible), where the kernel waits, whose it is."""

    pid: int
    state: str
    wchan: str | None
    owner: str

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return _fields(self)


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """Something that the killed left: its `kind` (shm, lock, ...), the `size` in bytes, and a `text` for people."""

    kind: str
    name: str
    size: int | None
    pid: int
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return _fields(self)


@dataclass(frozen=True, slots=True)
class Unproved:
    """An RQ job of which nobody saw the end. `status`: RQ's own word on it; `plain`: a plain `rq worker` had it."""

    host: str
    worker: str
    rq_job: str
    status: str = ""
    plain: bool = False


@dataclass(frozen=True, slots=True)
class AgentReport:
    """An agent's word on its trees."""

    state: AgentState
    proof: str | None = None
    processes: tuple[ProcessReport, ...] = ()
    first_signal_ms: float | None = None  # from the request's Redis time
    all_gone_ms: float | None = None
    survivors: tuple[Survivor, ...] = ()
    left_behind: tuple[LeftBehind, ...] = ()

    def count(self, outcome: Outcome) -> int:
        """Count the listed processes that ended so."""
        return self.counts().get(outcome, 0)

    def counts(self) -> dict[Outcome, int]:
        """Count the listed processes by how they ended."""
        return Counter(process.outcome for process in self.processes)


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a job's event stream: what happened, when in Redis time, and to whom."""

    id: str
    kind: str
    at_us: int
    detail: dict[str, Any] = field(default_factory=dict)


def encode(message: AgentInfo | FirstFailure | AgentReport) -> str:
    """Give the JSON that the record keeps."""
    return dump(message)


def clip(text: str, limit: int = TEXT_MAX) -> str:
    """Shorten a text to its limit, showing that it was."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def one_line(text: str) -> str:
    """Make a text fit to stand in a line at somebody's terminal: no line breaks, no control characters."""
    return clip(" ".join("".join(char if char.isprintable() else " " for char in text).split()))


def dump(value: Any) -> str:
    """Give JSON that any client can read: a name that is no Unicode keeps its place with question marks."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_fields)
    return text.encode(errors="replace").decode()


def _fields(message: Any) -> dict[str, Any]:
    """What `asdict` gives, without its deep copies: a report may hold thousands of processes."""
    return {name: getattr(message, name) for name in message.__dataclass_fields__}
