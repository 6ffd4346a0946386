"""Plain `rq worker` hosts in the same fleet: what coord can do there it does, and what it can't prove it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness import until
from tests.rq.fleet import gone, kill_pid

if TYPE_CHECKING:
    from tests.rq.fleet import Fleet

INCOMPLETE = 5


def test_what_runs_on_plain_workers_is_unproved(fleet: Fleet, job: str) -> None:
    """Canceled and stopped there too, once and without harm to the worker; but the daemon is left, and it is said."""
    ours, plain = fleet.up("coord", host="ours"), fleet.up("rq", host="plain")
    jobs = [fleet.give(job, "with_daemon", "setsid") for _ in range(5)]
    until(lambda: len(fleet.diary.entries("daemon")) == 2, "a job on each host")
    fleet.settled("both to be started", lambda state: state.counts() == {"started": 2, "queued": 3})
    (theirs,) = fleet.worker_names("plain")
    horse = fleet.fetch(next(iter(_running_on(fleet, theirs))))
    ended = fleet.shutdown(job)
    assert ended.code == INCOMPLETE
    document = ended.json
    assert document["verdict"] == "incomplete"
    assert [each["worker"] for each in document["rq"]["unproved"]] == [theirs]
    assert fleet.state().counts() == {"stopped": 2, "canceled": 3}
    assert fleet.faults() == {}
    assert len(jobs) == 5
    daemons = {each["job"]: each["daemon"] for each in fleet.diary.entries("daemon")}
    left = daemons.pop(horse.id)
    assert [gone(daemon) for daemon in daemons.values()] == [True]
    assert not gone(left)
    kill_pid(left)
    assert plain.running
    assert (ours.stop(), plain.stop()) == ([0], [0])


def test_plain_workers_alone_can_be_told_too(fleet: Fleet, job: str) -> None:
    """No host of coord is there: `coord shutdown` cancels and stops by RQ's means itself."""
    plain = fleet.up("rq", host="plain")
    for _ in range(3):
        fleet.give(job, "polite")
    until(lambda: fleet.diary.entries("began"), "a job")
    fleet.settled("it to be started", lambda state: state.counts() == {"started": 1, "queued": 2})
    ended = fleet.shutdown(job)
    assert ended.code == INCOMPLETE
    assert fleet.state().counts() == {"stopped": 1, "canceled": 2}
    assert plain.stop() == [0]


def test_both_share_a_queue(fleet: Fleet) -> None:
    """Jobs are worked off by both, each once; none is taken out of the other's hands."""
    hosts = [fleet.up("coord", host="ours", n=2), fleet.start("rq", host="plain", n=2)]
    fleet.ready()
    jobs = [job.id for job in fleet.enqueue_many(100)]
    fleet.settled("all to be finished", lambda state: state.counts() == {"finished": 100})
    assert set(fleet.diary.times("ran", jobs).values()) == {1}
    for host in hosts:
        assert set(host.stop()) == {0}
    assert fleet.faults() == {}


def _running_on(fleet: Fleet, worker: str) -> set[str]:
    found = fleet.connection.smembers(f"rq:worker:{worker}:executions")
    return {str(each).partition(":")[0] for each in found}
