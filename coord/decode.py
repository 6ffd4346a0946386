"""Reads what crosses Redis, and checks it: what comes out is a value of `messages`, or a MessageError says why not.

Unknown fields are ignored, so that a newer coord can add some. Pure.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from coord.errors import UsageError
from coord.messages import (
    MESSAGE_MAX_BYTES,
    TEXT_MAX,
    VERSION,
    AgentInfo,
    AgentReport,
    AgentState,
    Cause,
    Event,
    FirstFailure,
    LeftBehind,
    Outcome,
    ProcessReport,
    ShutdownRequest,
    Survivor,
    Unproved,
    clip,
)
from coord.plan import Plan

NAME_SHOWN = 20
INTEGER_MAX = 2**53  # Lua's numbers are doubles
_REPORT = b',"report":'  # nothing before it holds these bytes: `report.lua` writes times and a seal there

_Message = TypeVar(
    "_Message", "AgentInfo", "FirstFailure", "AgentReport", "ProcessReport", "Survivor", "LeftBehind", "Unproved"
)


class MessageError(ValueError):
    """What came from outside is not a message of ours; the text says why."""


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
        rq=message.get("rq") == 1,
        seal=_seal(message.get("seal")),
    )


def request_from(
    body: dict[str, Any], plan: Any, *, requested_us: int, rev: int, elapsed_us: int, rq: bool, seal: str = ""
) -> ShutdownRequest:
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
            rq=rq,
            seal=seal,
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


def report_text(data: bytes) -> tuple[str, str]:
    """Give the report as its agent wrote it, and its seal, from what `report.lua` keeps; raises MessageError."""
    head, found, text = data.partition(_REPORT)
    if not (found and text.endswith(b"}")):
        raise MessageError("no report in it")
    try:
        return text[:-1].decode(), _seal(_load(head + b"}").get("seal"))
    except UnicodeDecodeError as error:
        raise MessageError("not UTF-8") from error


def decode_report(data: bytes) -> AgentReport:
    """Read an agent's report and its timings, as `report.lua` keeps them; raises MessageError."""
    kept = _load(data.partition(_REPORT)[0] + b"}")
    message = _load(report_text(data)[0].encode())
    message |= {name: kept.get(name) for name in ("first_signal_ms", "all_gone_ms")}
    try:
        message["state"] = AgentState(message["state"])
        message["processes"] = tuple(
            _known(ProcessReport, {**process, "outcome": Outcome(process["outcome"])})
            for process in message.get("processes") or ()
        )
        message["survivors"] = tuple(_known(Survivor, each) for each in message.get("survivors") or ())
        message["left_behind"] = tuple(_known(LeftBehind, each) for each in message.get("left_behind") or ())
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(f"not a report: {error}") from error
    return _known(AgentReport, message)


def decode_unproved(data: bytes) -> tuple[Unproved, ...]:
    """Read the list of RQ jobs without proof; raises MessageError."""
    try:
        return tuple(_known(Unproved, each) for each in json.loads(data))
    except (TypeError, ValueError, AttributeError) as error:
        raise MessageError(f"no list of RQ jobs: {error}") from error


def decode_events(reply: Any) -> list[Event]:
    """Read what XREAD gave of one stream: RESP2 answers with a list of streams, RESP3 with a map of them."""
    streams = reply.items() if isinstance(reply, dict) else reply or ()
    return [_event(entry) for _, entries in streams for entry in _flat(entries)]


def _flat(entries: Any) -> list[Any]:
    """RESP3 nests a stream's entries one list deeper than RESP2."""
    return [entry for part in entries for entry in part] if entries and isinstance(entries[0], list) else list(entries)


def _event(entry: Any) -> Event:
    event_id, fields = entry
    return Event(
        id=event_id.decode(),
        kind=fields[b"kind"].decode(),
        at_us=int(fields[b"at_us"]),
        detail=json.loads(fields[b"detail"]),
    )


def decode_time(data: bytes) -> int:
    """Read a Redis time in us; raises MessageError for what can't be one."""
    time_us = int(data)
    if not 0 <= time_us <= INTEGER_MAX:
        raise MessageError(f"{time_us} is no time")
    return time_us


def _load(data: bytes) -> dict[str, Any]:
    try:
        # strict: a byte that is no UTF-8 makes the whole message suspect
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise MessageError("not JSON") from error
    if not isinstance(value, dict):
        raise MessageError("not a JSON object")
    return value


def _seal(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= TEXT_MAX else ""


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
    for name, types in _TYPED[kind.__name__]:
        if name in message and not isinstance(message[name], types):
            raise MessageError(f"not a {kind.__name__}: {name} is {type(message[name]).__name__}")
    try:
        return kind(**{name: value for name, value in message.items() if name in names})
    except TypeError as error:
        raise MessageError(f"not a {kind.__name__}: {error}") from error


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int": (int,),
    "int | None": (int, type(None)),
    "float | None": (int, float, type(None)),
    "bool": (bool,),
}
# of each kind, the fields that hold a text or a number, and what JSON may have for them
_TYPED = {
    kind.__name__: tuple(
        (name, _TYPES[str(field.type)])
        for name, field in kind.__dataclass_fields__.items()
        if str(field.type) in _TYPES
    )
    for kind in (AgentInfo, FirstFailure, AgentReport, ProcessReport, Survivor, LeftBehind, Unproved)
}
