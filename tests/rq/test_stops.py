"""`coord shutdown` of what runs on RQ: every kind of job is asked, waited for and seen gone; the workers go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import until
from tests.rq.fleet import gone

if TYPE_CHECKING:
    from tests.rq.fleet import Fleet

SHORT = ("--grace", "1s", "--kill-wait", "5s")
ASKED: dict[str, tuple[Any, ...]] = {
    "polite": ("polite",),
    "own-handler": ("own_handler", 0),
    "own-handler-that-fails": ("own_handler", 3),
    "slow-cleanup": ("slow_cleanup", 0.3),
    "returns-when-asked": ("until_asked",),
    "setsid-daemon": ("with_daemon", "setsid"),
    "double-forked-daemon": ("with_daemon", "setsid", "fork"),
    "forked-pool": ("pool", "fork"),
    "spawned-pool": ("pool", "spawn"),
}
HELD_OUT: dict[str, tuple[Any, ...]] = {
    "deaf": ("deaf",),
    "stubborn": ("stubborn",),
    "slow-cleanup": ("slow_cleanup", 60.0),
    "deaf-daemon": ("with_daemon", "setsid", "deaf"),
    "deaf-double-forked-daemon": ("with_daemon", "setsid", "fork", "deaf"),
}


def stop_one(fleet: Fleet, job: str, function: tuple[Any, ...], *options: str) -> tuple[Any, str]:
    """Have one job stopped by `coord shutdown`, beside another that is left alone; give the document, and its id."""
    host = fleet.up("coord", n=2, options=("--grace", "20s"))
    other = fleet.enqueue("polite", 1.0)
    stopped = fleet.give(job, *function, on_stopped=_callback("on_stopped"), retry=_retry())
    until(lambda: fleet.diary.jobs("began") >= {other.id, stopped.id}, "both to begin")
    if "daemon" in function[0]:
        until(lambda: fleet.diary.entries("daemon"), "the daemon")
    workers = fleet.worker_pids("a")
    ended = fleet.shutdown(job, "--reason", "new data", *options)
    assert ended.code == 0, ended.err
    assert all(gone(each["pid"]) for each in fleet.diary.entries(job=stopped.id) if each["what"] != "on_stopped")
    assert all(gone(each["daemon"]) for each in fleet.diary.entries("daemon"))
    state = fleet.settled("the other to finish", lambda state: state.status[other.id] == "finished")
    assert state.status[stopped.id] == "stopped"
    assert fleet.faults() == {}
    assert "new data" in fleet.result(stopped.id)
    until(lambda: fleet.diary.entries("on_stopped"), "RQ's callback")
    assert fleet.worker_pids("a") == workers
    assert len(fleet.diary.entries("on_stopped")) == 1
    assert host.stop() == [0]
    return ended.json, stopped.id


def _callback(name: str) -> Any:
    from rq import Callback

    return Callback(f"jobs.{name}")


def _retry() -> Any:
    from rq import Retry

    return Retry(3)


@pytest.mark.parametrize("function", ASKED.values(), ids=ASKED)
def test_who_leaves_when_asked_is_stopped(fleet: Fleet, job: str, function: tuple[Any, ...]) -> None:
    """RQ's status is `stopped`, with who and why; no retry; what cleans up does; nobody had to be killed."""
    document, stopped = stop_one(fleet, job, function)
    assert document["verdict"] == "clean"
    assert document["rq"]["stopped"] == 1
    if function[0] == "slow_cleanup":
        assert fleet.diary.entries("cleaned", stopped)
    if function[0] in {"polite", "own_handler", "slow_cleanup", "with_daemon", "pool"}:
        assert fleet.diary.entries("raised", stopped)


@pytest.mark.parametrize("function", HELD_OUT.values(), ids=HELD_OUT)
def test_who_holds_out_is_killed(fleet: Fleet, job: str, function: tuple[Any, ...]) -> None:
    """At the deadline, not before and not much later; the status is `stopped` all the same."""
    document, _ = stop_one(fleet, job, function, *SHORT)
    assert document["verdict"] == "forced"


def test_what_waits_is_canceled(fleet: Fleet, job: str) -> None:
    """Queued, deferred, scheduled and rate-limited jobs of it are canceled; other jobs are left where they are."""
    from datetime import timedelta

    first = fleet.give(job, "polite")
    fleet.give(job, "tiny", depends_on=first)
    scheduled = fleet.queue("default").enqueue_in(timedelta(hours=1), "jobs.tiny", meta={"coord_job_id": job})
    fleet.jobs[scheduled.id] = "default"
    queued = [fleet.give(job, "tiny") for _ in range(5)]
    others = fleet.enqueue_many(3, queue="other")
    ended = fleet.shutdown(job)
    assert ended.code == 0, ended.err
    state = fleet.state()
    assert state.counts() == {"canceled": 3 + len(queued), "queued": len(others)}
    assert fleet.faults() == {}
    assert ended.json["rq"]["canceled"] == 3 + len(queued)


def test_what_is_enqueued_after_the_stop_never_runs(fleet: Fleet, job: str) -> None:
    """The fence holds at the dequeue: a job of a fenced X by its meta is canceled, not run; the next one runs."""
    host = fleet.up("coord")
    fleet.lab.call("shutdown", "--job-id", job, "--fence")
    late = fleet.enqueue("tiny", meta={"coord_job_id": job})
    other = fleet.enqueue("tiny")
    state = fleet.settled("the other", lambda state: state.status[other.id] == "finished")
    assert state.status[late.id] == "canceled"
    assert fleet.diary.jobs("ran") == {other.id}
    assert host.stop() == [0]
    assert fleet.faults() == {}


@pytest.mark.parametrize("what", ["group", "rq-job"])
def test_a_group_or_a_single_rq_job_is_stopped_by_its_name(fleet: Fleet, what: str) -> None:
    """X may be an RQ Group or the id of one RQ job, though coord never heard of it before."""
    from rq import Queue
    from rq.group import Group

    host = fleet.up("coord", n=2)
    if what == "group":
        name = "nightly"
        data = [Queue.prepare_data("jobs.polite") for _ in range(4)]
        made = Group.create(fleet.rq, name).enqueue_many(fleet.queue("default"), data)
        expected = {"stopped": 2, "canceled": 2}
    else:
        made = [fleet.enqueue("polite")]
        name, expected = made[0].id, {"stopped": 1}
    fleet.jobs.update({each.id: "default" for each in made})
    until(lambda: len(fleet.diary.entries("began")) == expected["stopped"], "jobs to begin")
    ended = fleet.shutdown(name)
    assert ended.code == 0, ended.err
    assert fleet.state().counts() == expected
    assert fleet.faults() == {}
    assert host.stop() == [0]


def test_a_host_can_be_stopped_by_its_agents_id(fleet: Fleet) -> None:
    """`coord agents` lists it; a shutdown of it is a drain: its jobs are back at the front of their queue."""
    host = fleet.up("coord", n=2)
    first = fleet.enqueue("polite")
    until(lambda: fleet.diary.entries("began"), "the job")
    agents = fleet.lab.call("agents", "--json").json
    assert len(agents["agents"]) == 1, agents
    ended = fleet.shutdown(agents["agents"][0]["agent_id"])
    assert ended.code == 0, ended.err
    host.end()
    assert fleet.connection.lrange("rq:queue:default", 0, -1) == [first.id]
    assert fleet.faults() == {}
