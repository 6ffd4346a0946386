"""RQ's own commands to a hosted worker: the agent is asked, and nothing that arrives makes the worker deaf."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from rq.command import (
    send_kill_horse_command,
    send_shutdown_command,
    send_stop_execution_command,
    send_stop_job_command,
)

from tests.harness import until
from tests.rq.agent_end import hosted

if TYPE_CHECKING:
    from pathlib import Path


def test_rqs_commands_are_put_to_the_agent(server: str, tmp_path: Path) -> None:
    """Each of the four; the horse goes on until the agent stops it, and the job ends as the agent says."""
    with hosted(server, tmp_path) as site:
        path = site.note()
        job = site.queue.enqueue("errands.wait", str(path))
        forked = site.agent.begun(path)
        name, execution = site.agent.name, forked["execution"]
        send_stop_job_command(site.redis, job.id)
        assert site.agent.hear("asked") == {"kind": "asked", "what": "stop", "execution": execution}
        send_stop_execution_command(site.redis, job.id, execution)
        assert site.agent.hear("asked") == {"kind": "asked", "what": "stop", "execution": execution}
        send_kill_horse_command(site.redis, name)
        assert site.agent.hear("asked") == {"kind": "asked", "what": "kill", "execution": execution}
        send_shutdown_command(site.redis, name)
        assert site.agent.hear("asked") == {"kind": "asked", "what": "shutdown", "execution": None}
        assert "finally" not in path.read_text()
        site.agent.tell("drain")
        site.agent.stop(execution, "stopped")
        site.agent.signal(forked["pid"])
        site.agent.hear("ended")
        site.agent.settle(execution)
        assert site.agent.hear("written")["status"] == "stopped"
        assert site.agent.hear("bye")["why"] == "shutdown"


GARBAGE = [
    b"not json",
    b"\xff\xfe",
    b"[]",
    b"null",
    b"{}",
    b'{"command": 7}',
    b'{"command": "stop-job"}',
    b'{"command": "stop-job", "job_id": {}}',
    b'{"command": "stop-execution", "execution_id": []}',
    b'{"command": "fly"}',
    json.dumps({"command": "stop-job", "job_id": "x" * 100_000}).encode(),
]


@pytest.mark.parametrize("guarded", [True, False])
def test_nothing_that_is_published_makes_a_worker_deaf(server: str, tmp_path: Path, *, guarded: bool) -> None:
    """Garbage, one after the other; then a command is heard. As RQ handles it, it is not."""
    worker_class = None if guarded else "unguarded_workers.Deaf"
    with hosted(server, tmp_path, options={"worker_class": worker_class}) as site:
        for data in GARBAGE:
            assert site.redis.publish(f"rq:pubsub:{site.agent.name}", data) == 1
        send_shutdown_command(site.redis, site.agent.name)
        if guarded:
            assert site.agent.hear("asked")["what"] == "shutdown"
        else:
            with pytest.raises(AssertionError):
                site.agent.hear("asked", wait_s=3.0)


def test_a_worker_listens_again_when_its_connection_was_closed(server: str, tmp_path: Path) -> None:
    """Somebody kills all pub/sub connections: those who listened do so again."""
    with hosted(server, tmp_path) as site:
        channel = f"rq:pubsub:{site.agent.name}"
        until(lambda: site.redis.pubsub_numsub(channel)[0][1] == 1, "the worker to listen")
        site.redis.client_kill_filter(_type="pubsub")
        until(lambda: site.redis.pubsub_numsub(channel)[0][1] == 1, "the worker to listen again")
        send_shutdown_command(site.redis, site.agent.name)
        assert site.agent.hear("asked")["what"] == "shutdown"


def test_a_thread_that_died_is_replaced(server: str, tmp_path: Path) -> None:
    """Whatever ended the thread that listens, another one does."""
    with hosted(server, tmp_path, options={"worker_class": "unguarded_workers.Fragile"}) as site:
        channel = f"rq:pubsub:{site.agent.name}"
        until(lambda: site.redis.pubsub_numsub(channel)[0][1] == 1, "the worker to listen")
        site.redis.publish(channel, b"die")
        until(lambda: "listens again" in site.agent.log(), "the thread to be replaced")
        send_shutdown_command(site.redis, site.agent.name)
        assert site.agent.hear("asked")["what"] == "shutdown"
