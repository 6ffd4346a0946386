"""RQ jobs under `coord worker` and stock `rq worker`, in turn: how fast one is stopped, and how fast it starts."""

from __future__ import annotations

import os
import select
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rq import Queue
from rq.command import send_stop_job_command

from coord.coordinator import Coordinator
from tests.bench.measure import QUIET_S
from tests.bench.onlooker import GONE_S, MARK, kill_marked, sleeps_of
from tests.bench.program import program
from tests.bench.site import BIN, ROOT
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import redis
    from rq.job import Job

    from tests.bench.site import Site

PROJECT = ROOT / "tests" / "bench" / "rq_project"
COORD, STOCK = "coord worker", "rq worker"
MANY = 100  # jobs of one look at the throughput
KEEP_S = 3600


@dataclass(frozen=True, slots=True)
class StopTimes:
    """One job's stop, in milliseconds from the call that asked. `daemon_ms`: None where it had none, or it stayed."""

    horse_ms: float
    daemon_ms: float | None
    told_ms: float  # until RQ's status was `stopped`


@dataclass(frozen=True, slots=True)
class Workers:
    """One host of one worker."""

    name: str
    site: Site
    connection: redis.Redis

    @property
    def queue(self) -> Queue:
        """The queue that it alone works."""
        return Queue(self.name.replace(" ", "-"), connection=self.connection)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it, and wait until it listens."""
        ours = (str(BIN / "coord"), "worker", "-n", "1")
        argv = ours if self.name == COORD else (str(BIN / "rq"), "worker")
        environment = self.site.environment(COORD_REDIS_URL=self.site.url, RQ_REDIS_URL=self.site.url)
        with program((*argv, "--quiet", "--path", str(PROJECT), self.queue.name), environment):
            until(lambda: self.connection.scard(f"rq:workers:{self.queue.name}"), f"{self.name} to listen")
            self.wait_for(self.enqueue("nothing"), "finished")
            yield

    def enqueue(self, function: str, *args: Any, **options: Any) -> Job:
        """Enqueue a function of the project's."""
        return self.queue.enqueue(f"bench_jobs.{function}", args=args, result_ttl=KEEP_S, **options)

    def wait_for(self, job: Job, status: str) -> None:
        """Wait until RQ says so of it."""
        until(lambda: job.get_status() == status, f"{self.name}: a job to be {status}")

    # -- stopping

    def stop(self, mark: str, *, daemon: bool) -> StopTimes:
        """Have one job stopped: by its job of coord's, or by RQ's command."""
        key = f"bench:began:{mark}"
        arguments = (key, MARK, mark) if daemon else (key,)
        job = self.enqueue("with_daemon" if daemon else "polite", *arguments, meta={"coord_job_id": mark})
        horse = int(until(lambda: self.connection.get(key), "the job to begin"))
        self.wait_for(job, "started")
        watched = [horse, *(until(lambda: sleeps_of(mark), "its daemon") if daemon else ())]
        try:
            with ExitStack() as stack:
                # RQ leaves the daemon: there is nothing to wait for
                pidfds = [_held(stack, pid) for pid in (watched if self.name == COORD else watched[:1])]
                stop = self._stopper(stack, job, mark)
                time.sleep(QUIET_S)
                began_s = time.monotonic()
                ends_ms = ends(stop, pidfds)
                self.wait_for(job, "stopped")
                told_ms = (time.monotonic() - began_s) * 1000
            return StopTimes(ends_ms[0], ends_ms[1] if ends_ms[1:] else None, told_ms)
        finally:
            kill_marked(mark)

    def _stopper(self, stack: ExitStack, job: Job, mark: str) -> Callable[[], object]:
        if self.name == STOCK:
            return partial(send_stop_job_command, self.connection, job.id)
        coordinator = stack.enter_context(Coordinator(self.site.url, by="bench", retain_s=KEEP_S))
        coordinator.jobs()  # its connection is there, as RQ's is
        return partial(coordinator.request, mark, reason="bench")

    # -- starting

    def start_ms(self) -> float:
        """Give the time from the call that enqueues a job to its function's first line."""
        time.sleep(QUIET_S)
        began_s = time.monotonic()
        job = self.enqueue("began")
        self.wait_for(job, "finished")
        return (float(str(job.return_value(refresh=True))) - began_s) * 1000

    def many_ms(self) -> float:
        """Give what a job takes when many wait: the whole time, by their number."""
        data = [Queue.prepare_data("bench_jobs.nothing", result_ttl=KEEP_S) for _ in range(MANY)]
        began_s = time.monotonic()
        jobs = self.queue.enqueue_many(data)
        self.wait_for(jobs[-1], "finished")
        return (time.monotonic() - began_s) * 1000 / MANY


def ends(stop: Callable[[], object], pidfds: Sequence[int]) -> list[float]:
    """Call `stop`, and give when each of the processes ended, in milliseconds from the call."""
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    ended: dict[int, float] = {}
    with ThreadPoolExecutor(1) as caller:
        began_s = time.monotonic()
        called = caller.submit(stop)
        while len(ended) < len(pidfds):
            found = poll.poll(GONE_S * 1000)
            if not found:
                raise RuntimeError(f"a process outlived the stop by {GONE_S:.0f} s")
            for pidfd, _ in found:
                ended[pidfd] = (time.monotonic() - began_s) * 1000
                poll.unregister(pidfd)
        called.result(GONE_S)
    return [ended[pidfd] for pidfd in pidfds]


def _held(stack: ExitStack, pid: int) -> int:
    pidfd = os.pidfd_open(pid)
    stack.callback(os.close, pidfd)
    return pidfd


@dataclass(frozen=True, slots=True)
class RqFigures:
    """Milliseconds, name -> one per round; the n-th of all names were taken right after each other."""

    stops: dict[tuple[str, bool], list[StopTimes]]  # by who, and whether there was a daemon
    starts_ms: dict[str, list[float]]
    many_ms: dict[str, list[float]]


def measure_rq(site: Site, connection: redis.Redis, *, runs: int, progress: Callable[[str], None]) -> RqFigures:
    """Run both kinds of worker side by side, each with its queue, and take their turns."""
    figures = RqFigures({}, {}, {})
    with ExitStack() as stack:
        both = [Workers(name, site, connection) for name in (COORD, STOCK)]
        for each in both:
            stack.enter_context(each.running())
        # starts first: after a stop coord goes on for a while, to see that nothing of the job comes late
        for run in range(runs):
            progress(f"start RQ jobs: run {run + 1} of {runs}")
            for each in both if run % 2 else both[::-1]:
                figures.starts_ms.setdefault(each.name, []).append(each.start_ms())
                figures.many_ms.setdefault(each.name, []).append(each.many_ms())
        for run in range(runs):
            progress(f"stop RQ jobs: run {run + 1} of {runs}")
            for each in both if run % 2 else both[::-1]:
                for daemon in (False, True):
                    mark = f"{site.token}.rq.{run}.{daemon}.{each.queue.name}"
                    figures.stops.setdefault((each.name, daemon), []).append(each.stop(mark, daemon=daemon))
    return figures
