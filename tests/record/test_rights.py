"""A user who lacks one right: each script is done whole or not at all, whichever command is forbidden."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from coord.errors import CoordError, UnreachableError
from coord.ledger import script_text
from coord.messages import Outcome
from coord.plan import Plan
from tests.record.desk import PLAN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from tests.record.conftest import Unguard
    from tests.record.desk import Desk


def request(desk: Desk) -> object:
    return desk.request(PLAN)


def shorten(desk: Desk) -> object:
    asked = desk.look().request
    assert asked
    return desk.shorten(asked, Plan.of(1, 1))


def requested(desk: Desk) -> None:
    desk.join("a")
    desk.request(PLAN)


def lost(desk: Desk) -> None:
    """Host a did not answer; b is heard, so that nobody doubts the clock."""
    desk.join("a", lease_s=-1.0)
    desk.join("b")
    desk.request(PLAN)


# the script, what there was before, and what is done
CALLS: tuple[tuple[str, Callable[[Desk], object], Callable[[Desk], object]], ...] = (
    ("join", lambda desk: desk.join("a"), lambda desk: desk.join("b")),
    ("request", lambda desk: desk.join("a"), request),
    ("shorten", requested, shorten),
    ("fail", lambda desk: desk.join("a"), lambda desk: desk.fail("a")),
    ("report", requested, lambda desk: desk.report("a", Outcome.SURVIVED)),
    ("settle", lost, lambda desk: desk.settle()),
)
cases = pytest.mark.parametrize(("script", "before", "does"), CALLS, ids=[name for name, *_ in CALLS])


def commands(script: str) -> list[str]:
    """Give every command that the script might use; what it says with pcall, it can do without."""
    return sorted(set(re.findall(r"redis\.call\('([A-Z]+)'", script_text(script))))


@contextmanager
def without(client: redis.Redis, command: str) -> Iterator[None]:
    """Forbid everybody one command."""
    client.execute_command("ACL", "SETUSER", "default", f"-{command.lower()}")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]


def content(desk: Desk) -> dict[str, Any]:
    """Give all that the server has of the job, as it keeps it."""
    client = desk.raw
    return {key: client.execute_command("DUMP", key, NEVER_DECODE=True) for key in desk.all_keys()}  # type: ignore[no-untyped-call]


@cases
def test_a_script_is_done_whole_or_not_at_all(
    desk: Desk, script: str, before: Callable[[Desk], object], does: Callable[[Desk], object]
) -> None:
    """Refused with our own error, which names no defect; and the record is what it was."""
    before(desk)
    was = content(desk)
    for command in commands(script):
        with without(desk.raw, command), pytest.raises(UnreachableError, match="forbids this user a command"):
            does(desk)
        assert content(desk) == was, f"half done without {command}"
    does(desk)
    assert content(desk) != was


def test_unguarded_a_script_is_half_done(desk: Desk, unguard: Unguard) -> None:
    """The negative control: the request stands, though its caller was told that it can't be made."""
    unguard("\nwholly()\n", script="request")
    desk.join("a")
    with without(desk.raw, "expire"), pytest.raises(CoordError):
        desk.request(PLAN)
    assert desk.look().request is not None
