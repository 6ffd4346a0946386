"""The control channel on a bad day: junk on it, and a connection that is cut. The agent goes on and misses nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import redis

from coord.keys import CONTROL_CHANNEL
from coord.messages import MESSAGE_MAX_BYTES
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Lab, Started

JUNK = {
    "no JSON": b"\xff\x00 not a message",
    "truncated": b'{"v":1,"kind":"request","request":{"id":"x"',
    "no object": b"[1,2,3]",
    "wrong version": b'{"v":99,"kind":"request"}',
    "wrong kind": b'{"v":1,"kind":"start","command":"rm -rf /"}',
    "no plan": b'{"v":1,"kind":"request","request":{},"requested_us":1,"rev":1,"elapsed_us":1}',
    "deep": b"[" * 60_000,
    "oversized": b'{"v":1,"pad":"' + b"x" * MESSAGE_MAX_BYTES + b'"}',
}


@pytest.fixture
def raw(server: str) -> Iterator[redis.Redis]:
    """A plain connection, as anybody on the network might have one."""
    with redis.Redis.from_url(server) as raw:
        yield raw


def logged(run: Started, lab: Lab, job: str) -> list[dict[str, Any]]:
    """Stop the job and give what its agent logged."""
    assert lab.call("shutdown", "--job-id", job).code == 0
    ended = run.end()
    assert ended.code == 143
    return [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]


def publish(raw: redis.Redis, message: bytes) -> None:
    """Publish to an agent that is known to listen."""
    until(lambda: raw.publish(CONTROL_CHANNEL, message), "a listener")


def test_junk_is_logged_once_each_and_ignored(lab: Lab, job: str, raw: redis.Redis) -> None:
    """Junk, truncated, oversized, wrong-version: logged once each, ignored, and the agent goes on."""
    run = lab.run(job, "sleep", "600")
    for message in [*JUNK.values(), *JUNK.values()]:
        publish(raw, message)
    assert run.running
    ignored = [line["why"] for line in logged(run, lab, job) if line["event"] == "control.ignored"]
    assert len(ignored) == len(JUNK)
    assert any("version 99" in why for why in ignored)
    assert any("more than 65536" in why for why in ignored)


def test_another_jobs_request_is_not_obeyed(lab: Lab, job: str) -> None:
    """Right target: every agent hears every request, and obeys those of its own job alone."""
    run = lab.run(job, "sleep", "600", host="a")
    other = lab.run(f"{job}-other", "sleep", "600", host="a")
    assert lab.call("shutdown", "--job-id", f"{job}-other").code == 0
    assert other.end().code == 143
    assert lab.status(job)["state"] == "running"
    assert lab.call("shutdown", "--job-id", job).code == 0
    assert run.end().code == 143


def test_a_request_made_while_the_connection_was_cut_is_obeyed(lab: Lab, job: str, raw: redis.Redis) -> None:
    """Nothing missed: the connection is cut, and a broadcast in the same transaction reaches nobody."""
    run = lab.run(job, "sleep", "600")
    until(lambda: raw.pubsub_numsub(CONTROL_CHANNEL)[0][1] == 1, "one listener")
    with raw.pipeline(transaction=True) as cut:
        cut.client_kill_filter(_type="pubsub")
        cut.publish(CONTROL_CHANNEL, b"reaches nobody")
        killed, receivers = cut.execute()
    assert (killed, receivers) == (1, 0)
    lines = logged(run, lab, job)
    assert "redis.lost" in [line["event"] for line in lines]


def test_an_agent_whose_record_was_lost_joins_again(lab: Lab, job: str, raw: redis.Redis) -> None:
    """A server that came back empty: the next heartbeat tells the agent, and the job can be stopped as before."""
    run = lab.run(job, "sleep", "600")
    for key in raw.scan_iter("coord:{" + job + "}:*"):
        raw.delete(key)
    assert lab.status(job) is None
    until(lambda: lab.status(job), "the agent to join again")
    assert "record.lost" in [line["event"] for line in logged(run, lab, job)]


def test_a_request_found_only_in_the_record_is_obeyed(lab: Lab, job: str, raw: redis.Redis) -> None:
    """Nothing missed: with the broadcast switched off altogether, the heartbeat's answer brings the request."""
    run = lab.run(job, "sleep", "600")
    raw.acl_setuser("default", enabled=True, nopass=True, commands=["-publish"])
    try:
        assert lab.call("shutdown", "--job-id", job).code == 0
    finally:
        raw.acl_setuser("default", enabled=True, nopass=True, commands=["+publish"])
    assert run.end().code == 143
