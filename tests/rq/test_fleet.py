"""The harness itself, on stock `rq worker`: hosts start, work and stop, and what their jobs leave is seen."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.harness import until
from tests.rq.fleet import gone, kill_pid

if TYPE_CHECKING:
    from tests.rq.fleet import Fleet


@pytest.mark.parametrize("kind_of_server", ["valkey", "redis"])
def test_a_stock_fleet_works_and_stops(fleet: Fleet) -> None:
    """Two hosts of two workers each empty a queue, leave on SIGTERM, and every job is in one place, run once."""
    hosts = [fleet.start("rq", "high", "default", host=name, n=2) for name in "ab"]
    fleet.ready()
    assert [len(fleet.worker_names(name)) for name in "ab"] == [2, 2]
    jobs = [*fleet.enqueue_many(20), *fleet.enqueue_many(20, queue="high")]
    fleet.settled("all to be finished", lambda state: state.counts() == {"finished": 40})
    for host in hosts:
        assert host.stop() == [0, 0]
    assert fleet.state().workers == ()
    assert fleet.faults() == {}
    assert set(fleet.diary.times("ran", [job.id for job in jobs]).values()) == {1}


def test_stock_leaves_a_daemon_behind(fleet: Fleet) -> None:
    """The negative control of all that follows: RQ's stop kills the group of the work-horse, and no `finally` runs."""
    from rq.command import send_stop_job_command

    fleet.up("rq")
    job = fleet.enqueue("with_daemon", "setsid")
    (note,) = until(lambda: fleet.diary.entries("daemon"), "the daemon")
    fleet.settled("the job to be started", lambda state: state.counts() == {"started": 1})
    send_stop_job_command(fleet.rq, job.id)
    fleet.settled("the job to be stopped", lambda state: state.counts() == {"stopped": 1})
    assert not gone(note["daemon"])
    assert fleet.diary.entries("raised") == []
    kill_pid(note["daemon"])
    fleet.hosts[0].stop()


def test_stock_runs_two_copies_at_once(fleet: Fleet) -> None:
    """Another negative control: `rq worker` is killed, and its job is run again while the first copy still runs."""
    host = fleet.up("rq", options=("--job-monitoring-interval", "1"))
    job = fleet.enqueue("polite", 8.0)
    until(lambda: fleet.diary.entries("began"), "the job to begin")
    host.signal(signal.SIGKILL)
    host.end()
    # RQ's wait for a heartbeat that does not come, 61 s and more, made short
    (execution,) = fleet.connection.zscan_iter("rq:wip:default")
    fleet.connection.zadd("rq:wip:default", {execution[0]: 1}, xx=True)
    fleet.connection.hset(f"rq:job:{job.id}", mapping={"retries_left": 1, "number_of_retries": 0})
    fleet.up("rq", host="b")
    until(lambda: fleet.diary.entries("twice"), "a second copy beside the first")
    fleet.settled("one of them to finish", lambda state: state.counts() == {"finished": 1})
    until(lambda: len(fleet.diary.entries("ended")) == 2, "both to end")
    fleet.hosts[-1].stop()


def test_a_worker_that_does_not_start_is_told_with_what_it_said(fleet: Fleet) -> None:
    """A harness that waits in vain says why."""
    fleet.start("rq", options=("--worker-class", "no.such.Class"))
    with pytest.raises(AssertionError, match=r"(?s)ended: .*no\.such"):
        fleet.ready()
    assert fleet.hosts[0].end() == [1]


def test_what_a_test_leaves_is_seen(fleet: Fleet) -> None:
    """A daemon of a job carries the mark of the test through RQ, and is found by it."""
    fleet.up("rq")
    fleet.enqueue("leaves_daemon")
    (note,) = until(lambda: fleet.diary.entries("daemon"), "the daemon")
    assert note["daemon"] in fleet.left()
    kill_pid(note["daemon"])
    fleet.settled("the job to be finished", lambda state: state.counts() == {"finished": 1})
    assert fleet.hosts[0].stop() == [0]
    until(lambda: fleet.left() == {}, "nothing to be left")
