"""A follower and a host that does not answer: asked again, named, given up; the follower may die meanwhile."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
import redis

from coord.keys import CONTROL_CHANNEL
from coord.record import BEAT_S, LEASE_S
from tests.e2e.test_lost_host import freeze, thaw
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.client import PubSub

    from tests.harness import Lab

SHORT = ("--grace", "1s", "--kill-wait", "1s")


@pytest.fixture
def ear(server: str) -> Iterator[PubSub]:
    """Hears all that is said on the control channel."""
    with redis.Redis.from_url(server) as client:
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        pubsub.subscribe(CONTROL_CHANNEL)
        pubsub.get_message(timeout=5)
        yield pubsub
        pubsub.close()


def requests(ear: PubSub, job: str) -> list[float]:
    """Give how old the job's request was, in seconds, each time it was broadcast since this was asked last."""
    heard = []
    while message := ear.get_message(timeout=0.01):
        said = json.loads(message["data"])
        if said["request"]["job_id"] == job:
            heard.append(said["elapsed_us"] / 1e6)
    return heard


def test_a_follower_asks_again_and_names_who_is_silent(lab: Lab, job: str, ear: PubSub) -> None:
    """Asked each beat until it has answered or is lost, and named. A killed follower is started again elsewhere."""
    answers, silent = lab.run(job, "sleep", "600", host="a"), lab.run(job, "sleep", "600", host="b")
    freeze(silent)
    first = lab.start("shutdown", "--job-id", job, *SHORT, host="desk")
    assert first.popen.stderr
    said = first.popen.stderr
    until(lambda: b"no answer yet from agent b-" in said.readline(), "the silent host to be named")
    first.signal(signal.SIGKILL)
    first.end()
    assert answers.end().code == 143
    begun = requests(ear, job)
    assert begun[0] == 0
    assert begun[1:]
    ended = lab.call("shutdown", "--job-id", job, host="elsewhere")
    assert (ended.code, sum("no answer yet" in line for line in ended.said)) == (5, 1)
    assert any("lost: nobody has heard from agent b-" in line for line in ended.said)
    assert "on host b, last heard 1" in ended.out
    assert len(requests(ear, job)) >= (LEASE_S - 3 * BEAT_S) / BEAT_S - 1
    agent = lab.status(job)["agents"][1]
    assert (agent["host"], agent["state"]) == ("b", "lost")
    assert agent["last_heard_s"] >= LEASE_S - BEAT_S
    thaw(silent)
    assert silent.end().code == 143


def test_nobody_is_asked_twice_who_has_answered(lab: Lab, job: str, ear: PubSub) -> None:
    """A host that obeys, and takes its time, hears the request once: who answered is only waited for."""
    slow = lab.run(job, "sh", "-c", "trap 'sleep 5; exit 0' TERM; echo; while :; do sleep 0.1; done", host="a")
    assert slow.popen.stdout
    assert slow.popen.stdout.readline()
    ended = lab.call("shutdown", "--job-id", job, "--grace", "20s")
    assert (ended.code, [line for line in ended.said if "no answer" in line]) == (0, [])
    assert len(requests(ear, job)) == 1
    slow.end()
