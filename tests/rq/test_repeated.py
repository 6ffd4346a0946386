"""Stops that are repeated, that come from several sides at once, at any instant: no worker and no agent dies of it."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from rq import Callback
from rq.command import send_stop_execution_command, send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError

from coord.coordinator import Coordinator
from tests.harness import until
from tests.rq.fleet import children

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rq.fleet import Fleet, Host

TRIES = int(os.environ.get("COORD_TEST_REPEATED", "40"))  # 1,000 by hand
SEED = int(os.environ.get("COORD_TEST_SEED", "1"))
WORKERS = 3
VERDICT_S = 30.0

pytestmark = pytest.mark.timeout(120 + 2 * TRIES)


def instantly(_fleet: Fleet, _job: str, chance: random.Random) -> None:
    """Somewhere between the queue and the function."""
    time.sleep(chance.uniform(0, 0.03))


def before_the_fork(fleet: Fleet, job: str, chance: random.Random) -> None:
    """The worker has said that it runs the job, and forks next."""
    until(lambda: fleet.connection.exists(f"rq:executions:{job}") or not _waits(fleet, job), "the worker to take it")
    time.sleep(chance.uniform(0, 0.002))


def in_the_function(fleet: Fleet, job: str, _chance: random.Random) -> None:
    """It has begun."""
    until(lambda: fleet.diary.jobs("began") & {job} or not _waits(fleet, job), "it to begin")


def about_its_end(fleet: Fleet, job: str, chance: random.Random) -> None:
    """A tiny job's own end: the work-horse is about to be gone, is gone, or was."""
    until(lambda: fleet.diary.jobs("ran") & {job} or not _waits(fleet, job), "it to run")
    time.sleep(chance.uniform(0, 0.01))


def in_on_stopped(fleet: Fleet, job: str, _chance: random.Random) -> None:
    """It was stopped, and the worker runs its callback."""
    in_the_function(fleet, job, _chance)
    send_stop_job_command(fleet.rq, job)
    until(lambda: any(each["stopped"] == job for each in fleet.diary.entries("on_stopped")), "its callback")


INSTANTS: dict[Callable[[Fleet, str, random.Random], None], str] = {
    instantly: "polite",
    before_the_fork: "polite",
    in_the_function: "polite",
    about_its_end: "tiny",
    in_on_stopped: "polite",
}


def _waits(fleet: Fleet, job: str) -> bool:
    return fleet.connection.hget(f"rq:job:{job}", "status") in {"queued", "started"}


def sides(fleet: Fleet, coordinator: Coordinator, job: str, rq_job: str) -> list[Callable[[], Any]]:
    """Give what stops it, from all sides: ours twice, the second more urgent; RQ's, each twice."""

    def execution() -> None:
        for each in fleet.fetch(rq_job).get_executions():
            send_stop_execution_command(fleet.rq, rq_job, each.id)

    def command() -> None:
        send_stop_job_command(fleet.rq, rq_job)

    return [
        lambda: coordinator.request(job, reason="tries"),
        lambda: coordinator.request(job, reason="tries again", grace_s=1),
        *(command, command, execution, execution),
    ]


def stop_from_all_sides(calls: list[Callable[[], Any]]) -> None:
    """Make all calls at once; RQ refuses some where nothing runs (any more)."""

    def one(call: Callable[[], Any]) -> None:
        with suppress(InvalidJobOperation, NoSuchJobError, ValueError):
            call()

    with ThreadPoolExecutor(len(calls)) as callers:
        list(callers.map(one, calls))


def everybody(fleet: Fleet, host: Host) -> set[int]:
    """Give the pids of guardian, agent and workers."""
    pids = {int(fleet.worker(name)["pid"]) for name in fleet.worker_names("a")}
    guardian = host.popens[0].pid
    return pids | {guardian, *children(guardian)}


def test_nobody_dies_of_it(fleet: Fleet) -> None:
    """Each of many tries: the job is over, in one place, nothing of it runs; and all of our processes are the same."""
    chance = random.Random(SEED)
    host = fleet.up("coord", n=WORKERS)
    before = everybody(fleet, host)
    with Coordinator(fleet.url, by="test") as coordinator:
        for number in range(TRIES):
            job, instant = f"tries.{SEED}.{number}", chance.choice(list(INSTANTS))
            rq_job = fleet.give(job, INSTANTS[instant], on_stopped=Callback("jobs.slow_on_stopped")).id
            instant(fleet, rq_job, chance)
            stop_from_all_sides(sides(fleet, coordinator, job, rq_job))
            for snapshot, _ in coordinator.follow(job, timeout_s=VERDICT_S):
                last = snapshot
            assert last.exit_code == 0, (number, instant.__name__, last)
            state = fleet.state([rq_job])
            assert not set(state.status.values()) & {"queued", "started", "failed"}, (number, instant.__name__, state)
            assert everybody(fleet, host) == before, (number, instant.__name__)
            assert host.running
    print(f"{TRIES} tries: {fleet.state().counts()}")  # noqa: T201
    assert fleet.faults() == {}
    assert host.stop() == [0]


def test_stock_kills_itself(fleet: Fleet) -> None:
    """The negative control: a second stop while `on_stopped` runs, and `rq worker` sends SIGKILL to its own group."""
    host = fleet.up("rq")
    job = fleet.enqueue("polite", on_stopped=Callback("jobs.slow_on_stopped"))
    in_the_function(fleet, job.id, random.Random(SEED))
    fleet.settled("it to be started", lambda state: state.counts() == {"started": 1})
    in_on_stopped(fleet, job.id, random.Random(SEED))
    send_stop_job_command(fleet.rq, job.id)
    assert host.end() == [-9]
    assert fleet.state().counts() == {"started": 1}
