"""A hosted worker without Redis: what runs goes on and is recorded later; who is idle leaves at once."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.harness import until
from tests.rq.agent_end import hosted
from tests.strait import Strait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AWAY_S = 6.0  # several heartbeats


@contextmanager
def strait_to(server: str, folder: Path) -> Iterator[Strait]:
    strait = Strait(server, folder)
    try:
        yield strait
    finally:
        strait.close()


@pytest.mark.parametrize("how", ["freeze", "cut"])
@pytest.mark.parametrize("guarded", [True, False])
def test_a_job_and_its_result_outlive_an_outage(server: str, tmp_path: Path, how: str, *, guarded: bool) -> None:
    """Heartbeats fail, the job ends meanwhile, and its result is there when Redis is. Impatient, it is lost."""
    if not guarded and how == "freeze":
        pytest.skip("a server that only says nothing for a while loses nobody's words")
    worker_class = None if guarded else "unguarded_workers.Impatient"
    options = {"worker_class": worker_class, "job_monitoring_interval": 1}
    with (
        strait_to(server, tmp_path) as strait,
        hosted(server, tmp_path, worker_url=strait.url, options=options) as site,
    ):
        path, gate = site.note(), site.note()
        job = site.queue.enqueue("errands.wait_for", str(path), str(gate))
        site.agent.begun(path)
        getattr(strait, how)()
        time.sleep(AWAY_S / 2)
        gate.touch()
        time.sleep(AWAY_S / 2)
        strait.open()
        if guarded:
            assert site.agent.hear("written")["status"] == "finished"
            assert job.return_value() == "whole"
            other = site.queue.enqueue("errands.add", 1, 2)
            assert site.agent.hear("written", rq_job=other.id)["status"] == "finished"
        else:
            site.agent.hear("ended")
            time.sleep(1.0)
            assert job.return_value() is None


@pytest.mark.parametrize("how", ["freeze", "cut"])
@pytest.mark.parametrize("guarded", [True, False])
def test_an_idle_worker_leaves_without_redis(server: str, tmp_path: Path, how: str, *, guarded: bool) -> None:
    """It can't say goodbye to RQ, and ends all the same, and says so; without that guard it waits for Redis."""
    worker_class = None if guarded else "unguarded_workers.WaitsForRedis"
    with (
        strait_to(server, tmp_path) as strait,
        hosted(server, tmp_path, worker_url=strait.url, options={"worker_class": worker_class}) as site,
    ):
        other = site.queue.enqueue("errands.add", 1, 2)
        site.agent.hear("written", rq_job=other.id)
        getattr(strait, how)()
        site.agent.tell("drain")
        if guarded:
            assert site.agent.hear("bye")["clean"] is False
            assert site.agent.end() == 0
        else:
            with pytest.raises(AssertionError):
                site.agent.hear("bye", wait_s=4.0)


def test_a_stop_during_an_outage_is_noted_and_recorded_later(server: str, tmp_path: Path) -> None:
    """The horse's end is told at once, though Redis is away; RQ's state follows when it is back."""
    options = {"job_monitoring_interval": 1}
    with (
        strait_to(server, tmp_path) as strait,
        hosted(server, tmp_path, worker_url=strait.url, options=options) as site,
    ):
        path = site.note()
        job = site.queue.enqueue("errands.wait", str(path))
        forked = site.agent.begun(path)
        strait.cut()
        time.sleep(2.0)  # heartbeats wait for Redis
        site.agent.stop(forked["execution"], "stopped", "by ann", seconds=60.0)
        site.agent.signal(forked["pid"])
        assert site.agent.hear("ended", wait_s=10.0)["childless"]
        site.agent.settle(forked["execution"])
        strait.open()
        assert site.agent.hear("written")["status"] == "stopped"
        until(lambda: site.places(job) == ["stopped"], "the job to be stopped")
