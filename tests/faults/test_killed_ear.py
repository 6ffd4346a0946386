"""The server closes the ear of every agent and takes a request, at one instant: nobody hears the broadcast.

What was said then is found in the record, which is read again after each new subscription. Without that, the next
heartbeat brings it, or who follows asks again; and without either, nobody ever learns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coord.errors import STILL_RUNNING
from coord.keys import CONTROL_CHANNEL
from tests.faults.deaf import SLOW_BEAT_S
from tests.faults.kinds import kinds
from tests.harness import until

if TYPE_CHECKING:
    from tests.faults.stage import Stage

STOPPED = 143
HOWS = ("type", "id")  # of CLIENT KILL
DEAF_S = "4s"  # longer than who follows takes to ask again
SILENT = "no-asking-again"


def request_unheard(stage: Stage, how: str) -> None:
    """Kill all ears and make the request in one transaction; a message after it reaches nobody either."""
    until(lambda: stage.heard_by() == len(stage.ranks), "all to listen")
    client = stage.redis
    ears = [each["id"] for each in client.client_list(_type="pubsub")]
    with client.pipeline(transaction=True) as pipe:
        if how == "type":
            pipe.client_kill_filter(_type="pubsub")
        else:
            for ear in ears:
                pipe.client_kill_filter(_id=ear)
        stage.put_request(pipe)
        pipe.publish(CONTROL_CHANNEL, "reaches nobody")
        *killed, _, receivers = pipe.execute()
    assert (sum(killed), receivers) == (len(stage.ranks), 0)


@pytest.mark.parametrize(("how", "kind"), [(how, kind) for turn, how in enumerate(HOWS) for kind in kinds(turn)])
def test_what_was_said_while_nobody_listened_is_read_again(stage: Stage, how: str) -> None:
    """With heartbeats off, the new subscription alone brings it; the caller is told the whole."""
    ranks = [stage.begin(host, guards="no-beat") for host in "ab"]
    request_unheard(stage, how)
    ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    assert any("already requested by ann@desk: bad day" in line for line in ended.said)
    stage.tell("first_signal_ms", [agent["first_signal_ms"] for agent in ended.json["agents"]])
    for rank in ranks:
        end = rank.end()
        assert end.code == STOPPED
        assert "redis.lost" in end.err
        assert "redis.back" in end.err


def test_not_read_again_it_is_obeyed_when_who_follows_asks_again(stage: Stage) -> None:
    """Neither read again nor heard of by heartbeats: who listens again is told by who waits for an answer."""
    rank = stage.begin("a", guards="no-re-read,no-beat")
    request_unheard(stage, "id")
    until(lambda: stage.heard_by() == 1, "it to listen again")
    ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    stage.tell("first_signal_ms", ended.json["agents"][0]["first_signal_ms"])
    assert rank.end().code == STOPPED


def test_not_read_again_it_is_obeyed_with_the_next_heartbeat(stage: Stage) -> None:
    """The negative control: not before the heartbeat that follows, by the server's own clock."""
    rank = stage.begin("a", guards="no-re-read,slow-beat")
    joined_us = stage.beaten_us("a")
    until(lambda: stage.beaten_us("a") > joined_us, "a heartbeat")
    request_unheard(stage, "type")
    beaten_us = stage.beaten_us("a")
    ended = stage.shutdown(guards=SILENT)
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    requested_us = stage.requested_us
    first_signal_ms = ended.json["agents"][0]["first_signal_ms"]
    stage.tell("first_signal_ms", first_signal_ms)
    assert first_signal_ms >= SLOW_BEAT_S * 1000 - (requested_us - beaten_us) / 1000
    assert rank.end().code == STOPPED


def test_not_read_again_and_without_heartbeats_nobody_learns(stage: Stage) -> None:
    """The negative control: the request stands in the record, its caller waits, and the child runs on."""
    rank = stage.begin("a", guards="no-re-read,no-beat")
    request_unheard(stage, "id")
    until(lambda: stage.heard_by() == 1, "it to listen again")
    ended = stage.shutdown("--timeout", DEAF_S, guards=SILENT)
    assert (ended.code, ended.json["verdict"], ended.json["state"]) == (STILL_RUNNING, None, "stopping")
    assert any("--timeout has passed" in line for line in ended.said)
    assert rank.asked_s is None
    assert rank.run.running
    rank.run.signal(15)
    assert rank.end().code == STOPPED
