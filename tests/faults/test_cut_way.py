"""The way of one host to the server is bad while its job is shut down, by a proxy between them; all others are well.

What is to be obeyed is obeyed once the way is back; with only the ear dead, by the next heartbeat. The caller is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coord.errors import INCOMPLETE, STILL_RUNNING
from coord.record import BEAT_S, LEASE_S
from tests.faults.stage import now_s, told, wait_until
from tests.harness import until
from tests.strait import BOTH, DOWN, UP, Strait, anybody, ears

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.stage import Rank, Stage

STOPPED = 143
SHORT_S = 4.0  # a cut that no lease ends in, however late the last heartbeat was and the caller begins
AWAY_S = 30.0

EAR_CUTS = {
    "stalled": lambda strait: strait.freeze(ears, BOTH),
    "stalled to the agent": lambda strait: strait.freeze(ears, (DOWN,)),
    "half-open": lambda strait: strait.forget(ears),
}
CUTS: dict[str, Callable[[Strait], None]] = {
    "refused": Strait.cut,
    "stalled": Strait.freeze,
    "stalled to the agent": lambda strait: strait.freeze(anybody, (DOWN,)),
}


def behind(stage: Stage, guards: str = "") -> tuple[Strait, Rank]:
    """Have host b behind a way of its own, listening."""
    strait = stage.strait()
    rank = stage.begin("b", url=strait.url, guards=guards)
    until(lambda: strait.listening == 1, "it to listen")
    return strait, rank


@pytest.mark.parametrize("how", EAR_CUTS)
def test_a_dead_ear_costs_one_heartbeat(stage: Stage, how: str) -> None:
    """The ear hears nothing, and does not know it: the heartbeat brings the request. The caller notices no more."""
    strait, rank = behind(stage)
    EAR_CUTS[how](strait)
    ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    stage.tell("first_signal_ms", ended.json["agents"][0]["first_signal_ms"])
    end = rank.end()
    assert end.code == STOPPED
    assert "redis.lost" not in end.err, "nobody noticed that it was dead"


@pytest.mark.parametrize("how", EAR_CUTS)
def test_a_dead_ear_without_heartbeats_hears_nothing(stage: Stage, how: str) -> None:
    """The negative control: the child runs on while the caller waits."""
    strait, rank = behind(stage, guards="no-beat")
    EAR_CUTS[how](strait)
    assert stage.shutdown("--timeout", "3s").code == STILL_RUNNING
    assert rank.asked_s is None
    rank.run.signal(15)
    assert rank.end().code == STOPPED


def test_a_dropped_connection_is_made_again(stage: Stage) -> None:
    """Closed without a reason, a moment before the request: it is obeyed, and the caller is told the whole."""
    strait, rank = behind(stage)
    strait.drop()
    ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    stage.tell("first_signal_ms", ended.json["agents"][0]["first_signal_ms"])
    assert rank.end().code == STOPPED


@pytest.mark.parametrize("how", CUTS)
def test_a_short_cut_is_waited_for(stage: Stage, how: str) -> None:
    """Nothing of a request gets through for some seconds; nobody is called lost, and the end is told as it is."""
    other = stage.begin("a")
    strait, rank = behind(stage)
    cut_s = now_s()
    CUTS[how](strait)
    follower = stage.follow()
    other.obeyed(cut_s)
    wait_until(cut_s + SHORT_S)
    assert rank.asked_s is None
    assert follower.running
    back_s = now_s()
    strait.open()
    stage.tell("obeyed_s", rank.obeyed(back_s))
    ended = told(follower)
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    assert [rank.end().code for rank in stage.ranks] == [STOPPED, STOPPED]


def test_who_hears_and_cannot_speak_obeys_at_once(stage: Stage) -> None:
    """Nothing gets through to the server: the broadcast is obeyed; the caller waits for proof until it is there."""
    strait, rank = behind(stage)
    strait.freeze(anybody, (UP,))
    began_s = now_s()
    follower = stage.follow()
    stage.tell("obeyed_s", rank.obeyed(began_s))
    wait_until(began_s + SHORT_S)
    assert follower.running, "asked is not seen gone"
    strait.open()
    ended = told(follower)
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    assert rank.end().code == STOPPED


def test_a_half_open_way_is_left_for_a_new_one(stage: Stage) -> None:
    """The server's side went without a word, of every connection: the next answer is waited for in vain, once."""
    strait, rank = behind(stage)
    strait.forget()
    began_s = now_s()
    ended = stage.shutdown()
    stage.tell("obeyed_s", rank.obeyed(began_s))
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    assert rank.end().code == STOPPED


def test_a_host_that_is_refused_for_long_is_lost_and_obeys_when_it_is_back(stage: Stage) -> None:
    """Beyond its lease it is lost, by name, and the caller is told 5; back, it obeys, and the verdict is made anew."""
    other = stage.begin("a")
    strait, rank = behind(stage)
    began_s = now_s()
    strait.cut()
    ended = stage.shutdown()
    stage.tell("told_s", now_s() - began_s)
    assert (ended.code, ended.json["verdict"], ended.json["state"]) == (INCOMPLETE, "incomplete", "stopping")
    assert [agent["state"] for agent in ended.json["agents"]] == ["stopped", "lost"]
    assert any("b: lost: nobody has heard from agent b-" in line for line in ended.said)
    assert now_s() - began_s >= LEASE_S - BEAT_S
    wait_until(began_s + AWAY_S)
    assert rank.asked_s is None
    assert rank.run.running
    back_s = now_s()
    strait.open()
    stage.tell("obeyed_s", rank.obeyed(back_s))
    assert [rank.end().code for rank in (other, rank)] == [STOPPED, STOPPED]
    again = stage.shutdown()
    assert (again.code, again.json["verdict"], again.json["state"]) == (0, "clean", "stopped")
