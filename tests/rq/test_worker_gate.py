"""A horse is born while its agent is asked: nothing of its job runs, and nothing is written, before the answer."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import until
from tests.rq.agent_end import hosted
from tests.rq.fleet import children, gone

if TYPE_CHECKING:
    from rq.job import Job

    from tests.rq.agent_end import Site

STOPPED = 143


def asked(site: Site) -> tuple[Job, Path, int, int]:
    """Have a job asked for, and its horse at the gate; gives both, where it would say something, and the ticket."""
    site.agent.answer = lambda _asked: None
    path = site.note()
    job = site.queue.enqueue("errands.wait", str(path))
    ticket = site.agent.hear("may")["ticket"]
    (horse,) = until(lambda: children(site.agent.popen.pid), "the horse")
    return job, path, ticket, horse


def waits(horse: int) -> bool:
    """Tell whether it is at the gate: blocked in reading a pipe."""
    return "pipe" in Path(f"/proc/{horse}/wchan").read_text()


def unwritten(site: Site, job: Job) -> bool:
    """Tell whether RQ has nothing of an execution."""
    return site.places(job) == ["hand"] and job.get_status() == "queued" and not job.worker_name


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control"])
def test_nothing_runs_before_the_answer(server: str, tmp_path: Path, *, guarded: bool) -> None:
    """The horse is there, and waits; RQ knows of no execution. Without the gate, the function begins."""
    options = {} if guarded else {"worker_class": "unguarded_workers.Ungated"}
    with hosted(server, tmp_path, options=options) as site:
        job, path, ticket, horse = asked(site)
        if not guarded:
            until(path.exists, "the function to begin")
            return
        until(lambda: waits(horse), "the horse to be at the gate")
        assert unwritten(site, job)
        assert not path.exists()
        site.agent.tell("answer", ticket=ticket, word="go", words="")
        assert site.agent.begun(path)["pid"] == horse


@pytest.mark.parametrize("how", ["fenced", "drain", "SIGTERM", "hang up", "SIGKILL", "SIGTERM to the horse"])
def test_a_horse_that_is_not_to_begin_leaves_no_trace(server: str, tmp_path: Path, how: str) -> None:
    """Refused, or its worker leaves or dies: it is gone, nothing ran, and the job is where it belongs."""
    with hosted(server, tmp_path) as site:
        job, path, ticket, horse = asked(site)
        until(lambda: waits(horse), "the horse to be at the gate")
        match how:
            case "fenced":
                site.agent.tell("answer", ticket=ticket, word="fenced", words="by ann")
            case "drain":
                site.agent.tell("drain")
            case "hang up":
                site.agent.hang_up()
            case "SIGTERM to the horse":
                site.agent.signal(horse)
                until(lambda: gone(horse), "the horse to be gone")
                site.agent.tell("drain")
            case _:
                site.agent.popen.send_signal(signal.Signals[how])
        until(lambda: gone(horse), "the horse to be gone")
        if how == "fenced":
            assert site.agent.hear("written")["status"] == "canceled"
        else:
            site.agent.end()
        assert not path.exists()
        left = {"fenced": ["canceled"], "SIGKILL": ["hand"]}.get(how, [f"queue {site.queue.name}"])
        assert site.places(job) == left
        assert not job.get_executions()


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control"])
def test_a_function_does_not_begin_when_its_stop_was_said(server: str, tmp_path: Path, *, guarded: bool) -> None:
    """The stop file is older than the horse's signals: no signal may follow, since no look has found it."""
    options = {} if guarded else {"worker_class": "unguarded_workers.Blind"}
    with hosted(server, tmp_path, options=options) as site:
        _, path, ticket, _ = asked(site)
        site.agent.host_stop_file.write_text('{"as": "requeued"}')
        site.agent.tell("answer", ticket=ticket, word="go", words="")
        if guarded:
            assert site.agent.hear("ended")["exit_code"] == STOPPED
            assert not path.exists()
        else:
            site.agent.begun(path)


def test_refused_horses_cost_nothing(server: str, tmp_path: Path) -> None:
    """No descriptor and no process is left of them."""
    with hosted(server, tmp_path) as site:

        def refuse(_asked: dict[str, Any]) -> dict[str, Any]:
            return {"word": "fenced", "words": "by ann"}

        site.agent.answer = refuse
        found = []
        for _ in range(3):
            for _ in range(10):
                site.queue.enqueue("errands.add", 1, 2)
                assert site.agent.hear("written")["status"] == "canceled"
            pid = site.agent.popen.pid
            found.append((len(list(Path(f"/proc/{pid}/fd").iterdir())), children(pid)))
        assert found[1] == found[2]
        assert found[2][1] == []
