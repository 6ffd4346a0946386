"""The processes that speak RQ for an agent, and for one that died. Promises: our own death is safe, truthful."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from coord.errors import OK, UNREACHABLE
from coord.messages import AgentInfo
from coord.plan import Plan
from coord.record import Record
from coord.rq.where import WORKERS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rqjobs.yard import Yard

AGENT = AgentInfo("a-1-x", "a", "coord worker", 1, "coord worker high")
END_S = 60.0


def said(module: str, what: dict[str, Any], folder: Path | None = None) -> tuple[int, str]:
    """Run one of them; gives its exit code and what it answered."""
    ended = subprocess.run(
        [sys.executable, "-P", "-m", module],
        input=json.dumps(what),
        capture_output=True,
        text=True,
        check=False,
        timeout=END_S,
        cwd=folder,
    )
    return ended.returncode, ended.stdout


def test_clerk_sweeps(yard: Yard) -> None:
    """The clerk claims, cancels and answers with one line of JSON; a second one finds nothing to do."""
    yard.put_many(7)
    yard.stop()
    what = {"do": "sweep", "job_id": yard.x, "record_url": yard.url, "rq_url": yard.url, "config": None, "who": "a-1"}
    code, line = said("workers.rq_clerk", what | {"until_s": time.monotonic() + END_S})
    assert code == OK
    assert json.loads(line) == {"word": "swept", "canceled": 7, "stopped": 0, "unproved": []}
    code, line = said("workers.rq_clerk", what)
    assert (code, json.loads(line)["word"]) == (OK, "none")


def test_clerk_settles(yard: Yard) -> None:
    """The clerk settles the workers that it is told, and counts it for the host's own job."""
    job = yard.put()
    yard.ledger.run(Record(AGENT.agent_id).join(AGENT, Plan.of()))
    yard.worker("a-1-x-1").run()
    what = {"do": "settle", "workers": ["a-1-x-1"], "rq_url": yard.url, "config": None, "as": "requeued"}
    code, line = said("workers.rq_clerk", what | {"words": "", "record_url": yard.url, "job_id": AGENT.agent_id})
    assert (code, json.loads(line)["requeued"]) == (OK, 1)
    assert yard.queue.get_job_ids() == [job.id]
    assert yard.coordinator.status(AGENT.agent_id).rq.requeued == 1


def test_clerk_finds_rq_by_a_settings_module(yard: Yard, tmp_path: Path) -> None:
    """A settings module of the user's project says where RQ is; what it prints is not taken for an answer."""
    (tmp_path / "my_settings.py").write_text(f"REDIS_URL = {yard.url!r}\nprint('hello')\n")
    yard.worker("a-1-x-1")
    what = {"do": "settle", "prefix": "a-1-x-", "rq_url": None, "config": "my_settings", "paths": ["."]}
    code, line = said("workers.rq_clerk", what | {"as": "requeued", "words": "", "record_url": None}, tmp_path)
    assert (code, json.loads(line)["workers"]) == (OK, 1)


@pytest.mark.parametrize("config", [None, "no_such_module"])
def test_clerk_says_what_is_wrong(yard: Yard, config: str | None) -> None:
    """Where RQ can't be found, the clerk answers with the error and its exit code."""
    what = {"do": "settle", "workers": ["w"], "as": "failed", "words": "", "record_url": yard.url, "config": config}
    code, line = said("workers.rq_clerk", what | {"rq_url": None if config else "unix:///no/such.sock"})
    answer = json.loads(line)
    assert answer["exit_code"] == code
    assert config or code == UNREACHABLE
    assert (config or "/no/such.sock") in answer["error"]


def told(yard: Yard, proof: str | None, **rq: Any) -> int:
    """Scenario: a guardian has stopped what a dead agent of RQ workers left, and says so; gives the exit code."""
    watch = {
        "redis_url": yard.url,
        "job_id": AGENT.agent_id,
        "agent_id": AGENT.agent_id,
        "host": AGENT.host,
        "label": AGENT.label,
        "pid": AGENT.pid,
        "command": AGENT.command,
        "retain_s": 600,
        "rq": {"rq_url": yard.url, "config": None, "as": "requeued", "prefix": "a-1-x", **rq},
    }
    report: dict[str, Any] = {
        "proof": proof,
        "processes": [],
        "survivors": [],
        "left_behind": [],
        "signal_age_s": 0,
        "gone_age_s": 0,
    }
    return said("workers.obituary", {"watch": watch, "report": report})[0]


@pytest.mark.parametrize(("how", "status"), [("requeued", "queued"), ("failed", "failed")])
def test_obituary_settles_what_a_dead_agent_had(yard: Yard, how: str, status: str) -> None:
    """After an agent's death and the end of all its processes, its RQ jobs are written as its command had said."""
    job = yard.put()
    yard.ledger.run(Record(AGENT.agent_id).join(AGENT, Plan.of()))
    yard.worker("a-1-x-1").run()
    assert told(yard, "subreaper", **{"as": how}) == OK
    assert yard.status(job) == status
    assert yard.redis.scard(WORKERS) == 0
    assert yard.coordinator.status(AGENT.agent_id).agents[0].state == "stopped"


def test_obituary_of_an_estate_finds_rq_where_the_record_is(yard: Yard) -> None:
    """What the next agent of a host finds written down has no URL: RQ is looked for where that agent has the record."""
    job = yard.put()
    yard.worker("a-1-x-1").run()
    assert told(yard, "cgroup", rq_url=None) == OK
    assert yard.status(job) == "queued"


def test_obituary_leaves_what_may_still_run(yard: Yard) -> None:
    """Without proof that the processes are gone, an RQ job is not given to another worker: it would run twice."""
    job = yard.put()
    yard.worker("a-1-x-1").run()
    assert told(yard, None) == OK
    assert yard.status(job) == "started"
    assert yard.queue.count == 0
