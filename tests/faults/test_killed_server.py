"""The server is killed with -9 and started again; it wrote down what it was told, at once or every second.

Processes die of nothing but their own stop; what was recorded holds; and a caller that follows goes on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from coord.errors import REFUSED
from tests.faults.stage import now_s, told
from tests.harness import until
from tests.outage import DURABLE, EVERY_SECOND

if TYPE_CHECKING:
    from tests.faults.stage import Stage

STOPPED = 143
FAILED = 7
AWAY_S = 3.0
LINGERS_S = 2.0

pytestmark = pytest.mark.parametrize(
    ("kind", "config"),
    [
        pytest.param("valkey", DURABLE, id="valkey-always"),
        pytest.param("redis", EVERY_SECOND, id="redis-everysec"),
    ],
)


def killed(stage: Stage) -> float:
    """Kill it, and have it away for a while; gives when it was back."""
    stage.outage.kill()
    time.sleep(AWAY_S)  # an outage is a length of time
    stage.outage.start()
    return now_s()


def test_before_a_shutdown_it_costs_nothing(stage: Stage) -> None:
    """Agents live on and listen again: the request is heard as ever, and nobody had to join anew."""
    ranks = [stage.begin(host) for host in "ab"]
    killed(stage)
    assert all(rank.run.running and rank.asked_s is None for rank in ranks)
    until(lambda: stage.heard_by() == len(ranks), "all to listen again")
    ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    stage.tell("first_signal_ms", [agent["first_signal_ms"] for agent in ended.json["agents"]])
    for rank in ranks:
        end = rank.end()
        assert end.code == STOPPED
        assert "redis.back" in end.err
        assert "record.lost" not in end.err


def test_in_the_middle_of_a_shutdown_the_caller_waits_for_it(stage: Stage) -> None:
    """Processes leave while there is no server; the caller is told that it is away, and in the end the whole."""
    ranks = [stage.begin(host, lingers_s=LINGERS_S) for host in "ab"]
    follower = stage.follow()
    for rank in ranks:
        rank.obeyed(now_s())
    until(stage.followed, "the caller to follow")
    back_s = killed(stage)
    ended = told(follower)
    stage.tell("told_s", now_s() - back_s)
    assert ended.code == 0, ended.err
    assert ended.json["verdict"] == "clean"
    assert sum("not reachable" in line for line in ended.said) == 1, "said once"
    assert [rank.end().code for rank in ranks] == [STOPPED, STOPPED]


def test_before_the_first_look_the_caller_waits_for_it(stage: Stage) -> None:
    """The request was acknowledged, and what is left of it is followed once the server is back."""
    rank = stage.begin("a")
    follower = stage.follow(guards="late-look")
    rank.obeyed(now_s())
    stage.outage.kill()
    time.sleep(AWAY_S)  # an outage is a length of time
    assert follower.running
    stage.outage.start()
    ended = told(follower)
    assert ended.code == 0, ended.err
    assert rank.end().code == STOPPED


def test_after_a_shutdown_its_verdict_and_its_fence_hold(stage: Stage) -> None:
    """What was proved is still proved, and nothing of the job may start."""
    rank = stage.begin("a")
    before = stage.shutdown()
    assert rank.end().code == STOPPED
    killed(stage)
    again = stage.shutdown()
    assert (again.code, again.json) == (0, before.json)
    mark = stage.folder / "started"
    refused = told(stage.lab.start("run", "--job-id", stage.job, "--", "touch", str(mark)))
    assert refused.code == REFUSED
    assert not mark.exists()


def test_a_failure_while_it_is_away_stops_the_others_afterwards(stage: Stage) -> None:
    """One host's child fails with nobody to tell: it is told when the server is back, as the first failure."""
    other = stage.begin("b")
    gate = stage.folder / "gate"
    failing = stage.lab.run(stage.job, "sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done; exit {FAILED}", host="a")
    stage.outage.kill()
    gate.touch()
    time.sleep(AWAY_S)  # an outage is a length of time
    assert failing.running
    assert other.asked_s is None
    stage.outage.start()
    stage.tell("obeyed_s", other.obeyed(now_s()))
    assert told(failing).code == FAILED
    assert other.end().code == STOPPED
    document = until(lambda: (found := stage.lab.status(stage.job))["verdict"] and found, "the verdict")
    assert (document["verdict"], document["request"]["cause"]) == ("clean", "failure")
    assert (document["first_failure"]["host"], document["first_failure"]["exit_code"]) == ("a", FAILED)
