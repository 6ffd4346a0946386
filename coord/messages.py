"""What crosses Redis, as frozen dataclasses: encode, decode, check. Pure: knows no clock, no Redis, no keys.

Everything read from outside is checked here: a message is either a value of one of these types or a MessageError
that says why not. Unknown fields are ignored, so that a newer coord can add some.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from coord.errors import UsageError
from coord.plan import Plan

VERSION = 1
MESSAGE_MAX_BYTES = 64 * 1024
TEXT_MAX = 500  # characters of a reason, a name, a line of stderr
COMMAND_MAX = 200
STDERR_LINES_MAX = 20
NAME_SHOWN = 20
INTEGER_MAX = 2**53  # Lua's numbers are doubles
PROCESSES_MAX = 10_000  # per report; more are counted, not listed


_Message = TypeVar("_Message", "AgentInfo", "FirstFailure", "AgentReport", "ProcessReport")


class MessageError(ValueError):
    """What came from outside is not a message of ours; the text says why."""


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


@dataclass(frozen=True, slots=True)
class FirstFailure:
    """The failure that started the shutdown; `exit_code` or `signal` is set, never both."""

    agent_id: str
    host: str
    label: str
    pid: int
    exit_code: int | None
    signal: str | None
    stderr_tail: tuple[str, ...] = ()
    at_us: int = 0  # Redis time of the record


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
class AgentReport:
    """An agent's word on its trees."""

    state: AgentState
    proof: str | None = None
    processes: tuple[ProcessReport, ...] = ()
    first_signal_ms: float | None = None  # from the request's Redis time
    all_gone_ms: float | None = None

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


def decode_control(data: bytes) -> ShutdownRequest:
    """Read a message of the control channel; raises MessageError when it is not one of ours."""
    if len(data) > MESSAGE_MAX_BYTES:
        raise MessageError(f"{len(data)} bytes, more than {MESSAGE_MAX_BYTES}")
    message = _load(data)
    if (version := _integer(message, "v")) != VERSION:
        raise MessageError(f"version {version}, not {VERSION}")
    if (kind := _text(message, "kind")) != "request":
        raise MessageError(f"unknown kind {clip(kind, NAME_SHOWN)!r}")
    body = message.get("request")
    if not isinstance(body, dict):
        raise MessageError("no request in it")
    return request_from(
        body,
        message.get("plan"),
        requested_us=_integer(message, "requested_us"),
        rev=_integer(message, "rev"),
        elapsed_us=_integer(message, "elapsed_us"),
    )


def request_from(body: dict[str, Any], plan: Any, *, requested_us: int, rev: int, elapsed_us: int) -> ShutdownRequest:
    """Put a request together from its body and the record's fields; raises MessageError."""
    try:
        return ShutdownRequest(
            id=_text(body, "id"),
            job_id=_text(body, "job_id"),
            cause=Cause(_text(body, "cause")),
            by=_text(body, "by"),
            reason=_text(body, "reason"),
            plan=Plan.from_list(plan),
            requested_us=requested_us,
            rev=rev,
            elapsed_s=max(0, elapsed_us) / 1e6,
        )
    except (ValueError, UsageError) as error:
        raise MessageError(str(error)) from error


def decode_info(data: bytes) -> AgentInfo:
    """Read what an agent said when it joined; raises MessageError."""
    return _known(AgentInfo, _load(data))


def decode_failure(data: bytes) -> FirstFailure:
    """Read a first failure; raises MessageError."""
    message = _load(data)
    lines = message.get("stderr_tail") or ()
    if not isinstance(lines, list | tuple):
        raise MessageError("stderr_tail is no list")
    message["stderr_tail"] = tuple(str(line) for line in lines)
    return _known(FirstFailure, message)


def decode_report(data: bytes) -> AgentReport:
    """Read an agent's report and its timings, as `report.lua` keeps them; raises MessageError."""
    kept = _load(data)
    message = kept.get("report")
    if not isinstance(message, dict):
        raise MessageError("no report in it")
    message |= {name: kept.get(name) for name in ("first_signal_ms", "all_gone_ms")}
    try:
        message["state"] = AgentState(message["state"])
        message["processes"] = tuple(
            _known(ProcessReport, {**process, "outcome": Outcome(process["outcome"])})
            for process in message.get("processes") or ()
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(f"not a report: {error}") from error
    return _known(AgentReport, message)


def dump(value: Any) -> str:
    """Give JSON that any client can read: a name that is no Unicode keeps its place with question marks."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_fields)
    return text.encode(errors="replace").decode()


def _fields(message: Any) -> dict[str, Any]:
    """What `asdict` gives, without its deep copies: a report may hold thousands of processes."""
    return {name: getattr(message, name) for name in message.__dataclass_fields__}


def _load(data: bytes) -> dict[str, Any]:
    try:
        # strict: a byte that is no UTF-8 makes the whole message suspect
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise MessageError("not JSON") from error
    if not isinstance(value, dict):
        raise MessageError("not a JSON object")
    return value


def _text(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise MessageError(f"{name} is no text of at most {TEXT_MAX} characters")
    return value


def _integer(message: dict[str, Any], name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > INTEGER_MAX:
        raise MessageError(f"{name} is no whole number that Redis can hold")
    return value


def _known(kind: type[_Message], message: dict[str, Any]) -> _Message:
    """Make a message of the fields that its type has, and leave out those of a newer coord."""
    names = kind.__dataclass_fields__
    try:
        return kind(**{name: value for name, value in message.items() if name in names})
    except TypeError as error:
        raise MessageError(f"not a {kind.__name__}: {error}") from error
