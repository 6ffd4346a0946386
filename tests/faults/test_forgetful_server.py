"""The server is killed with -9 and comes back with nothing: it never wrote anything down.

Who knew what was recorded writes it again: agents that they are there and what they heard, a follower what it saw.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from coord.errors import INCOMPLETE, NO_SUCH_JOB
from tests.faults.kinds import on_kind
from tests.faults.stage import now_s, told
from tests.harness import until

if TYPE_CHECKING:
    from tests.faults.stage import Stage

STOPPED = 143
FAILED = 7
AWAY_S = 4.0
LINGERS_S = 2.0


def forgotten(stage: Stage) -> float:
    """Kill it, and have it back empty after a while; gives when it was back."""
    stage.outage.kill()
    time.sleep(AWAY_S)  # an outage is a length of time
    stage.outage.start()
    return now_s()


def both_are_there(stage: Stage) -> bool:
    """Tell whether the record has both hosts, with what they run."""
    return all(stage.agent(host).get("processes") for host in "ab")


@on_kind(1)
def test_before_a_shutdown_agents_join_again(stage: Stage) -> None:
    """The record is as it was within a heartbeat or so, and a shutdown is what it ever is."""
    ranks = [stage.begin(host) for host in "ab"]
    back_s = forgotten(stage)
    until(lambda: both_are_there(stage), "both to be there again")
    stage.tell("joined_s", now_s() - back_s)
    ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    assert [agent["host"] for agent in ended.json["agents"]] == ["a", "b"]
    for rank in ranks:
        end = rank.end()
        assert end.code == STOPPED
        assert "record.lost" in end.err


@on_kind()
def test_a_request_that_the_server_lost_is_written_again(stage: Stage) -> None:
    """By its agents, who heard it, and by who follows: the same request, and with it proof from both hosts."""
    ranks = [stage.begin(host, lingers_s=LINGERS_S) for host in "ab"]
    follower = stage.follow()
    for rank in ranks:
        rank.obeyed(now_s())
    until(stage.followed, "the caller to follow")
    request = stage.lab.status(stage.job)["request"]
    back_s = forgotten(stage)
    ended = told(follower)
    stage.tell("told_s", now_s() - back_s)
    assert ended.code == 0, ended.err
    assert ended.json["verdict"] == "clean"
    assert [agent["host"] for agent in ended.json["agents"]] == ["a", "b"]
    assert ended.json["request"]["id"] == request["id"]
    assert [rank.end().code for rank in ranks] == [STOPPED, STOPPED]


def test_a_lost_request_that_nobody_writes_again_is_lost_on_its_caller(stage: Stage) -> None:
    """The negative control: all was stopped, with proof, and the caller is told that there is no such job."""
    ranks = [stage.begin(host, lingers_s=LINGERS_S, guards="no-memory") for host in "ab"]
    follower = stage.follow(guards="no-memory")
    for rank in ranks:
        rank.obeyed(now_s())
    until(stage.followed, "the caller to follow")
    forgotten(stage)
    ended = told(follower)
    assert ended.code == NO_SUCH_JOB, ended.err
    assert all(rank.end().code == STOPPED for rank in ranks)


@on_kind(1)
def test_what_agents_alone_remember_is_not_called_the_whole(stage: Stage) -> None:
    """With nobody to follow, agents write the request again; who else there was is unknown, and said as unknown."""
    ranks = [stage.begin(host, lingers_s=LINGERS_S) for host in "ab"]
    assert stage.shutdown("--no-wait").code == 0
    for rank in ranks:
        rank.obeyed(now_s())
    request = stage.lab.status(stage.job)["request"]
    forgotten(stage)
    assert [rank.end().code for rank in ranks] == [STOPPED, STOPPED]
    ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"]) == (INCOMPLETE, "incomplete")
    assert [agent["state"] for agent in ended.json["agents"]] == ["stopped", "stopped"]
    assert ended.json["request"]["id"] == request["id"]


@on_kind()
def test_who_never_heard_a_lost_request_obeys_it_all_the_same(stage: Stage) -> None:
    """Host b was cut off when the request was made and lost: the follower knows, and b is asked and awaited."""
    first = stage.begin("a", lingers_s=LINGERS_S)
    strait = stage.strait()
    late = stage.begin("b", url=strait.url)
    strait.cut()
    follower = stage.follow()
    first.obeyed(now_s())
    until(stage.followed, "the caller to follow")
    back_s = forgotten(stage)
    assert late.asked_s is None
    strait.open()
    stage.tell("obeyed_s", late.obeyed(back_s))
    ended = told(follower)
    assert ended.code == 0, ended.err
    assert ended.json["verdict"] == "clean"
    assert [agent["host"] for agent in ended.json["agents"]] == ["a", "b"]
    assert [rank.end().code for rank in (first, late)] == [STOPPED, STOPPED]


@on_kind(1)
def test_after_a_shutdown_nobody_knows_the_job_any_more(stage: Stage) -> None:
    """All who knew it are gone: a caller is told that there is no such job, which is all that can be said."""
    rank = stage.begin("a")
    assert stage.shutdown().code == 0
    assert rank.end().code == STOPPED
    forgotten(stage)
    ended = stage.shutdown()
    assert ended.code == NO_SUCH_JOB
    assert "nobody ever joined it" in ended.said[0]


@on_kind()
def test_a_failure_that_nobody_could_be_told_stops_the_others(stage: Stage) -> None:
    """The record is lost before the failure could be told: it is told to the new one, and the others are awaited."""
    other = stage.begin("b", lingers_s=1.0)
    gate = stage.folder / "gate"
    failing = stage.lab.run(stage.job, "sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done; exit {FAILED}", host="a")
    stage.outage.kill()
    gate.touch()
    time.sleep(AWAY_S)  # an outage is a length of time
    assert failing.running
    stage.outage.start()
    stage.tell("obeyed_s", other.obeyed(now_s()))
    assert told(failing).code == FAILED
    assert other.end().code == STOPPED
    ended = stage.shutdown()
    assert ended.code == 0, ended.err
    document = ended.json
    assert (document["verdict"], document["request"]["cause"]) == ("clean", "failure")
    assert (document["first_failure"]["host"], document["first_failure"]["exit_code"]) == ("a", FAILED)
    assert [agent["host"] for agent in document["agents"]] == ["a", "b"]
    assert [agent["state"] for agent in document["agents"]] == ["stopped", "stopped"]
