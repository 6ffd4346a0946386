"""A batch of RQ jobs over three hosts: one fails, and all of it is stopped, everywhere; the workers go on."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.harness import kill, until
from tests.rq.fleet import gone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rq.job import Job

    from tests.rq.fleet import Fleet

HOSTS, WORKERS, COUNT = "abc", 4, 300
RUNNING = len(HOSTS) * WORKERS
AFTER = 60  # tiny jobs, before and after
SLOWER_MAX = 3.0


def start(fleet: Fleet, kind: str) -> None:
    """Start the hosts."""
    for host in HOSTS:
        fleet.start(kind, "batch", host=host, n=WORKERS)
    fleet.ready()


def begin(fleet: Fleet, give: Callable[..., Job], signal: Path) -> dict[str, int]:
    """Have the batch at work, each job with a daemon; one fails when `signal` is there. Gives job -> its daemon."""
    fleet.jobs.clear()
    for number in range(COUNT):
        give("fails_when", str(signal)) if number == 5 else give("with_daemon", "setsid")
    until(lambda: len(fleet.diary.entries("daemon")) == RUNNING, "a job with its daemon on each worker")
    return {each["job"]: each["daemon"] for each in fleet.diary.entries("daemon")}


def tiny_s(fleet: Fleet) -> float:
    """Give how long the fleet takes for a batch of tiny jobs."""
    began_s = time.monotonic()
    jobs = {job.id for job in fleet.enqueue_many(AFTER, queue="batch")}
    until(lambda: jobs <= fleet.state(jobs).at("finished"), "tiny jobs to finish")
    return time.monotonic() - began_s


def test_stock_runs_on(fleet: Fleet, tmp_path: Path) -> None:
    """The negative control: after the failure `rq worker` runs on with the batch, beside what the failed job left."""
    signal = tmp_path / "fail"
    start(fleet, "rq")
    daemons = begin(fleet, partial(fleet.enqueue, queue="batch"), signal)
    signal.touch()
    until(lambda: len(fleet.diary.entries("daemon")) > RUNNING, "another job of the batch to begin")
    state = fleet.state()
    assert Counter(state.status.values())["failed"] == 1
    assert not any(gone(daemon) for daemon in daemons.values())
    for host in fleet.hosts:
        for popen in host.popens:
            popen.kill()
    for pid in fleet.left():
        kill(pid, fleet.lab.token)
    until(lambda: not fleet.left(), "nothing to be left")


@pytest.mark.timeout(300)
def test_one_failure_stops_the_batch_on_all_hosts(fleet: Fleet, job: str, tmp_path: Path) -> None:
    """0 processes left, 0 jobs queued or started, counts and the first failure told; then the workers work on."""
    signal = tmp_path / "fail"
    start(fleet, "coord")
    before_s = tiny_s(fleet)
    daemons = begin(fleet, partial(fleet.give, job, queue="batch"), signal)
    signal.touch()
    document = until(lambda: (found := fleet.lab.status(job)) and found["verdict"] and found, "the verdict")
    assert document["verdict"] in {"clean", "forced"}
    assert all(gone(daemon) for daemon in daemons.values())
    state = fleet.state()
    assert state.counts() == {"failed": 1, "stopped": RUNNING - 1, "canceled": COUNT - RUNNING}
    assert fleet.faults() == {}
    rq = document["rq"]
    assert (rq["canceled"], rq["stopped"], rq["requeued"]) == (COUNT - RUNNING, RUNNING - 1, 0)
    first = document["first_failure"]
    assert first["host"] in HOSTS
    assert any("the batch does not add up" in line for line in first["stderr_tail"])
    assert sorted(agent["host"] for agent in document["agents"]) == list(HOSTS)
    assert len(fleet.diary.entries("daemon")) == RUNNING
    assert tiny_s(fleet) < SLOWER_MAX * before_s
    for host in fleet.hosts:
        host.signal()
    assert [host.end() for host in fleet.hosts] == [[0]] * len(HOSTS)
