"""Users' own packages: a project may have some that are called as ours are, and `coord worker` imports theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rq.fleet import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rq.fleet import Fleet

TASKS = """
import os, sys
from {package} import WHO


def who():
    return WHO


def path():
    return sys.path[0]
"""
SETTINGS = """
import os
REDIS_URL = os.environ["THEIR_REDIS"]
QUEUES = ["theirs"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with packages named `workers` and `coord`, and a settings module."""
    folder = tmp_path / "project"
    for package in ("workers", "coord"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f"WHO = 'their {package}'\n")
        (folder / package / "tasks.py").write_text(TASKS.format(package=package))
    (folder / "their_settings.py").write_text(SETTINGS)
    (folder / "jobs.py").write_text((PROJECT / "jobs.py").read_text())
    return folder


def test_packages_named_as_ours_are_theirs(fleet: Fleet, project: Path) -> None:
    """Their `workers.tasks` and `coord.tasks` run; many jobs in turn, on the same worker."""
    fleet.path = project
    host = fleet.up("coord")
    for _ in range(3):
        for package in ("workers", "coord"):
            job = who(fleet, package)
            fleet.settled("it to finish", lambda state: set(state.counts()) == {"finished"})
            assert fleet.fetch(job).return_value() == f"their {package}"
    assert host.stop() == [0]


def test_under_stock_ours_are_in_the_way(fleet: Fleet, project: Path) -> None:
    """The negative control: `rq worker` has a project last on its path, so what is installed hides the user's."""
    fleet.path = project
    host = fleet.up("rq")
    jobs = [who(fleet, package) for package in ("workers", "coord")]
    fleet.settled("both to fail", lambda state: state.counts() == {"failed": 2})
    assert "Invalid attribute name" in fleet.result(jobs[0])
    assert host.stop() == [0]


def who(fleet: Fleet, package: str) -> str:
    """Enqueue a function of a package of the project's; give the job."""
    job = fleet.queue("default").enqueue(f"{package}.tasks.who", result_ttl=600)
    fleet.jobs[job.id] = "default"
    return job.id


def test_a_stop_works_in_such_a_project(fleet: Fleet, project: Path, job: str) -> None:
    """With their packages in place of ours in the work-horse, SIGTERM still runs `finally`, and the daemon goes."""
    fleet.path = project
    host = fleet.up("coord")
    fleet.give(job, "with_daemon", "setsid")
    fleet.settled("it to begin", lambda _state: fleet.diary.entries("daemon"))
    assert fleet.shutdown(job).code == 0
    assert fleet.diary.entries("raised")
    assert host.stop() == [0]


@pytest.mark.parametrize("kind", ["rq", "coord"])
def test_a_settings_module_is_read(fleet: Fleet, project: Path, kind: str) -> None:
    """`-c settings`: RQ's own keys, its queues and its Redis, as `rq worker` has them; no queue on the command line."""
    fleet.path = project
    options = ("-c", "their_settings")
    host = fleet.start(kind, options=options, THEIR_REDIS=fleet.url, RQ_REDIS_URL="", COORD_REDIS_URL="")
    fleet.ready(host)
    fleet.enqueue_many(3, queue="theirs")
    fleet.settled("all to finish", lambda state: state.counts() == {"finished": 3})
    assert host.stop() == [0]


@pytest.mark.parametrize("kind", ["rq", "coord"])
def test_burst_works_all_off_and_ends(fleet: Fleet, kind: str) -> None:
    """`--burst`: exit code 0 when the queues are empty."""
    fleet.enqueue_many(20)
    host = fleet.start(kind, n=2, options=("--burst",))
    assert set(host.end()) == {0}
    assert fleet.state().counts() == {"finished": 20}
    assert fleet.faults() == {}


@pytest.mark.parametrize("kind", ["rq", "coord"])
def test_the_scheduler_enqueues_in_time(fleet: Fleet, kind: str) -> None:
    """`--with-scheduler`: what is scheduled, and a retry after an interval, run."""
    from datetime import timedelta

    from rq import Retry

    host = fleet.up(kind, options=("--with-scheduler",))
    later = fleet.queue("default").enqueue_in(timedelta(seconds=1), "jobs.tiny", result_ttl=600)
    fleet.jobs[later.id] = "default"
    fleet.enqueue("fails_times", 1, retry=Retry(1, interval=1))
    fleet.settled("both to finish", lambda state: state.counts() == {"finished": 2})
    assert set(host.stop()) == {0}
    assert fleet.faults() == {}
