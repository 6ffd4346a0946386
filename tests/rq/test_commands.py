"""What existing programs send to RQ's workers takes the graceful way on ours; and `rq info` shows the truth."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

from rq import Callback, Retry
from rq.command import (
    send_kill_horse_command,
    send_shutdown_command,
    send_stop_execution_command,
    send_stop_job_command,
)

from tests.harness import until
from tests.rq.fleet import RQ, gone

if TYPE_CHECKING:
    from tests.rq.fleet import Fleet, Host


def begun(fleet: Fleet, *function: Any, **options: Any) -> tuple[Host, str, str]:
    """Have a job at work, with a daemon; give the host, the job, and its worker's name."""
    host = fleet.up("coord", n=2)
    job = fleet.enqueue(*(function or ("with_daemon", "setsid")), on_stopped=Callback("jobs.on_stopped"), **options)
    until(lambda: fleet.diary.entries("daemon"), "the job's daemon")
    fleet.settled("the job to be started", lambda state: state.counts() == {"started": 1})
    (worker,) = [name for name in fleet.worker_names("a") if fleet.worker(name).get("state") == "busy"]
    return host, job.id, worker


def all_gone(fleet: Fleet) -> bool:
    """Tell whether every process that a job noted is gone, and its function ended by an exception: `finally` ran."""
    pids = [each.get("daemon", each["pid"]) for each in fleet.diary.entries() if "on_stopped" not in each["what"]]
    return bool(fleet.diary.entries("raised")) and all(gone(pid) for pid in pids)


def test_stop_job_stops_gracefully(fleet: Fleet) -> None:
    """`send_stop_job_command`: `finally` runs, the daemon goes, the status is `stopped`, and there is no retry."""
    host, job, worker = begun(fleet, retry=Retry(3))
    for _ in range(3):  # as often as a dashboard's user clicks
        send_stop_job_command(fleet.rq, job)
    fleet.settled("it to be stopped", lambda state: state.counts() == {"stopped": 1})
    assert all_gone(fleet)
    until(lambda: fleet.diary.entries("on_stopped"), "RQ's callback")
    assert worker in fleet.worker_names("a")
    assert host.stop() == [0]


def test_who_was_stopped_is_not_killed_into_a_retry(fleet: Fleet) -> None:
    """A kill that comes while a stopped job cleans up changes nothing: `stopped`, and no retry."""
    host = fleet.up("coord")
    job = fleet.enqueue("slow_cleanup", 1.0, retry=Retry(3))
    until(lambda: fleet.diary.entries("began"), "the job to begin")
    (worker,) = fleet.worker_names("a")
    fleet.settled("the job to be started", lambda state: state.counts() == {"started": 1})
    send_stop_job_command(fleet.rq, job.id)
    until(lambda: fleet.diary.entries("cleaning"), "it to be asked to stop")
    send_kill_horse_command(fleet.rq, worker)
    fleet.settled("it to be stopped", lambda state: state.counts() == {"stopped": 1})
    assert fleet.diary.entries("cleaned")
    assert host.stop() == [0]


def test_stop_execution_stops_gracefully(fleet: Fleet) -> None:
    """`send_stop_execution_command`: the same."""
    host, job, worker = begun(fleet)
    (execution,) = fleet.fetch(job).get_executions()
    send_stop_execution_command(fleet.rq, job, execution.id)
    fleet.settled("it to be stopped", lambda state: state.counts() == {"stopped": 1})
    assert all_gone(fleet)
    assert worker in fleet.worker_names("a")
    assert host.stop() == [0]


def test_kill_horse_fails_the_job_gracefully(fleet: Fleet) -> None:
    """`send_kill_horse_command`: asked first; then failed, as RQ has it."""
    host, _, worker = begun(fleet)
    send_kill_horse_command(fleet.rq, worker)
    fleet.settled("it to be failed", lambda state: state.counts() == {"failed": 1})
    assert all_gone(fleet)
    assert worker in fleet.worker_names("a")
    assert host.stop() == [0]


def test_a_shutdown_command_stops_one_worker(fleet: Fleet) -> None:
    """`send_shutdown_command`: that worker leaves, and loses no job; the other one works on."""
    host, job, worker = begun(fleet, "with_daemon", "setsid", kwargs={"seconds": 2.0})
    pid = int(fleet.worker(worker)["pid"])
    send_shutdown_command(fleet.rq, worker)
    until(lambda: gone(pid), "the worker to leave")
    other = fleet.enqueue("tiny")
    fleet.settled("another job, by the other worker", lambda state: state.status[other.id] == "finished")
    assert fleet.faults(at_rest=False) == {}
    assert host.stop() == [0]
    assert fleet.faults() == {}
    assert fleet.state().status[job] in {"finished", "queued"}


def test_garbage_on_the_channel_deafens_nobody(fleet: Fleet) -> None:
    """What is no command is ignored, and the next one is heard; stock's thread dies of it."""
    host, job, worker = begun(fleet)
    for garbage in ("not json", "[]", "{}", '{"command": "stop-job"}', '{"command": "no such"}'):
        fleet.rq.publish(f"rq:pubsub:{worker}", garbage)
    send_stop_job_command(fleet.rq, job)
    fleet.settled("it to be stopped", lambda state: state.counts() == {"stopped": 1})
    assert host.stop() == [0]


def info(fleet: Fleet) -> str:
    """Run the real `rq info`."""
    command = [RQ, "info", "--url", fleet.url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def workers_in(text: str) -> dict[str, str]:
    """Read worker -> state out of what it prints."""
    return dict(re.findall(r"^(\S+) \(.*\): (\w+)", text, re.MULTILINE))


def test_rq_info_shows_the_truth(fleet: Fleet) -> None:
    """Who works, who idles, what is executing, stopped and waiting; and after the host's end, nobody."""
    host, job, worker = begun(fleet)
    before = info(fleet)
    assert sorted(workers_in(before)) == fleet.worker_names("a")
    assert {name for name, state in workers_in(before).items() if state == "busy"} == {worker}
    assert re.search(r"default .*1 executing", before), before
    send_stop_job_command(fleet.rq, job)
    fleet.settled("it to be stopped", lambda state: state.counts() == {"stopped": 1})
    until(lambda: set(workers_in(info(fleet)).values()) == {"idle"}, "both to be idle")
    assert host.stop() == [0]
    after = info(fleet)
    assert workers_in(after) == {}
    assert re.search(r"default .*0 executing.*1 failed", after), after
    assert fleet.faults() == {}
