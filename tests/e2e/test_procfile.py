"""The Procfile, started as a platform starts it: what it runs does its work, and leaves when the platform says so."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from rq import Queue
from rq.cron import CronScheduler
from rq.job import Job

from tests.harness import private_server, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Lab, Started

ROOT = Path(__file__).parent.parent.parent
HONCHO = str(Path(sys.executable).with_name("honcho"))
SHARES = 3


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of these tests alone: the Procfile's queues have names that others may use."""
    with private_server() as url:
        yield url


@pytest.fixture
def rq(server: str) -> Iterator[Redis]:
    """RQ's Redis: it is the record's, as on a platform with one add-on."""
    with Redis.from_url(server) as connection:
        yield connection


def start(lab: Lab, kind: str, **environment: str) -> Started:
    """Start one process type."""
    args = ("start", "--app-root", str(ROOT), "--procfile", str(ROOT / "Procfile"), kind)
    return lab.start(*args, program=HONCHO, **environment)


def test_a_platform_starts_and_stops_a_rank(lab: Lab, job: str, tmp_path: Path) -> None:
    """SIGTERM to the process manager ends the rank in order and leaves the job unfenced: it may be started again."""
    for _ in range(2):
        manager = start(lab, "rank", COORD_JOB_ID=job, OUT=str(tmp_path), HASHES="4096")
        until(lambda: any("rank.py" in command for command in lab.left().values()), "the rank")
        until(lambda: (lab.status(job) or {"state": ""})["state"] == "running", "it to join the job")
        manager.signal(signal.SIGTERM)
        assert manager.end().code == 143
        assert lab.left() == {}
        assert (lab.status(job)["state"], lab.status(job)["request"]) == ("stopped", None)


def test_a_job_that_was_shut_down_is_not_started_again(lab: Lab, job: str, tmp_path: Path) -> None:
    """After `coord shutdown`, the platform's next start is refused with the documented code."""
    lab.call("shutdown", "--job-id", job, "--fence")
    assert start(lab, "rank", COORD_JOB_ID=job, OUT=str(tmp_path), HASHES="16").end().code == 7


def test_workers_split_and_index_a_night(lab: Lab, rq: Redis, tmp_path: Path) -> None:
    """What the clock enqueues is worked off by the worker type, as parts of one job; twice in a night, it is once."""
    for number in range(2 * SHARES):
        (tmp_path / f"module{number}.py").write_text(f"def function{number}(value):\n    return value + {number}\n")
    manager = start(lab, "worker", SHARES=str(SHARES), SOURCE=str(tmp_path), OUT=str(tmp_path / "out"))
    nights = [Queue("high", connection=rq).enqueue("compose.pipeline.nightly.split") for _ in range(2)]
    until(lambda: all(ended(night) for night in nights), "the night to be split")
    names = {night.return_value() for night in nights}
    assert len(names) == 1
    (name,) = names
    shares = [Job.fetch(f"{name}-{share}", connection=rq) for share in range(SHARES)]
    until(lambda: all(ended(share) for share in shares), "the shares")
    indexes = [json.loads(path.read_text()) for path in (tmp_path / "out" / str(name)).glob("index-*.json")]
    assert sum(index["files"] for index in indexes) == 2 * SHARES
    leave(manager)
    assert lab.left() == {}
    assert lab.status(str(name))["state"] == "stopped"


def test_a_job_that_is_done_within_the_warm_time_is_done(lab: Lab, rq: Redis) -> None:
    """SIGTERM to the process manager lets the running job finish; what waits, waits for the next worker."""
    manager = start(lab, "worker")
    queue = Queue("default", connection=rq)
    jobs = [queue.enqueue("time.sleep", 2) for _ in range(3)]
    until(lambda: sum(job.get_status().value == "started" for job in jobs) == 2, "both workers at work")
    leave(manager)
    assert [job.get_status().value for job in jobs] == ["finished", "finished", "queued"]
    assert queue.job_ids == [jobs[2].id]
    jobs[2].delete()


def ended(job: Job) -> bool:
    """Tell whether RQ is done with a job, well or not."""
    return job.get_status().value in {"finished", "failed"}


def leave(manager: Started) -> None:
    """Stop workers as a platform does. honcho itself answers with 143; what they answered, it says."""
    manager.signal(signal.SIGTERM)
    ended = manager.end()
    assert "worker.1 stopped (rc=0)" in ended.out + ended.err


def test_the_clock_leaves_at_once(lab: Lab, rq: Redis) -> None:
    """The clock knows what is due every night, and goes on SIGTERM: two at a time would enqueue everything twice."""
    manager = start(lab, "clock")
    (clock,) = until(lambda: CronScheduler.all(rq), "the clock")
    known = [(each.func_name, each.queue_name) for each in clock.get_jobs()]
    assert known == [("compose.pipeline.nightly.split", "high")]
    manager.signal(signal.SIGTERM)
    manager.end()
    assert not CronScheduler.all(rq)


def test_a_release_is_refused_when_redis_is_not_fit(lab: Lab) -> None:
    """The release phase lets a release pass on a good Redis, and not without one."""
    good = start(lab, "release").end()
    assert good.code == 0, good.out + good.err
    assert start(lab, "release", COORD_REDIS_URL="redis://127.0.0.1:1").end().code == 1


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {}),
        ({"REDIS_URL": "redis://r"}, {"COORD_REDIS_URL": "redis://r", "RQ_REDIS_URL": "redis://r"}),
        (
            {"REDIS_URL": "redis://r", "COORD_REDIS_URL": "redis://c"},
            {"COORD_REDIS_URL": "redis://c", "RQ_REDIS_URL": "redis://c"},
        ),
        (
            {"REDIS_URL": "redis://r", "RQ_REDIS_URL": "redis://q"},
            {"COORD_REDIS_URL": "redis://r", "RQ_REDIS_URL": "redis://q"},
        ),
        ({"REDIS_URL": "rediss://r"}, {"COORD_REDIS_URL": "rediss://r"}),
        ({"REDIS_URL": "rediss://r", "DYNO": "worker.1"}, {"COORD_REDIS_URL": "rediss://r?ssl_cert_reqs=none"}),
        ({"REDIS_URL": "rediss://r?db=1", "DYNO": "worker.1"}, {"COORD_REDIS_URL": "rediss://r?db=1"}),
    ],
)
def test_a_platforms_redis_is_found(lab: Lab, given: dict[str, str], found: dict[str, str]) -> None:
    """The add-on's URL is coord's and RQ's, unless they have one of their own; only Heroku's certificate is excused."""
    said = lab.call(
        "-i", f"PATH={os.environ['PATH']}", *(f"{name}={value}" for name, value in given.items()),
        "sh", "compose/platform.sh", "env", program="env",
    ).out  # fmt: skip
    variables = dict(line.split("=", 1) for line in said.splitlines())
    assert {name: variables.get(name) for name in found} == found
    assert ("COORD_REDIS_URL" in variables) == bool(given)


def test_app_json_fits_the_procfile() -> None:
    """Heroku starts what app.json counts: process types, all but the release, and one clock."""
    app: Any = json.loads((ROOT / "compose/heroku/app.json").read_text())
    types = set(re.findall(r"^(\w+):", (ROOT / "Procfile").read_text(), re.MULTILINE))
    assert types - app["formation"].keys() == {"release"}
    assert app["formation"].keys() <= types
    assert app["formation"]["clock"]["quantity"] == 1
    known = {"name", "description", "keywords", "addons", "buildpacks", "env", "formation"}
    assert app.keys() <= known, "what Heroku does not know, it refuses"
    assert all(each.keys() <= {"description", "value", "required"} for each in app["env"].values())
    code = "\n".join(path.read_text() for path in [*ROOT.glob("compose/*.sh"), *ROOT.glob("compose/pipeline/*.py")])
    assert all(name in code for name in app["env"]), "a setting that nobody reads"
