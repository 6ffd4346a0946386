"""How a hosted worker takes jobs: whose a job is is known at every instant, and a wait ends at once."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import until
from tests.rq.agent_end import hosted
from tests.strait import Strait

if TYPE_CHECKING:
    from tests.rq.agent_end import Site


def drained(site: Site) -> None:
    """Wait for the end of a worker that was asked to leave."""
    bye = site.agent.hear("bye")
    assert (bye["why"], bye["clean"]) == ("drained", True)
    assert site.agent.end() == 0


@pytest.mark.parametrize("names", [("one",), ("high", "low", "lowest")])
@pytest.mark.parametrize("how", ["drain", "SIGTERM", "hang up"])
def test_a_worker_that_waits_for_jobs_leaves_at_once(
    server: str, tmp_path: Path, names: tuple[str, ...], how: str
) -> None:
    """Blocked on its queues for half a minute, it hears a drain, a signal, or its agent's end; RQ knows it no more."""
    with hosted(server, tmp_path, names=names) as site:
        until(lambda: blocked(site) == len(names), "the worker to be blocked on each queue")
        site.agent.dismiss(how)
        began_s = time.monotonic()
        if how != "hang up":
            drained(site)
        assert site.agent.end() == 0
        assert time.monotonic() - began_s < 15  # half of the wait
        assert not site.redis.sismember("coord:rq:workers", site.agent.name)
        assert not site.redis.sismember("rq:workers", f"rq:worker:{site.agent.name}")


def blocked(site: Site) -> int:
    """Count the connections that are blocked on the site's queues."""
    clients = site.redis.client_list()
    return sum(client["cmd"] == "blmove" and "b" in client["flags"] for client in clients)


def test_jobs_come_in_the_order_of_the_queues(server: str, tmp_path: Path) -> None:
    """The first queue goes first, whether jobs were there before or come while the worker waits."""
    with hosted(server, tmp_path, wait=False) as site:
        high, low = site.queues
        jobs = [queue.enqueue("errands.add", 1, 2) for queue in (low, high, low, high)]
        for index in (1, 3, 0, 2):
            assert site.agent.hear("may")["rq_job"] == jobs[index].id
        site.agent.hear("written", rq_job=jobs[2].id)
        until(lambda: blocked(site) == 2, "the worker to be blocked on both queues")
        with site.redis.pipeline() as pipeline:  # both at one instant
            for queue in (low, high):
                queue.enqueue("errands.add", 1, 2, pipeline=pipeline)
            pipeline.execute()
        assert [site.agent.hear("may")["queue"] for _ in range(2)] == [high.name, low.name]


@pytest.mark.parametrize(("guarded", "places"), [(True, ["hand"]), (False, [])])
def test_a_worker_that_is_killed_with_a_job_in_hand_loses_none(
    server: str, tmp_path: Path, *, guarded: bool, places: list[str]
) -> None:
    """Killed before it was answered: the job is in its hand. Popped as RQ does, it is nowhere."""
    worker_class = None if guarded else "unguarded_workers.NoHands"
    with hosted(server, tmp_path, options={"worker_class": worker_class}) as site:
        site.agent.answer = lambda _asked: None
        if guarded:
            until(lambda: blocked(site) == 2, "the worker to be blocked on both queues")
        job = site.queue.enqueue("errands.add", 1, 2)
        if not guarded:
            site.redis.set("rq:suspended", 1)  # ends RQ's wait
            site.redis.delete("rq:suspended")
        site.agent.hear("may")
        site.agent.signal(site.agent.popen.pid, signal.SIGKILL)
        site.agent.end()
        assert site.places(job) == places


@pytest.mark.parametrize("how", ["drain", "SIGTERM", "hang up"])
def test_a_job_that_was_not_answered_goes_back_to_the_front(server: str, tmp_path: Path, how: str) -> None:
    """The worker is to leave before it was told "go": the job is where it was, before the others."""
    with hosted(server, tmp_path) as site:
        site.agent.answer = lambda _asked: None
        job = site.queue.enqueue("errands.add", 1, 2)
        site.agent.hear("may")
        behind = site.queue.enqueue("errands.add", 1, 2)
        site.agent.dismiss(how)
        assert site.agent.end() == 0
        assert site.queue.get_job_ids() == [job.id, behind.id]
        assert site.places(job) == [f"queue {site.queue.name}"]


def test_a_fenced_job_is_cancelled_and_not_executed(server: str, tmp_path: Path) -> None:
    """The agent says "fenced" of what was popped already: nothing of it runs, and the worker goes on."""
    with hosted(server, tmp_path) as site:

        def answer(asked: dict[str, Any]) -> dict[str, Any]:
            return {"word": "fenced", "words": "stopped by ann"} if asked["job_id"] == "train-42" else {"word": "go"}

        site.agent.answer = answer
        path = site.note()
        job = site.queue.enqueue("errands.wait", str(path), meta={"coord_job_id": "train-42"})
        other = site.queue.enqueue("errands.add", 1, 2)
        asked = site.agent.hear("may", rq_job=job.id)
        assert (asked["queue"], asked["on_failure"], asked["group"]) == (site.queue.name, "stop", None)
        assert site.agent.hear("written", rq_job=other.id)["status"] == "finished"
        assert site.places(job) == ["canceled"]
        assert job in site.queue.canceled_job_registry
        assert not path.exists()


def test_a_job_that_was_cancelled_after_it_was_taken_is_not_executed(server: str, tmp_path: Path) -> None:
    """RQ's own worker executes it; what is cancelled already when we read it is let go."""
    with hosted(server, tmp_path) as site:
        job = site.queue.enqueue("errands.add", 1, 2, at_front=True)
        other = site.queue.enqueue("errands.add", 1, 2)
        site.agent.hear("written", rq_job=other.id)
        job = site.queue.enqueue("errands.wait", str(site.note()))
        site.redis.hset(job.key, "status", "canceled")  # in the queue nevertheless
        site.redis.lrem(site.queue.key, 0, job.id)
        site.redis.rpush(site.queue.key, job.id)
        other = site.queue.enqueue("errands.add", 1, 2)
        assert site.agent.hear("written", rq_job=other.id)["status"] == "finished"
        assert site.places(job) in (["canceled"], ["finished"])


@pytest.mark.parametrize(
    ("config", "jobs", "why"),
    [
        ({"burst": True}, 2, "burst"),
        ({"options": {"max_jobs": 2}}, 2, "max-jobs"),
        ({"options": {"max_idle_time": 1}}, 0, "idle"),
    ],
)
def test_a_worker_says_why_it_ends(server: str, tmp_path: Path, config: dict[str, Any], jobs: int, why: str) -> None:
    """Burst, a number of jobs, an idle time: as RQ's options of these names."""
    with hosted(server, tmp_path, wait=False, **config) as site:
        for _ in range(jobs):
            site.queue.enqueue("errands.add", 1, 2)
        if why == "burst":
            site.agent.hear("up")
        assert site.agent.hear("bye")["why"] == why
        assert site.agent.end() == 0


@pytest.mark.parametrize("names", [("one",), ("high", "low")])
def test_stops_at_random_instants_lose_nothing(server: str, tmp_path: Path, names: tuple[str, ...]) -> None:
    """A busy queue of tiny jobs, and a SIGTERM at any instant: each job was done, or is in exactly one place."""
    chance = random.Random(f"stops {names}")
    for _ in range(12):
        with hosted(server, tmp_path, names=names, wait=False) as site:
            jobs = [chance.choice(site.queues).enqueue("errands.add", 1, 2) for _ in range(20)]
            site.agent.hear("up")
            done = chance.randrange(8)
            for _ in range(done):
                site.agent.hear("written")
            time.sleep(chance.random() * 0.03)  # any instant of the next job
            site.agent.popen.terminate()
            site.agent.hear("bye")
            assert site.agent.end() == 0
            for job in jobs:
                assert len(site.places(job)) == 1, site.places(job)
                assert job.get_status() in {"queued", "finished"}


def test_an_answer_that_got_lost_leaves_the_job_in_hand_and_is_taken_then(server: str, tmp_path: Path) -> None:
    """The server moved the job, and the connection broke before the worker heard of it."""
    strait = Strait(server, tmp_path)
    try:
        with hosted(server, tmp_path, worker_url=strait.url) as site:
            until(lambda: blocked(site) == 2, "the worker to be blocked on both queues")
            strait.freeze()
            job = site.queue.enqueue("errands.add", 1, 2)
            until(lambda: site.places(job) == ["hand"], "the server to have moved the job")
            strait.cut()
            strait.open()
            assert site.agent.hear("written", rq_job=job.id)["status"] == "finished"
    finally:
        strait.close()


def test_a_worker_that_was_taken_for_dead_is_known_again(server: str, tmp_path: Path) -> None:
    """By its next heartbeat: else a sweep would take it for a plain worker."""
    with hosted(server, tmp_path) as site:
        site.redis.srem("coord:rq:workers", site.agent.name)
        site.queue.enqueue("errands.add", 1, 2)
        site.agent.hear("written")
        until(lambda: site.redis.sismember("coord:rq:workers", site.agent.name), "it to be known")


def test_a_server_that_forbids_to_unblock_is_worked_with(server: str, tmp_path: Path) -> None:
    """Where CLIENT UNBLOCK is not permitted, waits are closed instead: nothing is lost, and it leaves at once."""
    with hosted(server, tmp_path) as site:
        site.redis.execute_command("ACL", "SETUSER", "meek", "on", ">meek", "~*", "&*", "+@all", "-client|unblock")
    url = f"unix://meek:meek@{server.removeprefix('unix://')}"
    with hosted(server, tmp_path, worker_url=url) as site:
        for queue in (site.queues[1], site.queues[0], site.queues[1]):
            until(lambda: blocked(site) == 2, "the worker to be blocked on both queues")
            job = queue.enqueue("errands.add", 1, 2)
            assert site.agent.hear("written", rq_job=job.id)["status"] == "finished"
        until(lambda: blocked(site) == 2, "the worker to be blocked on both queues")
        site.agent.tell("drain")
        drained(site)


def test_a_worker_costs_the_same_after_many_jobs(server: str, tmp_path: Path) -> None:
    """No descriptor, no thread and no process is left of a job."""
    with hosted(server, tmp_path) as site:

        def holds() -> tuple[int, int]:
            until(lambda: blocked(site) == 2, "the worker to be blocked on both queues")
            proc = Path(f"/proc/{site.agent.popen.pid}")
            return len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))

        found = []
        for _ in range(3):
            for number in range(15):
                site.queues[number % 2].enqueue(
                    "errands.add" if number % 3 else "errands.fail", 1, *[2] * bool(number % 3)
                )
                site.agent.hear("written")
            found.append(holds())
        assert found[1] == found[2], found
