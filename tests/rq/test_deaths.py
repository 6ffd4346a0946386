"""Processes are killed with SIGKILL: nothing of their jobs runs on, and RQ soon has the truth."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from rq import Retry

from tests.harness import until
from tests.rq.fleet import children, gone, kill_pid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rq.fleet import Fleet, Host

SOON_S = 15.0  # of what RQ takes 61 s and a maintenance pass for


def begun(fleet: Fleet, n: int = 2, retry: Retry | None = None) -> tuple[Host, str, dict[str, int]]:
    """Have a job with a daemon that does not go when asked; give the host, the job, and pids: worker, horse, daemon."""
    host = fleet.up("coord", n=n, options=("--grace", "1s"))
    job = fleet.enqueue("with_daemon", "setsid", "deaf", retry=retry)
    (note,) = until(lambda: fleet.diary.entries("daemon"), "the job's daemon")
    fleet.settled("the job to be started", lambda state: state.counts() == {"started": 1})
    (worker,) = [name for name in fleet.worker_names("a") if fleet.worker(name).get("state") == "busy"]
    return host, job.id, {"worker": int(fleet.worker(worker)["pid"]), "horse": note["pid"], "daemon": note["daemon"]}


def ends_well(fleet: Fleet, host: Host, n: int = 2) -> None:
    """The host still has all of its workers, which work; nothing ran twice; all is in one place at the end."""
    fleet.ready(host)
    others = [fleet.enqueue("tiny") for _ in range(4)]
    fleet.settled("other jobs", lambda state: all(state.status[job.id] == "finished" for job in others))
    until(lambda: len(fleet.worker_names("a")) == n, "the dead to be struck off")
    assert not fleet.diary.entries("twice")
    assert host.stop() == [0]
    assert fleet.faults() == {}


def test_a_killed_horse_is_told_as_failed(fleet: Fleet) -> None:
    """Its daemon goes too, and then the job is failed; the worker stays."""
    host, job, pids = begun(fleet)
    workers = fleet.worker_pids("a")
    kill_pid(pids["horse"])
    fleet.settled("the job to be failed", lambda state: state.status[job] == "failed", SOON_S)
    assert gone(pids["daemon"])
    assert fleet.worker_pids("a") == workers
    ends_well(fleet, host)


def test_a_killed_horse_is_retried_alone(fleet: Fleet) -> None:
    """The retry begins when nothing of the first try is left: the lock that the whole tree held is free."""
    host, job, pids = begun(fleet, retry=Retry(1))
    kill_pid(pids["horse"])
    until(lambda: len(fleet.diary.entries("began", job)) == 2, "the retry")
    assert gone(pids["daemon"])
    assert not fleet.diary.entries("twice")
    assert fleet.shutdown(job).code == 0
    ends_well(fleet, host)


@pytest.mark.parametrize("retry", [None, Retry(1)], ids=["without-retry", "with-retry"])
def test_a_killed_worker_leaves_nothing(fleet: Fleet, retry: Retry | None) -> None:
    """Its horse and the daemon go, then RQ is told; another worker takes its place; a retry runs alone."""
    host, job, pids = begun(fleet, retry=retry)
    began_s = time.monotonic()
    kill_pid(pids["worker"])
    fleet.settled("the job to be started no more, or anew", lambda state: state.status[job] != "started", SOON_S)
    print(f"a killed worker's job was finalized after {time.monotonic() - began_s:.2f} s")  # noqa: T201
    assert all(gone(pid) for pid in pids.values())
    if fleet.state().status[job] not in {"failed", "stopped"}:  # it is retried, or was put back
        until(lambda: len(fleet.diary.entries("began", job)) == 2, "the second run")
        assert fleet.shutdown(job).code == 0
    ends_well(fleet, host)


def test_a_worker_that_is_killed_while_idle_is_replaced(fleet: Fleet) -> None:
    """RQ does not count the dead one any more, and two are there again."""
    host = fleet.up("coord", n=2)
    dead = min(fleet.worker_pids("a"))
    kill_pid(dead)
    until(lambda: dead not in fleet.worker_pids("a"), "the dead one to be struck off", SOON_S)
    ends_well(fleet, host)


@pytest.mark.parametrize("who", ["guardian", "agent"])
def test_a_killed_agent_or_guardian_leaves_nothing(fleet: Fleet, who: str) -> None:
    """The one that is left stops all that runs; the job is where somebody finds it, and not `started`."""
    host, job, pids = begun(fleet)
    guardian = host.popens[0].pid
    (agent,) = children(guardian)
    kill_pid(guardian if who == "guardian" else agent)
    host.end()
    until(lambda: not fleet.left(), "nothing to be left")
    assert all(gone(pid) for pid in pids.values())
    fleet.settled("the job to be started no more", lambda state: state.status[job] != "started", SOON_S)
    assert fleet.faults() == {}
    assert fleet.state().workers == ()
    assert not fleet.diary.entries("twice")


@pytest.mark.parametrize("queues", [("default",), ("high", "default")], ids=["one-queue", "two-queues"])
def test_what_a_lost_host_had_in_hand_is_put_back(fleet: Fleet, tmp_path: Path, queues: tuple[str, ...]) -> None:
    """Its power fails while a worker has taken a job and not begun: when RQ has forgotten the worker, it is run."""
    host = fleet.up("coord", *queues)
    (agent,) = children(host.popens[0].pid)
    (worker,) = fleet.worker_names("a")
    kill_pid(agent, signal.SIGSTOP)  # the worker asks whether it may, and gets no answer
    job = fleet.enqueue("tiny", queue=queues[0])
    fleet.settled("the job to be in the worker's hand", lambda state: state.at("hand") == {job.id})
    for pid in (host.popens[0].pid, int(fleet.worker(worker)["pid"]), agent):
        kill_pid(pid)
    host.end()
    until(lambda: not fleet.left(), "nothing to be left")
    assert fleet.faults() == {job.id: f"queued, stranded in hand:{worker}:{queues[0]}"}
    fleet.connection.delete(f"rq:worker:{worker}")  # as RQ's own expiry, 480 s
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    again = fleet.start("coord", *queues, host="b", COORD_RUNTIME_DIR=str(elsewhere))
    fleet.settled("it to be run", lambda state: state.counts() == {"finished": 1})
    assert fleet.diary.times("ran", [job.id]) == {job.id: 1}
    assert again.stop() == [0]
    assert fleet.faults() == {}


def test_a_host_that_is_killed_at_one_instant_is_settled_by_the_next(fleet: Fleet) -> None:
    """Guardian, agent and workers die at once: the next agent on the host stops what held out, then it is put back."""
    host, job, pids = begun(fleet)
    (agent,) = children(host.popens[0].pid)
    for pid in (host.popens[0].pid, agent, *(int(fleet.worker(name)["pid"]) for name in fleet.worker_names("a"))):
        kill_pid(pid)
    host.end()
    again = fleet.up("coord")
    until(lambda: all(gone(pid) for pid in pids.values()), "nothing of the dead host's to run")
    until(lambda: len(fleet.diary.entries("began", job)) == 2, "the job to be run anew")
    assert not fleet.diary.entries("twice")
    assert fleet.faults(at_rest=False) == {}
    assert again.stop() == [0]
    until(lambda: not fleet.left(), "the process that settled it to be gone")
