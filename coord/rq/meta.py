"""What an RQ job's meta says of us, read without being unpickled: who writes to Redis may not run code here. Pure."""

from __future__ import annotations

import json
import pickletools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB_ID = "coord_job_id"
ON_FAILURE = "coord_on_failure"
META_MAX_BYTES = 1024 * 1024


def text_in_meta(raw: bytes, name: str) -> str | None:
    """Give the text that stands under a name in a meta that RQ's pickle or JSON serializer wrote; else None."""
    if name.encode() not in raw or len(raw) > META_MAX_BYTES:
        return None
    try:
        if raw.lstrip()[:1] == b"{":
            found = json.loads(raw)[name]
            return found if isinstance(found, str) else None
        return _pickled(raw, name)
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def _pickled(raw: bytes, name: str) -> str | None:
    values = _values(raw)
    for value in values:
        if value == name:
            found = next(values, None)
            return found if isinstance(found, str) else None
    return None


def _values(raw: bytes) -> Iterator[Any]:
    """Give each value in the order in which it is pushed; what is no text as None."""
    memo: dict[int, Any] = {}
    last: Any = None
    for opcode, argument, _ in pickletools.genops(raw):
        match opcode.name:
            case "MEMOIZE":
                memo[len(memo)] = last
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[int(argument or 0)] = last
            case "GET" | "BINGET" | "LONG_BINGET":
                last = memo.get(int(argument or 0))
                yield last
            case "FRAME" | "PROTO" | "MARK" | "SETITEM" | "SETITEMS" | "STOP":
                last = None
            case kind:
                last = argument if "UNICODE" in kind else None
                yield last
