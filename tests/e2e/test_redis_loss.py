"""`--on-redis-loss stop`: who is cut off from Redis for too long stops by itself, and when is said apart from proof."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coord.record import LEASE_S
from tests.harness import until
from tests.strait import Strait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Lab

AFTER_S = 5.0
PLAN = ("--grace", "1s", "--kill-wait", "1s")
STOP = ("--on-redis-loss", "stop", "--redis-loss-after", f"{AFTER_S:g}s")
ENDS_S = AFTER_S + LEASE_S + 20  # on a loaded machine
PROGRAM = f"""
import sys
from workers import JobScope, JobStopped

try:
    with JobScope(sys.argv[1], grace_s=1, on_redis_loss="stop", redis_loss_after_s={AFTER_S}) as scope:
        scope.popen(["sleep", "600"])
        print("begun", flush=True)
        scope.join()
except JobStopped as error:
    print(error.request.cause, error.message, flush=True)
"""


@pytest.fixture
def strait(server: str, tmp_path: Path) -> Iterator[Strait]:
    """A way to the server that can be cut."""
    strait = Strait(server, tmp_path)
    yield strait
    strait.close()


def agents(lab: Lab, job: str) -> dict[str, dict[str, Any]]:
    return {agent["host"]: agent for agent in lab.status(job)["agents"]}


def test_who_is_cut_off_stops_by_itself(lab: Lab, job: str, strait: Strait) -> None:
    """Cut off, `stop` ends its command without being asked, by the time that is named; `keep` goes on, and is asked."""
    ways = ("--redis-url", strait.url, *PLAN)
    stops = lab.run(job, "sleep", "600", host="stops", options=(*ways, *STOP))
    keeps = lab.run(job, "sleep", "600", host="keeps", options=ways)
    sees = lab.run(job, "sleep", "600", host="sees", options=PLAN)
    with pytest.raises(AssertionError):  # while Redis answers, nothing happens
        until(lambda: not stops.running, "it to end", AFTER_S + 1)
    (process,) = agents(lab, job)["stops"]["processes"]
    strait.cut()
    until(lambda: not Path(f"/proc/{process['pid']}").exists(), "its command to be gone", ENDS_S)
    gone_at = datetime.now(UTC)
    ended = stops.end(ENDS_S)
    assert ended.code == 143
    assert any(f"host stops was cut off from Redis for {AFTER_S:g}s" in line for line in ended.said)
    assert sees.end(ENDS_S).code == 143
    assert keeps.running
    shutdown = lab.call("shutdown", "--job-id", job, "--json")
    assert (shutdown.code, shutdown.json["verdict"]) == (5, "incomplete")
    found = agents(lab, job)
    assert {host: agent["state"] for host, agent in found.items()} == {
        "keeps": "lost",
        "sees": "stopped",
        "stops": "lost",
    }
    assert [found[host]["presumed_stopped_at"] for host in ("keeps", "sees")] == [None, None]
    assert gone_at < datetime.fromisoformat(found["stops"]["presumed_stopped_at"])
    assert "presumed stopped by" in lab.call("status", "--job-id", job).out
    strait.open()
    assert keeps.end().code == 143


def test_a_program_that_is_cut_off_stops_by_itself(lab: Lab, job: str, strait: Strait) -> None:
    """A JobScope too: its block is left with JobStopped, which says why."""
    program = lab.start("-c", PROGRAM, job, program=sys.executable, COORD_REDIS_URL=strait.url)
    assert program.popen.stdout
    assert program.popen.stdout.readline() == b"begun\n"
    strait.cut()
    ended = program.end(ENDS_S + 30)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("host-lost ")
    assert "was cut off from Redis" in ended.out


def test_workers_that_are_cut_off_leave(lab: Lab, job: str, strait: Strait, server: str) -> None:
    """`coord worker` too: it takes no more RQ jobs and ends, as when its host is to stop."""
    worker = lab.start("worker", job, "--url", server, "--redis-url", strait.url, *PLAN, *STOP, "--log-level", "info")
    until(lambda: job in lab.call("agents").out, "the worker to join")
    strait.cut()
    ended = worker.end(ENDS_S + 30)
    assert '"event": "agent.alone"' in ended.err


@pytest.mark.parametrize("after", ["1s", "8d"])
def test_too_soon_is_no_loss(lab: Lab, job: str, after: str) -> None:
    """A server may be restarted: less than an answer may take, and more than ever, are refused as usage."""
    ended = lab.call("run", "--job-id", job, "--on-redis-loss", "stop", "--redis-loss-after", after, "--", "true")
    assert ended.code == 2
