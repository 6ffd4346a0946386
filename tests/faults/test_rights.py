"""Somebody takes rights away from coord's user: no request is half made, and what is left to hear with is enough."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from coord.errors import UNREACHABLE
from tests.faults.kinds import on_kind
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.stage import Stage

STOPPED = 143
COMMANDS = ("HSETNX", "HSET", "XADD", "EXPIRE")  # in the order in which it uses them; tests/record tries them all


@contextmanager
def without(stage: Stage, *rules: str) -> Iterator[None]:
    """Take rights away for a while."""
    change = ("ACL", "SETUSER", "default")
    stage.redis.execute_command(*change, *rules)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        stage.redis.execute_command(*change, "+@all", "allchannels")  # type: ignore[no-untyped-call]


@on_kind(1)
def test_a_request_that_lacks_one_right_is_not_half_made(stage: Stage) -> None:
    """Whichever command of the script is forbidden: the caller is told 4, and there is no request."""
    rank = stage.begin("a")
    for command in COMMANDS:
        with without(stage, f"-{command.lower()}"):
            ended = stage.shutdown("--no-wait")
        assert ended.code == UNREACHABLE, f"{command}: {ended.err}"
        assert "forbids this user a command" in ended.err
        assert not stage.requested_us, f"half made without {command}"
    assert rank.asked_s is None
    assert stage.shutdown().code == 0
    assert rank.end().code == STOPPED


@pytest.mark.parametrize("rule", ["-publish", "resetchannels"])
def test_who_may_not_publish_is_heard_all_the_same(stage: Stage, rule: str) -> None:
    """The request is made, and found with the next heartbeat; the caller is told the whole."""
    rank = stage.begin("a")
    with without(stage, rule):
        ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    stage.tell("first_signal_ms", ended.json["agents"][0]["first_signal_ms"])
    assert rank.end().code == STOPPED


def test_who_may_not_listen_hears_by_heartbeats_and_listens_again(stage: Stage) -> None:
    """The server closes an ear whose channel was taken away; given back, the ear is there again."""
    rank = stage.begin("a")
    until(lambda: stage.heard_by() == 1, "it to listen")
    with without(stage, "resetchannels"):
        until(lambda: stage.heard_by() == 0, "its ear to be closed")
        assert rank.run.running
    until(lambda: stage.heard_by() == 1, "it to listen again")
    ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    end = rank.end()
    assert end.code == STOPPED
    assert end.err.count("redis.lost") == 1, "said once, however often it tried"
