"""The Python API of the control side, blocking and asyncio: the same calls against the same real jobs."""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

import coord
from coord import AsyncCoordinator, Coordinator, Verdict
from coord.errors import NoSuchJobError, UnreachableError, UsageError
from coord.messages import Outcome
from coord.settings import user_name
from tests.harness import NASTY, leftovers_in, until
from tests.record.desk import PLAN, Desk
from tests.record.servers import free_port, raw, serving

if TYPE_CHECKING:
    from coord import Event, Snapshot
    from tests.harness import Lab, Started

BY = "ada@desk"
END_S = 60.0  # by then a call that nobody ends has ended by itself, or never will


class Both:
    """The blocking calls of a coordinator, made through either kind of it."""

    def __init__(self, url: str, kind: str) -> None:
        self._url = url
        self._kind = kind

    def __call__(self, name: str, *args: Any, **words: Any) -> Any:
        """Open one, make one call, close it; `follow` gives the list of what it gave."""
        if self._kind == "async":
            return asyncio.run(self._awaited(name, *args, **words))
        with Coordinator(self._url, by=BY) as coordinator:
            found = getattr(coordinator, name)(*args, **words)
            return list(found) if name == "follow" else found

    async def _awaited(self, name: str, *args: Any, **words: Any) -> Any:
        async with AsyncCoordinator(self._url, by=BY) as coordinator:
            found = getattr(coordinator, name)(*args, **words)
            return [item async for item in found] if name == "follow" else await found


@pytest.fixture(params=["blocking", "async"])
def call(request: pytest.FixtureRequest, server: str) -> Both:
    """Makes a call through a coordinator of each kind."""
    return Both(server, request.param)


def deaf(lab: Lab, job: str) -> Started:
    """Start a command that holds out, and has come so far that it does."""
    run = lab.run(job, sys.executable, NASTY, "deaf", "")
    assert run.popen.stdout
    assert run.popen.stdout.readline() == b"ready\n"
    return run


# -- a shutdown --------------------------------------------------------------------------------------------------------


def test_request_and_follow_to_a_clean_verdict(lab: Lab, job: str, call: Both) -> None:
    """A program stops a job on two hosts, sees what happens, and gets the verdict with proof from both."""
    runs = [lab.run(job, "sleep", "600", host=host) for host in "ab"]
    answer = call("request", job, reason="new data", grace_s=30)
    assert (answer.word, answer.request.by, answer.request.reason) == ("created", BY, "new data")
    assert answer.request.plan.kill_at_s == 30
    rounds: list[tuple[Snapshot, list[Event]]] = call("follow", job, timeout_s=END_S)
    kinds = [event.kind for _, events in rounds for event in events]
    assert (kinds[0], kinds[-1], kinds.count("agent.stopped")) == ("shutdown.requested", "job.verdict", 2)
    last = rounds[-1][0]
    assert (last.verdict, last.exit_code, last.state) == (Verdict.CLEAN, 0, "stopped")
    assert [agent.info.host for agent in last.agents] == ["a", "b"]
    assert {agent.report.proof for agent in last.agents} <= {"cgroup", "subreaper"}
    assert coord.job_document(last) == lab.status(job)
    assert json.loads(json.dumps(coord.job_document(last)))["verdict"] == "clean"
    assert [run.end().code for run in runs] == [143, 143]


def test_now_kills_what_would_hold_out(lab: Lab, job: str, call: Both) -> None:
    """`now` does not ask: who ignores SIGTERM is gone at once, and the verdict says how."""
    run = deaf(lab, job)
    assert call("request", job, now=True).request.plan.kill_at_s == 0
    assert call("follow", job)[-1][0].verdict == "forced"
    assert run.end().code == 137


def test_second_request_can_only_hurry(lab: Lab, job: str, call: Both) -> None:
    """Whoever asks again gets the request that holds; less grace shortens it, more changes nothing."""
    run = deaf(lab, job)
    first = call("request", job, grace_s=600)
    assert (first.word, call("request", job, grace_s=1200).word) == ("created", "exists")
    hurried = call("request", job, grace_s=0.5, kill_wait_s=3, reason="hurry\nup")
    assert (hurried.word, hurried.request.id, hurried.request.plan.kill_wait_s) == ("shortened", first.request.id, 3)
    *_, (last, _) = rounds = call("follow", job)
    assert (last.verdict, last.count(Outcome.KILLED)) == ("forced", 1)
    told = [event.detail for _, events in rounds for event in events if event.kind == "shutdown.shortened"]
    assert [(detail["by"], detail["reason"]) for detail in told] == [(BY, "hurry up")]
    assert call("request", job, now=True).word == "exists"
    assert run.end().code == 137


def test_follow_ends_with_its_timeout(lab: Lab, job: str, call: Both) -> None:
    """A follower who has waited long enough gets the job as it is, without a verdict; the shutdown goes on."""
    run = deaf(lab, job)
    call("request", job, grace_s=600)
    rounds = call("follow", job, timeout_s=0.2)
    assert rounds
    assert (rounds[-1][0].verdict, rounds[-1][0].exit_code) == (None, 6)
    assert run.running
    call("request", job, now=True)
    assert run.end().code == 137


def test_status_and_list_of_jobs(lab: Lab, job: str, call: Both) -> None:
    """A job that runs can be looked at and found in the list, and looking changes nothing."""
    run = lab.run(job, "sleep", "600", host="a")
    snapshot = call("status", job)
    assert (snapshot.state, snapshot.verdict, len(snapshot.agents)) == ("running", None, 1)
    assert job in [found.job_id for found in call("jobs")]
    assert [found.job_id for found in call("jobs", 0, 1)] == [job]
    assert call("jobs", 100_000) == []
    call("request", job)
    assert run.end().code == 143


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["request", "status", "follow"])
def test_unknown_job(lab: Lab, job: str, call: Both, name: str) -> None:
    """A job that nobody ever joined is an error of its own, and asking for it leaves nothing in the record."""
    with pytest.raises(NoSuchJobError, match="nobody ever joined") as caught:
        call(name, job)
    assert caught.value.exit_code == 3
    assert lab.status(job) is None
    assert job not in [found.job_id for found in call("jobs")]


def test_unknown_job_can_be_forbidden(lab: Lab, job: str, call: Both) -> None:
    """`fence_unknown` forbids a job in advance: it has its verdict at once, and a run of it is refused."""
    assert call("request", job, reason="moved", fence_unknown=True).word == "created"
    assert call("follow", job)[-1][0].verdict == "clean"
    assert job in [found.job_id for found in call("jobs")]
    ended = lab.call("run", "--job-id", job, "--", "true")
    assert ended.code == 7
    assert "moved" in ended.said[0]


@pytest.mark.parametrize("kind", ["blocking", "async"])
@pytest.mark.parametrize("name", ["request", "status", "follow", "jobs"])
def test_server_that_is_not_there(job: str, kind: str, name: str) -> None:
    """Where nobody listens, each call says so, and names the address."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    with pytest.raises(UnreachableError, match="not reachable") as caught:
        Both(url, kind)(name, *([job] if name != "jobs" else []))
    assert (url in caught.value.message, caught.value.exit_code) == (True, 4)


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_server_that_goes_away(job: str, kind: str) -> None:
    """A follower whose server stays away is told so; when it is back, following again goes on where the job is."""
    with TemporaryDirectory(prefix="coord-") as name, ThreadPoolExecutor(1) as thread:
        call = Both(f"unix://{name}/server.sock", kind)
        with serving("valkey", Path(name)) as url, raw(url) as client, Coordinator(url) as coordinator:
            Desk(coordinator._ledger, job, client).join("a", PLAN)
            coordinator.request(job)
            following = thread.submit(call, "follow", job, timeout_s=3)
            until(lambda: "xread" in [each["cmd"] for each in client.client_list()], "the follower to wait")
        assert isinstance(following.exception(END_S), UnreachableError)
        with serving("valkey", Path(name), appendonly="yes") as url, Coordinator(url) as coordinator:
            coordinator.request(job, fence_unknown=True)
            assert call("follow", job)[-1][0].verdict == "clean"


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("request", {"job_id": "a{b"}, "brace"),
        ("status", {"job_id": ""}, "empty"),
        ("follow", {"job_id": "a b "}, "spaces"),
        ("request", {"job_id": "J", "now": True, "grace_s": 1}, "different things"),
        ("request", {"job_id": "J", "grace_s": -1}, "a wait is"),
        ("request", {"job_id": "J", "grace_s": float("nan")}, "a wait is"),
        ("request", {"job_id": "J", "kill_wait_s": 0}, "SIGKILL"),
    ],
)
def test_words_that_are_off(lab: Lab, call: Both, name: str, words: dict[str, Any], says: str) -> None:
    """An argument that can't be is refused before Redis is asked, with the line that the command would print."""
    with pytest.raises(UsageError, match=says) as caught:
        call(name, **words)
    assert caught.value.exit_code == 2
    assert lab.status("J") is None


@pytest.mark.parametrize("kind", [Coordinator, AsyncCoordinator])
def test_settings_that_are_off(kind: type[Coordinator | AsyncCoordinator], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says is checked as the command checks it, and the error names the variable."""
    for seconds in (59, 8 * 24 * 3600, float("nan")):
        with pytest.raises(UsageError, match="the record is kept for at"):
            kind("unix:///nowhere", retain_s=seconds)
    for name, value in (("COORD_RETAIN", "1s"), ("COORD_RETAIN", "long"), ("COORD_HOST", "a b")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(UsageError, match=name):
                kind("unix:///nowhere")


# -- where it asks, and as whom ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_without_a_url_it_is_the_users_own_server(
    lab: Lab, job: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No URL anywhere: the embedded server is started, and the commands of this user see the same record."""
    with TemporaryDirectory(prefix="coord-") as folder:
        monkeypatch.setenv("COORD_RUNTIME_DIR", folder)
        monkeypatch.setenv("COORD_EMBEDDED_IDLE_S", "1")
        monkeypatch.delenv("COORD_REDIS_URL", raising=False)
        call = Both("", kind)
        assert call("request", job, fence_unknown=True).word == "created"
        own = {"COORD_REDIS_URL": "", "COORD_RUNTIME_DIR": folder, "COORD_EMBEDDED_IDLE_S": "1"}
        ended = lab.call("status", "--job-id", job, "--json", **own)
        assert (ended.code, ended.json) == (0, coord.job_document(call("status", job)))
        until(lambda: not leftovers_in(folder), "the embedded server to go by itself")
    assert lab.status(job) is None


def test_the_environment_says_where_and_as_whom(server: str, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program does not say is taken from the variables that the command reads."""
    monkeypatch.setenv("COORD_REDIS_URL", server)
    monkeypatch.setenv("COORD_HOST", "tower")
    monkeypatch.setenv("COORD_RETAIN", "2m")
    with Coordinator() as coordinator, raw(server) as client:
        assert coordinator.request(job, fence_unknown=True).request.by == f"{user_name()}@tower"
        assert 60 < client.ttl(f"coord:{{{job}}}:job") <= 120


# -- many at once ------------------------------------------------------------------------------------------------------


def test_two_coordinators_at_once(lab: Lab, job: str, server: str) -> None:
    """Two programs that stop the same job at the same time make one shutdown, and both see its verdict."""
    run, ready = lab.run(job, "sleep", "600"), Barrier(2)

    def program(number: int) -> tuple[str, str, str | None]:
        with Coordinator(server, by=f"program{number}@desk") as coordinator:
            coordinator.status(job)  # connected
            ready.wait(END_S)
            answer = coordinator.request(job)
            *_, (last, _) = coordinator.follow(job)
            return answer.word, answer.request.id, last.verdict

    with ThreadPoolExecutor(2) as threads:
        words, ids, verdicts = zip(*threads.map(program, range(2)), strict=True)
    assert (sorted(words), len(set(ids)), verdicts) == (["created", "exists"], 1, ("clean", "clean"))
    assert run.end().code == 143


def test_threads_may_share_one(lab: Lab, job: str, server: str) -> None:
    """Threads that follow through one coordinator don't get each other's answers."""
    jobs = [f"{job}-{number}" for number in range(4)]
    runs = [lab.run(name, "sleep", "600") for name in jobs]
    with Coordinator(server) as coordinator, ThreadPoolExecutor(len(jobs)) as threads:
        following = [threads.submit(list, coordinator.follow(name)) for name in jobs]
        for name in jobs:
            coordinator.request(name)
        ends = [each.result(END_S)[-1][0] for each in following]
    assert [(end.job_id, end.verdict) for end in ends] == [(name, "clean") for name in jobs]
    assert [run.end().code for run in runs] == [143] * len(jobs)


def test_a_follower_may_break_off(lab: Lab, job: str, server: str) -> None:
    """Who leaves the loop early goes on with the same coordinator."""
    run = lab.run(job, "sleep", "600")
    with Coordinator(server) as coordinator:
        for snapshot, _ in coordinator.follow(job):
            assert snapshot.state == "running"
            break
        coordinator.request(job)
        assert [*coordinator.follow(job)][-1][0].verdict == "clean"
    assert run.end().code == 143
