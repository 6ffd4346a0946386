"""What an RQ job's meta says is read, and nothing of it is run. Promises: right target only, closed."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from coord.rq.meta import JOB_ID, text_in_meta


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "meta",
    [
        {JOB_ID: "x"},
        {"a": 1, JOB_ID: "x", "b": [1, 2]},
        {"a": [JOB_ID, "y"], "b": JOB_ID, JOB_ID: "x"},
        {"at": datetime.now(UTC), "path": Path("/tmp"), "o": OrderedDict(a=1), "s": {1, 2}, JOB_ID: "x"},  # noqa: S108
    ],
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_meta_is_read(meta: dict[str, Any], protocol: int) -> None:
    """The job's name is found among whatever else a user keeps in a meta, in each version of pickle."""
    assert text_in_meta(pickle.dumps(meta, protocol), JOB_ID) == "x"


def test_json_meta_is_read() -> None:
    """The job's name is found in a meta that RQ's JSON serializer wrote."""
    assert text_in_meta(json.dumps({"a": "ü", JOB_ID: "x"}).encode(), JOB_ID) == "x"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"coord_job_id",
        b"{coord_job_id",
        b'["coord_job_id"]',
        b"\x80\x05coord_job_id",
        pickle.dumps({JOB_ID: 7}),
        pickle.dumps([JOB_ID, "x"]),
        pickle.dumps({"a": "x"}),
        pickle.dumps({JOB_ID: "x", "long": "x" * 2**20}),
    ],
)
def test_what_is_no_such_meta_says_nothing(raw: bytes) -> None:
    """Bytes of any other kind name no job, and raise nothing."""
    assert text_in_meta(raw, JOB_ID) is None


def test_nothing_of_it_is_run(tmp_path: Path) -> None:
    """Who can write to Redis can have nothing run by whoever stops a job; a real unpickling would run it."""
    raw = pickle.dumps({"a": Evil(tmp_path / "evil"), JOB_ID: "x"})
    assert text_in_meta(raw, JOB_ID) == "x"
    assert not (tmp_path / "evil").exists()
    pickle.loads(raw)  # noqa: S301  # negative control
    assert (tmp_path / "evil").exists()
