"""RQ jobs of a fleet with a secret: stopped and proved as ever, and what runs has no secret in its environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness import until
from tests.rings import OURS

if TYPE_CHECKING:
    from tests.rq.fleet import Fleet


def test_rq_jobs_of_a_fleet_with_a_secret(fleet: Fleet, job: str) -> None:
    """What runs is stopped, what waits is canceled, and that nothing is left is signed by who saw to it."""
    fleet.lab.environment["COORD_SECRET"] = OURS
    host = fleet.up("coord", n=1)
    running, waiting = fleet.give(job, "polite"), fleet.give(job, "tiny")
    until(lambda: running.id in fleet.diary.jobs("began"), "it to begin")
    pids = fleet.worker_pids("a") | {int(each["pid"]) for each in fleet.diary.entries("began")}
    assert len(pids) == 2
    assert not any(_has_secret(pid) for pid in pids)
    assert _has_secret(host.popens[0].pid)
    ended = fleet.shutdown(job)
    assert (ended.code, ended.json["verdict"]) == (0, "clean"), ended.err
    assert (ended.json["rq"]["stopped"], ended.json["rq"]["canceled"]) == (1, 1)
    assert [agent["doubt"] for agent in ended.json["agents"]] == [None]
    assert fleet.state().status == {running.id: "stopped", waiting.id: "canceled"}
    without = fleet.lab.call("shutdown", "--job-id", f"{job}-2", "--fence", COORD_SECRET="")
    assert without.code == 0  # a job that no agent has joined is anybody's
    assert host.stop() == [0]


def _has_secret(pid: int) -> bool:
    return OURS.encode() in Path(f"/proc/{pid}/environ").read_bytes()
