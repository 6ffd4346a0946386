"""A server that forgets a job in the middle of its shutdown, with real agents, with a follower and without one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from tests.harness import COORD, NASTY, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Lab, Started

UNGUARDED = str(Path(__file__).with_name("unguarded.py"))
GRACE = ("--grace", "6s")  # more than a beat, so that every agent is still at it when the server forgets


@pytest.fixture
def raw(server: str) -> Iterator[redis.Redis]:
    """A connection that knows nothing of coord."""
    with redis.Redis.from_url(server) as raw:
        yield raw


def forgets(lab: Lab, raw: redis.Redis, job: str, *shutdown: str, program: str = COORD) -> tuple[Started, str]:
    """Scenario: of three hosts one has answered, two hold out; the server forgets. Gives the follower, the request."""
    lab.run(job, "sleep", "600", host="a")
    for host in "bc":
        run = lab.run(job, sys.executable, NASTY, "deaf", "", host=host)
        assert run.popen.stdout
        assert run.popen.stdout.readline() == b"ready\n"
    started = lab.start(*shutdown, "--job-id", job, *GRACE, "--json", program=program)
    until(lambda: states(lab, job) == {"a": "stopped", "b": "stopping", "c": "stopping"}, "two to hold out")
    if "--no-wait" not in shutdown:
        until(lambda: "xread" in [each["cmd"] for each in raw.client_list()], "the follower to wait")
    request: str = lab.status(job)["request"]["id"]
    raw.delete(*raw.keys("coord:{" + job + "}:*"))
    return started, request


def states(lab: Lab, job: str) -> dict[str, str]:
    return {agent["host"]: agent["state"] for agent in (lab.status(job) or {"agents": ()})["agents"]}


def ends(lab: Lab, job: str) -> None:
    for run in lab.started:
        if job in run.popen.args:  # type: ignore[operator]
            run.end()


def test_a_follower_writes_the_record_again(lab: Lab, raw: redis.Redis, job: str) -> None:
    """What a server forgot in the middle of a shutdown is written again: the verdict is what it would have been."""
    started, request = forgets(lab, raw, job, "shutdown")
    ended = started.end()
    document = ended.json
    assert (ended.code, document["verdict"], document["record_lost"]) == (0, "forced", False)
    assert (document["request"]["id"], [agent["host"] for agent in document["agents"]]) == (request, ["a", "b", "c"])
    assert all(agent["state"] == "stopped" and agent["proof"] for agent in document["agents"])
    ends(lab, job)
    assert lab.call("run", "--job-id", job, "--", "true").code == 7


def test_control_without_memory_the_job_is_unknown(lab: Lab, raw: redis.Redis, job: str) -> None:
    """Negative control: a follower that remembers nothing is told of no such job, or not of all its hosts."""
    started, _ = forgets(lab, raw, job, UNGUARDED, "forgetful", "shutdown", program=sys.executable)
    ended = started.end()
    assert ended.code != 0
    ends(lab, job)


def test_agents_write_the_request_again(lab: Lab, raw: redis.Redis, job: str) -> None:
    """Without a follower the agents that heard it write it again: the fence holds, and what they don't know is said."""
    started, request = forgets(lab, raw, job, "shutdown", "--no-wait")
    assert started.end().code == 0
    until(lambda: (lab.status(job) or {"request": None})["request"], "the agents to write it again")
    until(lambda: set(states(lab, job)) == {"b", "c"}, "both to be there again")
    assert lab.status(job)["request"]["id"] == request
    assert lab.call("run", "--job-id", job, "--", "true").code == 7
    ends(lab, job)
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert (ended.code, ended.json["verdict"], ended.json["record_lost"]) == (5, "incomplete", True)
    assert states(lab, job) == {"b": "stopped", "c": "stopped"}
