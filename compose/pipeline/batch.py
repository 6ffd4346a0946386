"""The demo's first act: the pipeline as RQ jobs. One share fails: coord stops the batch on all hosts, and in the queue.

Three hosts run `coord worker` with two workers each. A batch has more shares than that, so some are still queued when
one meets a broken file. The workers themselves stay: the same ones finish a second batch.
"""

from __future__ import annotations

import secrets
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis import Redis
from rich.markup import escape
from rq import Queue, Worker

from compose.pipeline.hosts import Host, broken_file
from compose.pipeline.rank import index_share
from compose.pipeline.stage import Stage, Story
from coord.render.text import milliseconds
from coord.rq import enqueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from rq.job import Job

ROOT = str(Path(__file__).parents[2])  # where workers import the pipeline from
HOSTS = ("a", "b", "c")
EACH = 2  # workers on a host
WORKERS = EACH * len(HOSTS)
SHARES = 2 * WORKERS
POOL = 2  # processes of a share
HASHES = 1024  # keep the shares at work until the broken file has been met
BROKEN = WORKERS - 1  # the share with the broken file: the last that finds a worker free
SMALL = 120  # the second batch takes so small a part of the library, as many as there are workers
TURN_S = 0.2
STEP_MAX_S = 60.0  # for each step, on a machine that is very busy; a quiet one needs a few seconds


@dataclass(frozen=True)
class Ended:
    """How a batch ended, as RQ has it: how many shares are in which state, on which workers, and why one is stopped."""

    states: Counter[str]
    workers: set[str]
    why: str

    @classmethod
    def of(cls, jobs: list[Job]) -> Ended:
        """Read it."""
        states = {job.id: job.get_status().value for job in jobs}
        results = [job.latest_result() for job in jobs if states[job.id] == "stopped"]
        why = next((result.exc_string or "" for result in results if result), "")
        workers = {result.worker_name for job in jobs if (result := job.latest_result()) and result.worker_name}
        return cls(Counter(states.values()), workers, why.partition("\n")[0])


@dataclass
class Batch:
    """What is known of the act. `idle`: the pids of the hosts at rest; `at_work`: how many there were at work."""

    stage: Stage
    queue: Queue
    idle: set[int]
    workers: set[str]
    at_work: int = 0
    gone: bool = False


def show(stage: Stage) -> bool:
    """Tell the story while it happens; tells whether all of it was as promised."""
    stage.say("[bold]One share of a batch of RQ jobs fails: coord stops the batch on all hosts, and in the queue.[/]")
    stage.say("\n[bold]1. Start[/]  three hosts, two RQ workers each")
    for name in HOSTS:
        stage.enter(worker_host(name, stage.url))
    with Redis.from_url(stage.url) as connection:
        batch = at_rest(stage, Queue("pipeline", connection=connection))
        story, first = fail(batch)
        stage.say(f"\n[bold]4. The record[/]  $ coord status --job-id {story.job}")
        said = story.show()
        stage.say(f"   RQ has {words(first.states)}; of a share that was stopped it says:")
        stage.say(f"[dim]   | {escape(first.why)}[/]")
        stage.say("\n[bold]5. Go on[/]  the same workers, another batch")
        second = small_batch(batch)
        stage.say("\n[bold]6. Stop[/]  SIGTERM to the three hosts, as a platform does for every deployment")
        leave(stage)
        stage.say("\n[bold]7. Was it so?[/]")
        return stage.judge(promises(batch, story, said) | of_rq(batch, said, first, second))


def worker_host(name: str, url: str) -> Host:
    """Make a host of workers."""
    told = ("worker", "pipeline", "-n", str(EACH), "--grace", "3s")
    words = (f"$ COORD_HOST={name} coord {' '.join(told)}",)
    return Host(name, "works the queue `pipeline`", words, (*told, "--path", ROOT), 0, {"COORD_REDIS_URL": url})


def at_rest(stage: Stage, queue: Queue) -> Batch:
    """Wait until all workers are idle, and see what that looks like in /proc."""
    connection = queue.connection

    def idle() -> set[str]:
        names = {worker.name for worker in Worker.all(connection=connection) if worker.state == "idle"}
        return names if len(names) == WORKERS else set()

    names = until(idle)
    seen = [stage.scan()]

    def same() -> bool:
        seen.append(stage.scan())
        return seen[-1] == seen[-2]

    until(same)  # what helped them to start has left by then
    stage.say(f"   RQ knows {len(names)} workers; /proc has {len(seen[-1])} processes with this run's mark")
    return Batch(stage, queue, seen[-1], names)


def until(fact: Callable[[], Any]) -> Any:
    """Wait for a fact, and give it; what has not come true within the bound is given as it is then."""
    end_s = time.monotonic() + STEP_MAX_S
    while not (found := fact()) and time.monotonic() < end_s:
        time.sleep(TURN_S / 4)
    return found


# -- the batch that fails ----------------------------------------------------------------------------------------------


def fail(batch: Batch) -> tuple[Story, Ended]:
    """Enqueue a batch of which one share is broken, and follow it to its verdict."""
    stage = batch.stage
    story = Story(stage, f"batch-{secrets.token_hex(3)}")
    stage.say(f"\n[bold]2. Work[/]  job {story.job}: {SHARES} shares; share {BROKEN} will meet a file that was cut off")
    stage.say(f'[dim]   >>> enqueue(queue, index_share, rank, {SHARES}, out, job_id="{story.job}")[/]')
    jobs = [enqueue_share(batch, story.job, rank) for rank in range(BROKEN)]
    until(lambda: count(batch))
    # all others are at work, so they are to be stopped however soon this one fails
    jobs += [enqueue_share(batch, story.job, BROKEN, poison=broken_file(stage.folder))]
    jobs += [enqueue_share(batch, story.job, rank) for rank in range(WORKERS, SHARES)]
    until(lambda: Ended.of(jobs).states["queued"] <= SHARES - WORKERS)
    states = words(Ended.of(jobs).states)
    stage.say(f"   /proc has {batch.at_work} processes more than before, of {BROKEN} shares; now RQ has {states}")
    end_s = time.monotonic() + STEP_MAX_S
    while not story.first("job.verdict") and time.monotonic() < end_s:
        story.listen(TURN_S)
    # a clerk that speaks to RQ for the agents may need a moment to leave
    batch.gone = until(lambda: stage.scan() == batch.idle)
    return story, at_end(jobs)


def enqueue_share(batch: Batch, job: str, rank: int, **more: Any) -> Job:
    """Enqueue one share of a batch."""
    out = batch.stage.folder / job
    more |= {"hashes": HASHES, "description": f"share {rank}"}
    return enqueue(batch.queue, index_share, rank, SHARES, out, job_id=job, **more)


def count(batch: Batch) -> int:
    """Scan while shares are at work: a scan that finds nothing later proves nothing else. 0 while not all are."""
    found = len(batch.stage.scan() - batch.idle)
    batch.at_work = found if found >= BROKEN * (1 + POOL) else 0  # a work-horse, and its pool
    return batch.at_work


def at_end(jobs: list[Job]) -> Ended:
    """Wait until RQ has all of them as ended."""
    until(lambda: not {"queued", "started"} & Ended.of(jobs).states.keys())
    return Ended.of(jobs)


def words(states: Counter[str]) -> str:
    """Say how many shares are in which state."""
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


# -- after it ----------------------------------------------------------------------------------------------------------


def small_batch(batch: Batch) -> Ended:
    """Have the workers finish another batch; tells how that ended."""
    job = f"batch-{secrets.token_hex(3)}"
    out = batch.stage.folder / job
    began_s = time.monotonic()
    jobs = [enqueue(batch.queue, index_share, rank, SMALL, out, job_id=job, hashes=16) for rank in range(WORKERS)]
    ended = at_end(jobs)
    took = milliseconds((time.monotonic() - began_s) * 1000)
    files, indexes = sum(int(each.return_value() or 0) for each in jobs), len(list(out.glob("*.json")))
    batch.stage.say(f"   job {job}: {words(ended.states)}: {files} files in {took}, {indexes} indexes")
    return ended


def leave(stage: Stage) -> None:
    """Stop the hosts, and wait for each."""
    began_s = time.monotonic()
    agents = {host.name: host.agent for host in stage.hosts if host.agent}
    for agent in agents.values():
        agent.send_signal(signal.SIGTERM)
    until(lambda: all(host.ended is not None for host in stage.hosts))
    took = milliseconds((time.monotonic() - began_s) * 1000)
    stage.say(f"   {', '.join(f'host {host.name}: exit code {host.ended}' for host in stage.hosts)}; {took}")


def promises(batch: Batch, story: Story, said: dict[str, Any]) -> dict[str, bool]:
    """Give each promise about the record and /proc, and whether it was kept; `said` is what the record's JSON says."""
    failure = said.get("first_failure") or {}
    tail = "\n".join(failure.get("stderr_tail", ()))
    stopped = {each["host"] for each in said.get("agents", ()) if each["state"] == "stopped" and each["proof"]}
    left = batch.stage.scan()
    return {
        f"the first failure is share {BROKEN}, with its traceback": (
            failure.get("label") == f"share {BROKEN}" and "SyntaxError" in tail
        ),
        "no other share is called a failure": [event.kind for event in story.events].count("child.failed") == 1,
        "the verdict is clean: who was asked to leave, left": said.get("verdict") == "clean",
        "every host says that its part is stopped, with proof": stopped == set(HOSTS),
        f"/proc had {batch.at_work} more processes in the batch; then only those it had before": (
            batch.gone and batch.at_work > 0
        ),
        f"/proc has {len(left)} processes with the mark, now that the hosts have left": not left,
    }


def of_rq(batch: Batch, said: dict[str, Any], first: Ended, second: Ended) -> dict[str, bool]:
    """Give each promise about RQ and the hosts, and whether it was kept."""
    counted = {what: (said.get("rq") or {}).get(what) for what in ("stopped", "canceled")}
    codes = {host.name: host.ended for host in batch.stage.hosts}
    return {
        f"RQ has the other {SHARES - 1} as stopped or canceled; none is queued or started": (
            first.states["stopped"] + first.states["canceled"] == SHARES - 1 and not batch.queue.count
        ),
        f"the record counts the same: {counted}": all(first.states[what] == count for what, count in counted.items()),
        "RQ says of a stopped share who stopped it, and why": f"share {BROKEN}" in first.why,
        f"the same {WORKERS} workers finished the second batch": (
            second.states == {"finished": WORKERS} and second.workers <= batch.workers
        ),
        f"the hosts' exit codes are {codes}": set(codes.values()) == {0},
    }
