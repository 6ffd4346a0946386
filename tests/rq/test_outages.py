"""Redis goes away while a job runs: the job goes on, and its result is there when Redis is back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.harness import WAIT_S, until
from tests.rq.fleet import gone, kill_pid

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.outage import Outage
    from tests.rq.fleet import Fleet, Host

INCOMPLETE = 5
OUTAGE_S = 12.0  # longer than what redis-py tries by itself
QUICK = ("--job-monitoring-interval", "2")  # a heartbeat is due in the outage
WAYS = ["paused", "killed"]


def away(outage: Outage, way: str, meanwhile: Callable[[], object]) -> None:
    """Have the server away while something comes true, and for OUTAGE_S at least."""
    back_s = time.monotonic() + OUTAGE_S
    outage.pause() if way == "paused" else outage.kill()
    meanwhile()
    time.sleep(max(0.0, back_s - time.monotonic()))  # an outage is a length of time
    outage.resume() if way == "paused" else outage.start()


def begun(fleet: Fleet, kind: str, seconds: float) -> tuple[Host, str]:
    """Have a host with a job that runs so long."""
    host = fleet.up(kind, options=QUICK)
    job = fleet.enqueue("polite", seconds)
    until(lambda: fleet.diary.entries("began"), "the job to begin")
    fleet.settled("the job to be started", lambda state: state.counts() == {"started": 1})
    return host, job.id


def test_stock_loses_the_result(shaky: Fleet, outage: Outage) -> None:
    """The negative control: the job ends in the outage; its result is lost, it stays `started`."""
    host, _ = begun(shaky, "rq", 3.0)
    away(outage, "killed", lambda: until(lambda: shaky.diary.entries("ended"), "the job to end"))
    until(lambda: not host.running, "the worker to quit")
    assert host.end() == [1]
    assert shaky.state().counts() == {"started": 1}
    until(lambda: not shaky.left(), "nothing to be left")


@pytest.mark.parametrize("way", WAYS)
def test_a_result_made_in_an_outage_is_kept(shaky: Fleet, outage: Outage, way: str) -> None:
    """The job runs on, undisturbed, and its result is written when Redis is back; the worker takes the next one."""
    host, job = begun(shaky, "coord", 3.0)
    away(outage, way, lambda: until(lambda: shaky.diary.entries("ended"), "the job to end"))
    shaky.settled("its result", lambda state: state.counts() == {"finished": 1})
    assert shaky.fetch(job).return_value() == "slept"
    shaky.enqueue("tiny")
    shaky.settled("the next one", lambda state: state.counts() == {"finished": 2})
    assert shaky.diary.times("began", [job]) == {job: 1}
    assert shaky.faults() == {}
    assert host.stop() == [0]


@pytest.mark.parametrize("way", WAYS)
def test_a_job_goes_on_through_an_outage(shaky: Fleet, outage: Outage, way: str) -> None:
    """Heartbeats that fall into the outage fail quietly: the same process ends the job after it."""
    host, job = begun(shaky, "coord", OUTAGE_S + 5)
    away(outage, way, lambda: None)
    assert not shaky.diary.entries("ended")
    shaky.settled("its end", lambda state: state.counts() == {"finished": 1})
    assert shaky.diary.times("began", [job]) == {job: 1}
    assert host.stop() == [0]


def test_a_host_that_stops_in_an_outage_ends_in_time(shaky: Fleet, outage: Outage) -> None:
    """Neither an idle worker nor a busy one hangs on Redis when the host stops; nothing runs afterwards.

    RQ could not be told: the exit code says so, and the next agent on the machine does it.
    """
    host = shaky.up("coord", n=2, options=("--grace", "1s", "--kill-wait", "1s"))
    shaky.enqueue("with_daemon", "setsid", "deaf")
    (note,) = until(lambda: shaky.diary.entries("daemon"), "the job")
    outage.kill()
    began_s = time.monotonic()
    host.signal()
    assert host.end() == [INCOMPLETE]
    assert time.monotonic() - began_s < WAIT_S
    assert gone(note["daemon"])
    assert shaky.left() == {}
    outage.start()
    assert shaky.faults(at_rest=False) == {}
    shaky.up("coord", host="b")  # on the same machine
    until(lambda: len(shaky.diary.entries("began")) == 2, "the job to be put back, and run")
    assert not shaky.diary.entries("twice")
    shaky.hosts[-1].stop()
    assert shaky.faults() == {}


def test_a_worker_that_dies_in_an_outage_is_seen_to_after_it(shaky: Fleet, outage: Outage) -> None:
    """Nothing of its job runs on meanwhile; when Redis is back, RQ is told, and another worker takes its place."""
    host = shaky.up("coord", options=("--grace", "1s"))
    job = shaky.enqueue("with_daemon", "setsid")
    (note,) = until(lambda: shaky.diary.entries("daemon"), "the job")
    shaky.settled("the job to be started", lambda state: state.counts() == {"started": 1})
    (worker,) = shaky.worker_pids("a")
    outage.kill()
    kill_pid(worker)
    until(lambda: gone(note["pid"]) and gone(note["daemon"]), "all of the job to be gone")
    time.sleep(OUTAGE_S)  # an outage is a length of time
    outage.start()
    shaky.settled("the job to be failed", lambda state: state.status[job.id] == "failed")
    other = shaky.enqueue("tiny")
    shaky.settled("the next one", lambda state: state.status[other.id] == "finished")
    assert host.stop() == [0]
    assert shaky.faults() == {}
