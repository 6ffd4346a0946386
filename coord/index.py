"""The index of jobs, as calls: a job is put there, and dropped when its record has expired. Pure.

It can't share a slot with every job, so what it says is made true bit by bit: who puts a job there looks after a few
others. Of n jobs that ever were, it holds those that live, and about a tenth more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coord.keys import CONTROL_CHANNEL, JOBS_INDEX, job_keys
from coord.plan import WAIT_MAX_S
from coord.record import Call

if TYPE_CHECKING:
    from collections.abc import Iterable

PICKED = 10  # of whom one may be dead, when each join brings a new job and drops one
NEW_S = 60.0  # from being put here to the first join
RENEW_S = 3600.0  # an agent of a long job puts it there again
LIFE_S = round(WAIT_MAX_S) + 24 * 3600  # longer than any record that nobody renews


def remember(job_id: str, *, again: bool = False, new_s: float = NEW_S) -> Call[list[str]]:
    """Put a job into the index; gives others that should be looked for. `again`: it keeps its place among them."""
    return _call("remember", job_id, int(again), PICKED, _us(new_s), LIFE_S)


def forget(job_ids: Iterable[str], *, new_s: float = NEW_S) -> Call[list[str]]:
    """Drop jobs of which there is no record."""
    return _call("forget", _us(new_s), *job_ids)


def exists(job_id: str) -> Call[bool]:
    """Tell whether there is such a job."""
    return Call("exists", job_keys(job_id), (0, CONTROL_CHANNEL), bool)


def _call(script: str, *args: str | float) -> Call[list[str]]:
    return Call(script, (JOBS_INDEX,), (0, CONTROL_CHANNEL, *args), _names)


def _names(reply: Any) -> list[str]:
    return [name.decode(errors="replace") for name in reply]


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
