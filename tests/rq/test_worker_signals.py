"""What SIGTERM does in a work-horse: in the job's function, in RQ's code around it, and in what the job forks."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from tests.harness import until
from tests.rq.agent_end import hosted


@pytest.mark.parametrize(("guarded", "outcome"), [(True, "finished"), (False, "stopped")])
def test_a_signal_never_cuts_off_what_rq_records(server: str, tmp_path: Path, *, guarded: bool, outcome: str) -> None:
    """After the function, SIGTERM raises nothing: the success is recorded. Without that guard it is not."""
    from rq import Callback

    worker_class = None if guarded else "unguarded_workers.RaisesAnywhere"
    with hosted(server, tmp_path, options={"worker_class": worker_class}) as site:
        path = site.note()
        job = site.queue.enqueue("errands.quick", str(path), on_success=Callback("errands.late_callback"))
        forked = site.agent.begun(path)
        until(lambda: "callback" in path.read_text(), "the callback to run")
        site.agent.stop(forked["execution"], "stopped")
        with nullcontext() if guarded else suppress(ProcessLookupError):  # without the guard the first may do
            for _ in range(3):
                site.agent.signal(forked["pid"])
        time.sleep(0.1 if guarded else 0)  # time for what must not happen
        (tmp_path / f"{path.name}.gate").touch()
        site.agent.hear("ended")
        site.agent.settle(forked["execution"])
        assert site.agent.hear("written")["status"] == outcome
        assert site.places(job) == [outcome]


def test_a_stop_that_python_drops_is_raised_again(server: str, tmp_path: Path) -> None:
    """SIGTERM in `__del__` would be lost: the job waits for a minute, and is stopped at once nevertheless."""
    with hosted(server, tmp_path) as site:
        path = site.note()
        site.agent.stop_file.write_text('{"as": "stopped"}')
        job = site.queue.enqueue("errands.drop", str(path))
        forked = site.agent.hear("forked")
        assert site.agent.hear("ended", execution=forked["execution"])["exit_code"] == 143
        assert site.agent.hear("written")["status"] == "failed"  # nobody noted an intent: RQ's own way
        assert site.places(job) == ["failed"]


def test_a_signal_to_every_process_is_ignored_while_jobs_may_finish(server: str, tmp_path: Path) -> None:
    """Within --warm, a SIGTERM without a stop file means nobody; with one, it means this job."""
    with hosted(server, tmp_path, warm_s=30.0) as site:
        path, gate = site.note(), site.note()
        site.queue.enqueue("errands.wait_for", str(path), str(gate))
        forked = site.agent.begun(path)
        site.agent.signal(forked["pid"])
        site.agent.popen.terminate()
        gate.touch()
        assert site.agent.hear("written")["status"] == "finished"
        assert site.agent.hear("bye")["why"] == "drained"
    with hosted(server, tmp_path, warm_s=30.0) as site:
        path = site.note()
        site.queue.enqueue("errands.wait", str(path))
        forked = site.agent.begun(path)
        site.agent.stop(forked["execution"], "stopped")
        site.agent.signal(forked["pid"])
        site.agent.hear("ended")
        site.agent.settle(forked["execution"])
        assert site.agent.hear("written")["status"] == "stopped"


@pytest.mark.parametrize("errand", ["wait", "raises_exit", "sleep", "turn"])
@pytest.mark.parametrize(("on_stop", "status"), [("requeue", "queued"), ("fail", "failed")])
def test_a_signal_to_every_process_ends_as_the_host_wants_it(
    server: str, tmp_path: Path, errand: str, on_stop: str, status: str
) -> None:
    """The platform signals worker and horse at once, before the agent says anything: nothing is lost."""
    with hosted(server, tmp_path, on_stop=on_stop) as site:
        path = site.note()
        job = site.queue.enqueue(f"errands.{errand}", str(path))
        forked = site.agent.begun(path)
        site.agent.signal(forked["pid"])  # the horse first: the worse order
        site.agent.popen.terminate()
        assert site.agent.hear("written")["status"] == status
        assert site.agent.hear("bye")["why"] == "drained"
        assert site.agent.end() == 0
        assert len(site.places(job)) == 1
        assert job.get_status() == status


def test_what_a_job_forks_is_stopped_as_ever(server: str, tmp_path: Path) -> None:
    """SIGTERM to a forked process raises nothing in it: it ends by the signal, as under RQ."""
    with hosted(server, tmp_path) as site:
        path = site.note()
        site.queue.enqueue("errands.fork", str(path))
        forked = site.agent.begun(path)
        child = int(Path(f"/proc/{forked['pid']}/task/{forked['pid']}/children").read_text())
        site.agent.signal(child)
        assert site.agent.hear("written")["status"] == "finished"
        assert "child -15" in path.read_text()
