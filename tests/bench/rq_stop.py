"""Contestant: RQ's own workers, stopped by its `send_stop_job_command`: SIGKILL to the work-horse's process group."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rq import Queue
from rq.command import send_stop_job_command

from tests.bench import rq_job
from tests.bench.program import program
from tests.bench.site import BIN, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from rq.job import Job

    from tests.bench.measure import Case
    from tests.bench.site import Site

SETTLE_S = 30.0


class RqStop:
    """As many workers as the largest case needs jobs; they stay from round to round, as RQ's do."""

    def __init__(self, site: Site, connection: redis.Redis, *, per_child: bool) -> None:
        self.name = "RQ stop-job, one job per child" if per_child else "RQ stop-job, one job per host"
        self._site = site
        self._connection = connection
        self._per_child = per_child
        self._workers = 0

    @contextmanager
    def workers(self, count: int) -> Iterator[RqStop]:
        """Start so many."""
        self._workers = count
        argv = (str(BIN / "rq"), "worker", "--quiet", "--url", self._site.url, "--path", str(ROOT), self._queue)
        with ExitStack() as stack:
            workers = [stack.enter_context(program(argv, self._site.environment(), cwd=ROOT)) for _ in range(count)]
            try:
                yield self
            finally:
                for worker in workers:  # all at once: each may take a second
                    worker.terminate()

    def takes(self, case: Case) -> bool:
        """Only what there are workers for."""
        return self._jobs(case) <= self._workers

    @contextmanager
    def start(self, case: Case, mark: str) -> Iterator[RqRound]:
        """Enqueue the jobs; each waits for its children, so each is on a worker of its own."""
        queue = Queue(self._queue, connection=self._connection)
        each = 1 if self._per_child else case.each
        yield RqRound(self._connection, [queue.enqueue(rq_job.run, each, mark) for _ in range(self._jobs(case))])

    @property
    def _queue(self) -> str:
        return "bench-child" if self._per_child else "bench-host"

    def _jobs(self, case: Case) -> int:
        return case.total if self._per_child else case.hosts


class RqRound:
    """One set of jobs."""

    def __init__(self, connection: redis.Redis, jobs: list[Job]) -> None:
        self._connection = connection
        self._jobs = jobs

    def stop(self) -> None:
        """One command per job: RQ knows no group."""
        for job in self._jobs:
            send_stop_job_command(self._connection, job.id)

    def settle(self) -> dict[str, float]:
        """Wait until RQ itself says that the jobs are stopped."""
        deadline_s = time.monotonic() + SETTLE_S
        for job in self._jobs:
            while (status := job.get_status()) != "stopped":
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"RQ's job is {status}, not stopped")
                time.sleep(0.01)
        return {}
