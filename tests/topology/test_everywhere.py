"""Every command and the Python API keep their record in a Sentinel's service or a Cluster; RQ itself does not."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from rq import Queue

from coord import AsyncCoordinator, Coordinator
from coord.errors import UNREACHABLE, USAGE, UnreachableError
from coord.rq import enqueue
from tests.cli.words import complaint
from tests.harness import until
from tests.record.servers import free_port, serving
from tests.topology.servers import watched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.topology.conftest import LabAt
    from tests.topology.servers import Cluster, Park, Watched

SECRET = "sesame-17"  # noqa: S105  # of servers that live for one test
SCOPE = """
from workers import JobScope
if __name__ == "__main__":
    with JobScope({job!r}) as scope:
        scope.popen(["true"]).wait()
    print("left")
"""


@pytest.fixture(params=["sentinel", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """A URL of each kind."""
    kind = {"sentinel": "service", "cluster": "six"}[request.param]
    found: Watched | Cluster = request.getfixturevalue(kind)
    return found.url


def test_the_commands(url: str, lab_at: LabAt, job: str, tmp_path: Path) -> None:
    """Each does there what it does elsewhere; what runs in the job is given the same URL."""
    note = tmp_path / "url"
    with lab_at(url) as lab:
        run = lab.run(job, "sh", "-c", f'printf %s "$COORD_REDIS_URL" > {note}; exec sleep 600')
        assert until(lambda: note.exists() and note.read_text() == url, "the child's URL")
        assert lab.call("status", "--job-id", job, "--json").json["state"] == "running"
        assert job in [each["job_id"] for each in lab.call("jobs", "--json").json["jobs"]]
        assert job in lab.call("agents").out
        assert "nothing was changed" in lab.call("shutdown", "--job-id", job, "--dry-run").err
        assert lab.call("shutdown", "--job-id", job).code == 0
        assert run.end().code == 143
        assert lab.call("run", "--job-id", job, "--", "true").code == 7
        assert lab.call("shutdown", "--job-id", f"{job}-2", "--fence").code == 0
        assert lab.call("shutdown", "--job-id", f"{job}-3").code == 3


def test_a_failure_stops_the_other_host(url: str, lab_at: LabAt, job: str) -> None:
    """Fail-fast goes through it, too."""
    with lab_at(url) as lab:
        other = lab.run(job, "sleep", "600", host="b")
        assert lab.start("run", "--job-id", job, "--", "false", host="a").end().code == 1
        assert other.end().code == 143


async def test_the_python_api(url: str, lab_at: LabAt, job: str) -> None:
    """Coordinators of both kinds, and a scope."""
    with lab_at(url) as lab:
        run = lab.run(job, "sleep", "600")
        with Coordinator(url, min_replicas=1) as coordinator:
            made = coordinator.request(job)
            assert (made.word, made.copies) == ("created", 1)
            *_, (snapshot, _) = coordinator.follow(job)
        assert snapshot.verdict == "clean"
        run.end()
        async with AsyncCoordinator(url, min_replicas=1) as waiting:
            assert (await waiting.request(job)).copies == 1
            assert (await waiting.status(job)).verdict == "clean"
            assert job in [each.job_id for each in await waiting.jobs()]
        program = SCOPE.format(job=f"{job}-scope")
        ended = lab.call("-c", program, program=sys.executable)
        assert ended.out == "left\n", ended.err


def test_rq_workers_record_their_jobs_there(url: str, lab_at: LabAt, tmp_path: Path) -> None:
    """`coord worker` works queues of RQ's own server, and keeps its record where it was told."""
    with serving("redis", tmp_path) as rq_url, lab_at(url) as lab:
        worker = lab.start("worker", "--burst", "--url", rq_url, "--name", "host", "-n", "1")
        ended = worker.end(60)
        assert ended.code == 0, ended.err
        assert any(each["job_id"].startswith("host-") for each in lab.call("jobs", "--json").json["jobs"])


def test_rq_jobs_are_stopped(url: str, lab_at: LabAt, job: str, tmp_path: Path) -> None:
    """RQ jobs that belong to a job are stopped and cancelled; each side finds the other's server by its own URL."""
    with serving("redis", tmp_path) as rq_url, lab_at(url) as lab, Redis.from_url(rq_url) as connection:
        queue = Queue("high", connection=connection)
        running, waiting = (enqueue(queue, time.sleep, 600, job_id=job, record_url=url) for _ in range(2))
        worker = lab.start("worker", "high", "--url", rq_url)
        until(lambda: running.get_status() == "started", "the first one to run")
        ended = lab.call("shutdown", "--job-id", job, "--rq-url", rq_url, "--json")
        worker.signal(signal.SIGTERM)
        assert worker.end(60).code == 0
        assert ended.code == 0, ended.err
        assert (ended.json["rq"]["canceled"], ended.json["rq"]["stopped"]) == (1, 1)
        assert waiting.get_status() == "canceled"


def test_rq_itself_is_refused(url: str, lab_at: LabAt) -> None:
    """RQ speaks to one server: a URL of more is refused before anything is started, with what to give instead."""
    with lab_at(url) as lab:
        calls = (
            ("worker", "--url", url),
            ("worker",),
            ("shutdown", "--job-id", "J", "--rq-url", url),
        )
        for args in calls:
            line = complaint(lab.call(*args), USAGE)
            assert "RQ speaks to one server" in line
        assert "RQ speaks to one server" in complaint(lab.call("shutdown", "--job-id", "J", RQ_REDIS_URL=url), USAGE)


@pytest.mark.parametrize("form", ["redis+sentinel://:{}@127.0.0.1:{}/mine", "redis+cluster://:{}@127.0.0.1:{}"])
def test_nobody_answers(lab_at: LabAt, form: str) -> None:
    """Where not one sentinel or node answers, nobody is waited for: one line, exit code 4, no password."""
    with lab_at("unix:///nowhere") as lab:
        for args in (("status",), ("shutdown", "--job-id", "J"), ("run", "--job-id", "J", "--", "true"), ("jobs",)):
            url = form.format(SECRET, free_port())
            line = complaint(lab.call(*args, COORD_REDIS_URL=url), UNREACHABLE)
            assert "none of its" in line
            assert SECRET not in line
    with pytest.raises(UnreachableError), Coordinator(form.format(SECRET, free_port())) as coordinator:
        coordinator.jobs()


def test_wrong_words(servers: Park, lab_at: LabAt, job: str) -> None:
    """A wrong password, a wrong service, or sentinels in the place of nodes: one line each, without any password."""
    service = watched(servers, password=SECRET)
    sentinel, node = service.sentinels[0].place, service.primary.place
    cases = [
        (service.url.replace(SECRET, "wrong-one"), UNREACHABLE, "refused the password"),
        (service.url.replace(f":{SECRET}@", ""), UNREACHABLE, "wants a password"),
        (service.url.replace("/mine/", "/yours/"), USAGE, "watch no service 'yours'"),
        (f"redis+cluster://:{SECRET}@{node}", UNREACHABLE, "is no Cluster"),
        (f"redis+sentinel://:{SECRET}@{node}/mine", UNREACHABLE, "sentinel wants a password"),
        (f"redis+sentinel://{node}/mine?sentinel_password={SECRET}", UNREACHABLE, "unknown command 'SENTINEL'"),
        (f"redis+cluster://{sentinel}", UNREACHABLE, "is no Cluster"),
        (f"redis://{sentinel}", UNREACHABLE, "redis+sentinel://"),
    ]
    with lab_at(service.url) as lab:
        for url, code, says in cases:
            line = complaint(lab.call("status", "--job-id", job, COORD_REDIS_URL=url), code)
            assert says in line
            assert SECRET not in line
            assert "wrong-one" not in line
        ended = lab.call("run", "--job-id", job, "--", "sh", "-c", "exit 0")
        assert ended.code == 0, ended.err
        assert SECRET not in ended.err


def test_doctor_knows_a_service(servers: Park, lab_at: LabAt) -> None:
    """It tells who watches what; warns when one sentinel is gone, and fails when no failover can be agreed on."""
    service = watched(servers)
    with lab_at(service.url) as lab:
        finding = findings(lab.call("doctor", "--json").json)["topology"]
        assert finding["status"] == "ok", finding
        assert "3 sentinels" in finding["found"]
        assert service.primary.place in finding["found"]
        service.sentinels[2].kill()
        finding = findings(lab.call("doctor", "--json").json)["topology"]
        assert (finding["status"], service.sentinels[2].place in finding["found"]) == ("warn", True)
        service.sentinels[1].kill()
        finding = findings(lab.call("doctor", "--json").json)["topology"]
        assert finding["status"] == "fail"
        assert "too few for a failover" in finding["found"]


def test_doctor_knows_a_service_that_has_nobody_else(servers: Park, lab_at: LabAt) -> None:
    """A primary whose replica is gone is a danger that is said."""
    service = watched(servers)
    service.replica.kill()
    service.sentinels[0].ask("SENTINEL", "RESET", "mine")
    with lab_at(service.url) as lab:
        until(
            lambda: findings(lab.call("doctor", "--json").json)["topology"]["status"] == "warn",
            "the missing replica to be seen",
        )


def test_doctor_knows_a_cluster(six: Cluster, lab_at: LabAt) -> None:
    """It counts nodes and slots, asks each node for its settings, and says which ones endanger the record."""
    with lab_at(six.url) as lab:
        found = findings(lab.call("doctor", "--json").json)
        assert found["topology"]["status"] == "ok", found["topology"]
        assert "16,384 of 16,384 slots" in found["topology"]["found"]
        assert (found["record"]["status"], found["channel"]["status"]) == ("ok", "ok")
        primary = next(node for node in six.nodes if node.ask("ROLE")[0] == "master")
        primary.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        eviction = findings(lab.call("doctor", "--json").json)["eviction"]
        primary.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        assert (eviction["status"], primary.place in eviction["found"]) == ("warn", True)


def findings(document: object) -> dict[str, dict[str, str]]:
    """Give them by name."""
    listed = json.loads(json.dumps(document))["findings"]
    return {finding["name"]: finding for finding in listed}
