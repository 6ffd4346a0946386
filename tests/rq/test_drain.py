"""A host stops: nothing more is taken, what runs may finish, or is stopped in order and goes back to its queue."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from rq import Retry

from tests.harness import COORD, until
from tests.rq.fleet import gone

if TYPE_CHECKING:
    from tests.rq.fleet import Fleet

HELD_S = 1.0
SOON_S = 10.0  # an idle `rq worker` would be in a dequeue of 405 s


def verdict(fleet: Fleet) -> Any:
    """Give the document of the host's own job, once it has its verdict."""

    def found() -> Any:
        (job,) = fleet.lab.call("jobs", "--json").json["jobs"]
        return fleet.lab.status(job["job_id"])["verdict"] and fleet.lab.status(job["job_id"])

    return until(found, "the verdict of the host")


def test_what_runs_is_put_back_to_the_front(fleet: Fleet) -> None:
    """`finally` ran, its daemon is gone, no attempt is counted, and another host runs it first."""
    host = fleet.up("coord", options=("--grace", "10s"))
    job = fleet.enqueue("with_daemon", "setsid", retry=Retry(1))
    (note,) = until(lambda: fleet.diary.entries("daemon"), "the job")
    fleet.settled("it to be started", lambda state: state.counts() == {"started": 1})
    waiting = fleet.enqueue("tiny")
    assert host.stop() == [0]
    assert host.said.endswith("coord: stopped by SIGTERM; 1 RQ job put back; nothing is left\n")
    assert fleet.connection.lrange("rq:queue:default", 0, -1) == [job.id, waiting.id]
    assert fleet.faults() == {}
    assert fleet.fetch(job.id).retries_left == 1
    assert gone(note["daemon"])
    assert fleet.diary.entries("raised", job.id)
    document = verdict(fleet)
    assert (document["verdict"], document["rq"]["requeued"]) == ("clean", 1)
    fleet.up("coord", host="b")
    until(lambda: len(fleet.diary.entries("began", job.id)) == 2, "the other host to run it")
    assert not fleet.diary.jobs("ran")
    assert fleet.hosts[-1].stop() == [0]


def test_on_stop_fail(fleet: Fleet) -> None:
    """`--on-stop fail`: what runs is failed, with the reason; what waits is left where it is."""
    host = fleet.up("coord", options=("--on-stop", "fail"))
    job = fleet.enqueue("polite")
    until(lambda: fleet.diary.entries("began"), "the job")
    waiting = fleet.enqueue("tiny")
    assert host.stop() == [0]
    assert fleet.state().status == {job.id: "failed", waiting.id: "queued"}
    assert fleet.faults() == {}
    assert "stopped" in fleet.result(job.id)


@pytest.mark.parametrize("function", [("deaf",), ("with_daemon", "setsid", "deaf")], ids=["job", "daemon"])
def test_who_holds_out_is_killed_and_put_back(fleet: Fleet, function: tuple[str, ...]) -> None:
    """At the deadline, and not before; the verdict says so."""
    host = fleet.up("coord", options=("--grace", f"{HELD_S}s"))
    job = fleet.enqueue(*function)
    until(lambda: fleet.diary.entries("daemon" if "setsid" in function else "began"), "the job")
    time.sleep(0.2)  # for `deaf` to be deaf: it says so to nobody
    began_s = time.monotonic()
    assert host.stop() == [0]
    assert time.monotonic() - began_s >= HELD_S
    assert fleet.state().status == {job.id: "queued"}
    assert fleet.faults() == {}
    assert verdict(fleet)["verdict"] == "forced"


def test_within_the_warm_time_a_job_finishes(fleet: Fleet) -> None:
    """It ends by itself, undisturbed; its worker takes nothing more meanwhile; the host leaves then, not later."""
    host = fleet.up("coord", options=("--warm", "60s"))
    job = fleet.enqueue("polite", 2.0)
    until(lambda: fleet.diary.entries("began"), "the job")
    waiting = fleet.enqueue("tiny")
    host.signal()
    host.signal()
    assert host.end() == [0]
    assert fleet.fetch(job.id).return_value() == "slept"
    assert fleet.state().status == {job.id: "finished", waiting.id: "queued"}
    assert fleet.faults() == {}


def test_an_idle_host_leaves_at_once(fleet: Fleet) -> None:
    """Workers that wait for jobs, on one queue or on many, are woken; none is registered any more."""
    hosts = [fleet.up("coord", host="a", n=2), fleet.up("coord", "high", "default", "low", host="b", n=2)]
    for host in hosts:
        began_s = time.monotonic()
        assert host.stop() == [0]
        assert time.monotonic() - began_s < SOON_S
    assert fleet.state().workers == ()


def test_a_plan_that_does_not_fit_is_refused(fleet: Fleet) -> None:
    """With the arithmetic, before anything is started."""
    ended = fleet.lab.call("worker", "--platform", "heroku", "--warm", "20s", "--grace", "10s", program=COORD)
    assert ended.code == 2
    assert all(words in ended.err for words in ("20s", "10s", "heroku", "30s"))
