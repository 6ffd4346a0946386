"""An agent that is slow to listen: the server's buffer for it is full, and the server closes its ear."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from coord.errors import STILL_RUNNING
from coord.keys import CONTROL_CHANNEL
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.stage import Rank, Stage

STOPPED = 143
SMALL = {"client-output-buffer-limit": "pubsub 256kb 0 0"}
NOISE = b'{"v":1,"kind":"weather","pad":"' + b"x" * 10_000 + b'"}'  # another message, which agents leave alone
NOISE_MAX = 10_000  # what the kernel's own buffers hold is far less

small = pytest.mark.parametrize("config", [SMALL], ids=["small"])


@contextmanager
def paused(rank: Rank) -> Iterator[None]:
    """Have an agent that does nothing for a while."""
    agent = os.pidfd_open(rank.run.agent_pid)
    try:
        signal.pidfd_send_signal(agent, signal.SIGSTOP)
        yield
        signal.pidfd_send_signal(agent, signal.SIGCONT)
    finally:
        os.close(agent)


def flood(stage: Stage) -> int:
    """Publish until the server has closed the ear; give how many messages that took."""
    until(lambda: stage.heard_by() == 1, "it to listen")
    for count in range(1, NOISE_MAX):
        if not stage.redis.publish(CONTROL_CHANNEL, NOISE):
            return count
    raise AssertionError("the server closed nothing")


@small
@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_what_was_said_after_an_overrun_is_read_again(stage: Stage) -> None:
    """Its ear closed, the agent subscribes again, and finds the request in the record, without any heartbeat."""
    rank = stage.begin("a", guards="no-beat")
    with paused(rank):
        stage.tell("messages", flood(stage))
        assert stage.shutdown("--no-wait").code == 0
    ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    stage.tell("first_signal_ms", ended.json["agents"][0]["first_signal_ms"])
    end = rank.end()
    assert end.code == STOPPED
    assert "redis.lost" in end.err
    assert end.err.count("control.ignored") == 1, "the noise is logged once"


@small
def test_not_read_again_an_overrun_is_the_end_of_hearing(stage: Stage) -> None:
    """The negative control: it listens again, and what was said in between is lost on it."""
    rank = stage.begin("a", guards="no-beat,no-re-read")
    with paused(rank):
        flood(stage)
        assert stage.shutdown("--no-wait").code == 0
    until(lambda: stage.heard_by() == 1, "it to listen again")
    assert stage.shutdown("--timeout", "3s", guards="no-asking-again").code == STILL_RUNNING
    assert rank.asked_s is None
    rank.run.signal(15)
    assert rank.end().code == STOPPED
