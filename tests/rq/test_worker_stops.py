"""What becomes of a job that a hosted worker executes, when it is stopped."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.harness import until
from tests.rq.agent_end import hosted

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rq.agent_end import Site


def stop(site: Site, path: Path, outcome: str, number: int = signal.SIGTERM, seconds: float = 20.0) -> str:
    """Stop the job that has begun, in the contract's order; gives the status that was written."""
    forked = site.agent.begun(path)
    site.agent.stop(forked["execution"], outcome, "ann@ops: a test", seconds)
    site.agent.signal(forked["pid"], number)
    assert site.agent.hear("ended", execution=forked["execution"])["childless"]
    site.agent.settle(forked["execution"])
    return str(site.agent.hear("written", execution=forked["execution"])["status"])


def test_a_stopped_job_cleans_up_and_says_who_stopped_it(server: str, tmp_path: Path) -> None:
    """`finally` runs, the job is `stopped`, is not retried, and its Result says who and why."""
    from rq import Retry
    from rq.results import Result

    with hosted(server, tmp_path) as site:
        path = site.note()
        job = site.queue.enqueue("errands.wait", str(path), retry=Retry(3))
        assert stop(site, path, "stopped") == "stopped"
        assert path.read_text().split("\n")[:3] == ["begun", "Stopped", "finally True"]
        assert site.places(job) == ["stopped"]
        result = job.latest_result()
        assert result
        assert result.type is Result.Type.FAILED  # RQ has no other for it
        assert result.exc_string == "ann@ops: a test"
        job.refresh()
        assert job.retries_left == 3
        assert job in site.queue.failed_job_registry
        assert not site.executions(job)
        # and the worker goes on
        site.agent.stop_file.unlink()
        other = site.queue.enqueue("errands.add", 1, 2)
        assert site.agent.hear("written", rq_job=other.id)["status"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_requeued_job_is_first_again_and_no_attempt_counts(server: str, tmp_path: Path, number: int) -> None:
    """It is at the front of its queue, queued, with all its retries, and what it saved of its meta."""
    from rq import Retry

    with hosted(server, tmp_path) as site:
        path = site.note()
        job = site.queue.enqueue("errands.wait", str(path), retry=Retry(2), meta={"own": 1})
        forked = site.agent.begun(path)
        site.agent.answer = lambda _asked: None  # so that it stays where it is put
        behind = site.queue.enqueue("errands.add", 1, 2)
        site.agent.stop(forked["execution"], "requeued")
        site.agent.signal(forked["pid"], number)
        site.agent.hear("ended")
        site.agent.tell("drain")
        site.agent.settle(forked["execution"])
        assert site.agent.hear("written", rq_job=job.id)["status"] == "queued"
        assert site.agent.end() == 0
        assert site.queue.get_job_ids() == [job.id, behind.id]
        assert site.places(job) == [f"queue {site.queue.name}"]
        job.refresh()
        assert (job.get_status().value, job.retries_left, job.meta, job.started_at) == ("queued", 2, {"own": 1}, None)
        assert job.latest_result() is None


def test_a_job_that_the_host_fails_takes_the_way_of_a_failure(server: str, tmp_path: Path) -> None:
    """`failed` is RQ's failure, with the words given: retried where it may be, else final."""
    from rq import Retry

    with hosted(server, tmp_path) as site:
        path = site.note()
        job = site.queue.enqueue("errands.wait", str(path))
        assert stop(site, path, "failed") == "failed"
        result = job.latest_result()
        assert result
        assert result.exc_string == "ann@ops: a test"
        site.agent.stop_file.unlink()
        path = site.note()
        again = site.queue.enqueue("errands.wait", str(path), retry=Retry(1, interval=1000))
        assert stop(site, path, "killed", signal.SIGKILL) == "scheduled"
        assert again.retries_left == 1
        again.refresh()
        assert again.retries_left == 0
        assert not [each for each in site.agent.heard if each["kind"] == "failed"]  # a consequence is no first failure


@pytest.mark.parametrize("errand", ["swallow", "turn", "own_handler", "raises_exit", "sleep"])
def test_what_a_stopped_job_does_with_the_stop_changes_nothing(server: str, tmp_path: Path, errand: str) -> None:
    """One that swallows it, fails for it, or handles the signal itself is `stopped`, too."""
    with hosted(server, tmp_path) as site:
        path = site.note()
        job = site.queue.enqueue(f"errands.{errand}", str(path))
        assert stop(site, path, "stopped") == "stopped"
        assert site.places(job) == ["stopped"]


@pytest.mark.parametrize("errand", ["swallow", "own_handler"])
def test_a_job_that_gets_done_when_its_host_stops_is_done(server: str, tmp_path: Path, errand: str) -> None:
    """Its result counts: it would be a pity to do it twice."""
    with hosted(server, tmp_path) as site:
        path = site.note()
        job = site.queue.enqueue(f"errands.{errand}", str(path))
        assert stop(site, path, "requeued") == "finished"
        assert site.places(job) == ["finished"]
        assert job.return_value() == "whole"


def test_a_horse_that_dies_without_a_reason_takes_rqs_way(server: str, tmp_path: Path) -> None:
    """Nobody asked for it: failed, and the agent hears of it; the worker goes on."""
    with hosted(server, tmp_path) as site:
        path = site.note()
        job = site.queue.enqueue("errands.wait", str(path))
        forked = site.agent.begun(path)
        site.agent.signal(forked["pid"], signal.SIGKILL)
        failed = site.agent.hear("failed")
        assert (failed["rq_job"], failed["signal"], failed["exit_code"]) == (job.id, "SIGKILL", None)
        assert site.agent.hear("written")["status"] == "failed"
        result = job.latest_result()
        assert result
        assert "signal 9" in (result.exc_string or "")


def test_a_failure_is_told_with_its_traceback(server: str, tmp_path: Path) -> None:
    """The agent hears why, and only of what is final."""
    from rq import Retry

    with hosted(server, tmp_path) as site:
        site.queue.enqueue("errands.fail", "no such table", retry=Retry(1))
        first, second = site.agent.hear("forked"), site.agent.hear("forked")
        failed = site.agent.hear("failed")
        assert failed["execution"] == second["execution"] != first["execution"]
        assert failed["lines"][-1] == "ValueError: no such table"
        assert len(failed["lines"]) <= 20


def test_on_stopped_runs_within_what_is_left_of_the_plan(server: str, tmp_path: Path) -> None:
    """The callback is called, and cut off when the plan ends; the job is `stopped` all the same."""
    from rq import Callback

    with hosted(server, tmp_path) as site:
        path = site.note()
        job = site.queue.enqueue("errands.wait", str(path), on_stopped=Callback("errands.on_stopped", timeout=60))
        began_s = time.monotonic()
        assert stop(site, path, "stopped", seconds=1.5) == "stopped"
        assert time.monotonic() - began_s < 30
        assert "on_stopped\n" in path.read_text()
        assert "on_stopped done" not in path.read_text()
        assert site.places(job) == ["stopped"]


@pytest.mark.parametrize(("guarded", "left"), [(True, False), (False, True)])
def test_nothing_is_written_before_the_whole_tree_is_gone(
    server: str, tmp_path: Path, *, guarded: bool, left: bool
) -> None:
    """A daemon that the job left keeps the worker waiting: ECHILD. Without the subreaper, nobody sees it."""
    worker_class = None if guarded else "unguarded_workers.NoSubreaper"
    with hosted(server, tmp_path, options={"worker_class": worker_class}) as site:
        path = site.note()
        site.queue.enqueue("errands.leave_behind", str(path))
        ended = site.agent.hear("ended")
        assert ended["childless"] is left
        from tests.harness import leftovers

        daemons = [pid for pid in leftovers(site.agent.token) if pid != site.agent.popen.pid]
        assert len(daemons) == 1
        if guarded:
            assert not [each for each in site.agent.heard if each["kind"] == "written"]
            site.agent.signal(daemons[0], signal.SIGKILL)
            site.agent.hear("childless", execution=ended["execution"])
        assert site.agent.hear("written")["status"] == "finished"


@pytest.mark.parametrize("how", ["settled", "hang up", "overdue"])
def test_a_stop_waits_for_the_agent_but_not_for_ever(server: str, tmp_path: Path, how: str) -> None:
    """RQ's state is written when the agent says so, when it is gone, or when its plan is over."""
    with hosted(server, tmp_path) as site:
        path = site.note()
        job = site.queue.enqueue("errands.wait", str(path))
        forked = site.agent.begun(path)
        site.agent.stop(forked["execution"], "stopped", seconds=0.5 if how == "overdue" else 60.0)
        site.agent.signal(forked["pid"])
        site.agent.hear("ended")
        assert job.get_status() == "started"
        if how == "settled":
            site.agent.settle(forked["execution"])
        if how == "hang up":
            site.agent.hang_up()
            assert site.agent.end() == 0
        until(lambda: job.get_status() == "stopped", "the state to be written")
        assert site.places(job) == ["stopped"]


@pytest.mark.parametrize("errand", ["add", "wait"])
def test_stops_at_any_instant_end_in_one_place_and_the_worker_goes_on(server: str, tmp_path: Path, errand: str) -> None:
    """Noted once or thrice, before the horse is itself, in the function, or after its end."""
    chance = random.Random(f"stops {errand}")
    with hosted(server, tmp_path) as site:
        for _ in range(25):
            path = site.note()
            args = (1, 2) if errand == "add" else (str(path), 60.0)
            job = site.queue.enqueue(f"errands.{errand}", *args)
            forked = site.agent.hear("forked", rq_job=job.id)
            time.sleep(chance.random() * 0.04)
            for _ in range(chance.choice([1, 3])):
                site.agent.stop(forked["execution"], "stopped")
                with contextlib.suppress(ProcessLookupError):
                    site.agent.signal(forked["pid"])
            site.agent.hear("ended", execution=forked["execution"])
            site.agent.settle(forked["execution"])
            status = site.agent.hear("written", rq_job=job.id)["status"]
            assert status in ({"stopped", "finished"} if errand == "add" else {"stopped"})
            assert site.places(job) == [status]
            site.agent.stop_file.unlink()
        assert site.agent.popen.poll() is None
