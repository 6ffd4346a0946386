"""The JSON documents, field by field: others program against them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import until

if TYPE_CHECKING:
    from tests.harness import Lab, Started

MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
NUMBER = (int, float)
NULL = type(None)

# Each field of the public contract in DESIGN.md, and the types that it may have.
JOB: dict[str, Any] = {
    "schema": int,
    "job_id": str,
    "state": str,
    "verdict": (str, NULL),
    "request": (dict, NULL),
    "first_failure": (dict, NULL),
    "agents": list,
    "rq": dict,
}
REQUEST: dict[str, Any] = {"id": str, "cause": str, "by": str, "reason": str, "requested_at": str, "plan": list}
STEP: dict[str, Any] = {"signal": str, "wait_s": NUMBER}
FAILURE: dict[str, Any] = {
    "agent_id": str,
    "host": str,
    "label": str,
    "pid": int,
    "exit_code": (int, NULL),
    "signal": (str, NULL),
    "at": str,
    "stderr_tail": list,
}
AGENT: dict[str, Any] = {
    "agent_id": str,
    "host": str,
    "state": str,
    "proof": (str, NULL),
    "first_signal_ms": (*NUMBER, NULL),
    "all_gone_ms": (*NUMBER, NULL),
    "processes": list,
    "last_heard_s": (*NUMBER, NULL),
}
PROCESS: dict[str, Any] = {
    "pid": int,
    "label": str,
    "command": str,
    "outcome": str,
    "exit_code": (int, NULL),
    "signal": (str, NULL),
    "took_s": (*NUMBER, NULL),
}
RQ: dict[str, Any] = {"canceled": int, "stopped": int, "requeued": int}


def has(document: Any, fields: dict[str, Any]) -> None:
    """Every field of the contract is there and of its type; there may be newer ones."""
    assert isinstance(document, dict)
    for name, kinds in fields.items():
        assert name in document
        assert isinstance(document[name], kinds), f"{name}: {document[name]!r}"
        assert not (isinstance(document[name], bool) and kinds is not bool), name


def holds(document: Any) -> None:
    """The whole document keeps the contract."""
    has(document, JOB)
    has(document["rq"], RQ)
    assert document["schema"] == 1
    assert document["state"] in {"running", "stopping", "stopped"}
    assert document["verdict"] in {"clean", "forced", "incomplete", None}
    if request := document["request"]:
        has(request, REQUEST)
        assert request["cause"] in {"operator", "failure", "host-lost", "drain"}
        assert re.fullmatch(MOMENT, request["requested_at"])
        for step in request["plan"]:
            has(step, STEP)
    if failure := document["first_failure"]:
        has(failure, FAILURE)
        assert re.fullmatch(MOMENT, failure["at"])
        assert (failure["exit_code"] is None) != (failure["signal"] is None)
    for agent in document["agents"]:
        _agent_holds(agent)


def _agent_holds(agent: Any) -> None:
    has(agent, AGENT)
    assert agent["state"] in {"running", "stopping", "stopped", "lost"}
    assert agent["proof"] in {"cgroup", "subreaper", None}
    for process in agent["processes"]:
        has(process, PROCESS)
        assert process["outcome"] in {"running", "exited", "terminated", "killed", "survived"}


def test_document_of_a_job_that_runs(lab: Lab, job: str) -> None:
    """A job that runs has no request, no verdict and no failure, and shows its command as running."""
    started = lab.run(job, "sleep", "60", options=("--label", "rank3"))
    document = lab.call("status", "--job-id", job, "--json").json
    holds(document)
    assert (document["job_id"], document["state"]) == (job, "running")
    assert (document["verdict"], document["request"], document["first_failure"]) == (None, None, None)
    (agent,) = document["agents"]
    assert (agent["host"], agent["state"], agent["proof"]) == ("here", "running", None)
    assert (agent["first_signal_ms"], agent["all_gone_ms"]) == (None, None)
    (process,) = agent["processes"]
    assert (process["label"], process["command"], process["outcome"]) == ("rank3", "sleep 60", "running")
    assert (process["exit_code"], process["took_s"]) == (None, None)
    started.popen.terminate()
    started.end()


def test_document_of_a_job_that_was_shut_down(lab: Lab, job: str) -> None:
    """A shutdown's own document says who, why, when and how, and what became of each process."""
    started = lab.run(job, "sleep", "60")
    ended = lab.call(
        "shutdown", "--job-id", job, "--reason", "wrong data", "--grace", "7s", "--kill-wait", "3s", "--json"
    )
    document = ended.json
    holds(document)
    assert started.end().code == 143
    assert (ended.code, document["state"], document["verdict"]) == (0, "stopped", "clean")
    request = document["request"]
    assert (request["cause"], request["reason"]) == ("operator", "wrong data")
    assert request["by"].endswith("@there")
    assert request["plan"] == [{"signal": "SIGTERM", "wait_s": 7.0}, {"signal": "SIGKILL", "wait_s": 3.0}]
    (agent,) = document["agents"]
    assert (agent["state"], agent["proof"] is None) == ("stopped", False)
    assert 0 <= agent["first_signal_ms"] <= agent["all_gone_ms"] < 7000
    (process,) = agent["processes"]
    assert (process["outcome"], process["signal"], process["exit_code"]) == ("terminated", "SIGTERM", None)
    assert 0 <= process["took_s"] < 7
    assert lab.call("status", "--job-id", job, "--json").json == document


def test_document_of_a_job_that_failed(lab: Lab, job: str) -> None:
    """A failure's document names the first failure with its code and last words; both hosts are in it, in order."""
    other = lab.run(job, "sleep", "60", host="a")
    lab.run(job, "sh", "-c", "echo it broke >&2; exit 7", host="b", options=("--label", "rank3")).end()
    other.end()
    until(lambda: lab.status(job)["verdict"], "the verdict")
    document = lab.call("status", "--job-id", job, "--json").json
    holds(document)
    failure = document["first_failure"]
    assert (failure["host"], failure["label"], failure["exit_code"], failure["signal"]) == ("b", "rank3", 7, None)
    assert failure["stderr_tail"] == ["it broke"]
    assert (document["request"]["cause"], document["verdict"]) == ("failure", "clean")
    assert [agent["host"] for agent in document["agents"]] == ["a", "b"]
    assert failure["agent_id"] == document["agents"][1]["agent_id"]
    (process,) = document["agents"][1]["processes"]
    assert (process["outcome"], process["exit_code"], process["signal"]) == ("exited", 7, None)


def test_document_of_a_job_that_had_to_be_killed(lab: Lab, job: str, hold_out: Started) -> None:
    """What held out is `killed`, the verdict `forced`, and the job is as gone as with any other."""
    ended = lab.call("shutdown", "--job-id", job, "--grace", "200ms", "--json")
    assert hold_out.end().code == 137
    holds(ended.json)
    assert (ended.code, ended.json["verdict"], ended.json["state"]) == (0, "forced", "stopped")
    child = next(one for one in ended.json["agents"][0]["processes"] if one["label"] == "sh")
    assert (child["outcome"], child["signal"], child["exit_code"]) == ("killed", "SIGKILL", None)
    assert child["took_s"] >= 0.2


def test_document_of_a_job_that_goes_on(lab: Lab, job: str, hold_out: Started) -> None:
    """When `--timeout` ends first, the document says `stopping` without a verdict, and the code is 6."""
    ended = lab.call("shutdown", "--job-id", job, "--grace", "60s", "--timeout", "300ms", "--json")
    holds(ended.json)
    assert (ended.code, ended.json["state"], ended.json["verdict"]) == (6, "stopping", None)
    lab.call("shutdown", "--job-id", job, "--now")
    hold_out.end()


def test_document_of_a_job_that_was_forbidden(lab: Lab, job: str) -> None:
    """A job that was fenced before anybody joined it is stopped and clean, with nobody in it."""
    document = lab.call("shutdown", "--job-id", job, "--fence", "--json").json
    holds(document)
    assert (document["state"], document["verdict"], document["agents"]) == ("stopped", "clean", [])


def test_documents_of_lists(lab: Lab, job: str) -> None:
    """`jobs`, `status` without a job, and `agents` print one document each, with the same words for the same things."""
    started = lab.run(job, "sleep", "60", options=("--label", "rank3"))
    jobs = lab.call("jobs", "--json").json
    (mine,) = (one for one in jobs["jobs"] if one["job_id"] == job)
    assert (jobs["schema"], mine["state"], mine["verdict"], mine["agents"], mine["hosts"]) == (
        1,
        "running",
        None,
        1,
        ["here"],
    )
    assert re.fullmatch(MOMENT, mine["created_at"])
    assert mine in lab.call("status", "--json").json["jobs"]
    agents = lab.call("agents", "--job-id", job, "--json").json
    (agent,) = agents["agents"]
    _agent_holds(agent)
    assert (agents["schema"], agent["job_id"], agent["label"], agent["command"]) == (1, job, "rank3", "sleep 60")
    listed = [{**each, "last_heard_s": None} for each in lab.call("agents", "--json").json["agents"]]
    assert {**agent, "last_heard_s": None} in listed
    started.popen.terminate()
    started.end()
    assert lab.call("agents", "--job-id", job, "--json").json == {"schema": 1, "agents": []}


@pytest.mark.parametrize("text", ["ünï ✓ 🦀", '"quoted" \\ and </script>', "'; drop"])
def test_documents_keep_texts(lab: Lab, job: str, text: str) -> None:
    """A text comes out of the document as it went in: one line of JSON, whatever is in it."""
    lab.call("run", "--job-id", job, "--label", text, "--", "echo", text)
    ended = lab.call("shutdown", "--job-id", job, "--reason", text, "--json")
    assert ended.json["request"]["reason"] == text
    assert ended.json["agents"][0]["processes"][0]["label"] == text
    assert len(ended.out.splitlines()) == 1
    assert json.loads(ended.out) == ended.json
