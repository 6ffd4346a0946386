"""What an RQ job's meta says of us, read without running anything: who writes to Redis may not run code here. Pure."""

from __future__ import annotations

import io
import json
import pickle
from typing import Any

JOB_ID = "coord_job_id"
ON_FAILURE = "coord_on_failure"
META_MAX_BYTES = 1024 * 1024


def text_in_meta(raw: bytes, name: str) -> str | None:
    """Give the text that stands under a name in a meta that RQ's pickle or JSON serializer wrote; else None."""
    if name.encode() not in raw or len(raw) > META_MAX_BYTES:
        return None
    try:
        meta = json.loads(raw) if raw.lstrip()[:1] == b"{" else _Reader(io.BytesIO(raw)).load()
    except Exception:  # noqa: BLE001  # of what it raises for bytes that are no pickle, there is no list
        return None
    found = meta.get(name) if isinstance(meta, dict) else None
    return found if isinstance(found, str) else None


class _Anything:
    """In place of each object that is no text, number, list or dict; takes what unpickling does to it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def take(self, *_: Any) -> None:
        """Take it."""

    __setstate__ = __setitem__ = append = extend = add = take


class _Reader(pickle.Unpickler):
    """Finds no class and no function, and so can call none."""

    def find_class(self, module: str, name: str, /) -> Any:
        """Give a class that does nothing."""
        del module, name
        return _Anything
