"""Deploys: the platform ends all dynos of a busy fleet again and again. Nothing is lost, and nobody is too late."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.harness import COORD, until
from tests.rq.dyno import BOUND_S, Platform, platform
from tests.rq.fleet import PROJECT, RQ

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rq.dyno import Ending
    from tests.rq.fleet import Fleet

CYCLES = int(os.environ.get("COORD_TEST_CYCLES", "3"))  # 20 by hand
SEED = int(os.environ.get("COORD_TEST_SEED", "1"))
OURS = f"worker: {COORD} worker high default -n 2 --path {PROJECT} --platform heroku --grace 5s --quiet\n"
STOCK = f"worker: {RQ} worker high default --path {PROJECT} --quiet\n"
BUSY = 40

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root"),
    pytest.mark.timeout(120 + 60 * CYCLES),
]


def fill(fleet: Fleet) -> None:
    """Have tiny jobs, some that take a while, and some that have daemons; each ends by itself."""
    for queue in ("high", "default"):
        fleet.enqueue_many(max(0, BUSY - fleet.connection.llen(f"rq:queue:{queue}")), queue=queue)
    for number in range(2):
        fleet.enqueue("polite", 0.5, queue="high", at_front=bool(number))
        fleet.enqueue("with_daemon", "setsid", kwargs={"seconds": 0.3}, queue="high", at_front=True)
        fleet.enqueue("with_daemon", "setsid", "deaf", kwargs={"seconds": 0.3}, queue="high", at_front=bool(number))


def cycle(fleet: Fleet, made: Platform, chance: random.Random) -> list[Ending]:
    """Run two dynos at a full queue, and end both at a random instant."""
    before = len(fleet.diary.entries())
    fill(fleet)
    made.scale(worker=2)
    wanted = before + chance.randrange(1, BUSY)
    until(lambda: len(fleet.diary.entries()) >= wanted, "some of the jobs to run")
    return made.cycle()


def test_nothing_is_lost_and_nobody_is_too_late(fleet: Fleet, tmp_path: Path) -> None:
    """Each cycle: every job in one place, each dyno out before its 30 s, with nobody to kill; verdicts are there."""
    chance = random.Random(SEED)
    slowest_s = 0.0
    with platform(OURS, fleet.environment("dyno"), tmp_path / "dynos") as made:
        for number in range(CYCLES):
            for ended in cycle(fleet, made, chance):
                assert (ended.code, ended.killed, ended.left) == (0, {}, {})
                assert ended.took_s is not None
                assert ended.took_s < BOUND_S
                slowest_s = max(slowest_s, ended.took_s)
            assert fleet.faults() == {}
            assert fleet.state().workers == ()
            verdicts = [each["verdict"] for each in fleet.lab.call("jobs", "--json").json["jobs"]]
            assert len(verdicts) == 2 * (number + 1)
            assert set(verdicts) <= {"clean", "forced"}
        print(f"{CYCLES} cycles of 2 dynos, the slowest took {slowest_s:.2f} s: {Counter(verdicts)}")  # noqa: T201
        made.scale(worker=2)
        rest_s = 60 + 10 * CYCLES  # a deaf daemon has its grace
        fleet.settled("all to be finished", lambda state: set(state.counts()) == {"finished"}, rest_s)
        made.cycle()
    assert not fleet.diary.entries("twice")


def test_stock_leaves_jobs_started(fleet: Fleet, tmp_path: Path) -> None:
    """The negative control: SIGTERM to every process ends `rq worker`'s work-horses, too: jobs fail, daemons stay."""
    with platform(STOCK, fleet.environment("dyno"), tmp_path / "dynos", bound_s=5.0) as made:
        jobs = [fleet.enqueue("with_daemon", "setsid", "deaf", kwargs={"seconds": 3.0}) for _ in range(4)]
        made.scale(worker=2)
        until(lambda: len(fleet.diary.entries("daemon")) == 2, "two jobs to begin")
        endings = made.cycle()
    assert any(ended.left for ended in endings)
    lost = [job.id for job in jobs if fleet.state().status[job.id] in {"failed", "started"}]
    assert len(lost) == 2
