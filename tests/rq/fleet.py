"""Hosts that work RQ queues: `coord worker` or stock `rq worker`, by the same calls, against a real server.

A host is one `coord worker -n N`, or N times `rq worker`, which has no command for a whole host. Output goes to files:
workers on a busy queue say more than a pipe holds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rq import Queue
from rq.job import Job

from tests.harness import COORD, MARK, WAIT_S, leftovers, surroundings, until
from tests.rq.diary import Diary
from tests.rq.state import State, faults, look

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import redis

    from tests.harness import Ended, Lab

BIN = Path(sys.executable).parent
RQ = str(BIN / "rq")
PROJECT = Path(__file__).parent / "project"
KEEP_S = 86400  # results stay as long as a test looks at them
QUIET = {"coord": ("--quiet", "--log-level", "warning"), "rq": ("--quiet",)}


@dataclass
class Host:
    """One host's processes; for `rq` as many as it has workers."""

    kind: str
    name: str
    count: int
    popens: list[subprocess.Popen[bytes]]
    log: Path

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Signal what a platform started: not the workers of an agent."""
        for popen in self.popens:
            popen.send_signal(number)

    def end(self, wait_s: float = WAIT_S) -> list[int]:
        """Wait for the end of all; give the exit codes."""
        end_s = time.monotonic() + wait_s
        return [popen.wait(max(0.1, end_s - time.monotonic())) for popen in self.popens]

    def stop(self, wait_s: float = WAIT_S) -> list[int]:
        """Send SIGTERM once, and wait for the end."""
        self.signal()
        return self.end(wait_s)

    @property
    def running(self) -> bool:
        """Tell whether any of its processes has not ended."""
        return any(popen.poll() is None for popen in self.popens)

    @property
    def said(self) -> str:
        """What it wrote, both outputs."""
        return self.log.read_text(errors="replace")


@dataclass
class Fleet:
    """Hosts on one server, and the jobs that were given to them. `folder`: of this test alone."""

    lab: Lab
    url: str
    connection: redis.Redis  # answers with texts
    rq: redis.Redis  # as RQ wants it: it pickles
    folder: Path
    hosts: list[Host] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)  # job -> queue
    path: Path = PROJECT

    @property
    def diary(self) -> Diary:
        """What the jobs noted."""
        return Diary(self.folder / "diary")

    def start(
        self, kind: str, *queues: str, host: str = "a", n: int = 1, options: Sequence[str] = (), **environment: str
    ) -> Host:
        """Start a host; see `ready`."""
        log = self.folder / f"{host}.{len(self.hosts)}.log"
        if kind == "coord":
            own = ("-n", str(n), "--name", host, "--path", str(self.path))
            commands = [[COORD, "worker", *queues, *own, *QUIET[kind], *options]]
        else:
            names = [f"{host}-{len(self.hosts)}.{number}" for number in range(n)]
            path = ("--path", str(self.path))
            commands = [[RQ, "worker", *queues, "--name", each, *path, *QUIET[kind], *options] for each in names]
        made = {**self.environment(host), **environment}
        self.hosts.append(Host(kind, host, n, [_start(command, made, log) for command in commands], log))
        return self.hosts[-1]

    def environment(self, host: str) -> dict[str, str]:
        """Give what a host's processes find in theirs."""
        own = {MARK: self.lab.token, "COORD_HOST": host, "RQ_REDIS_URL": self.url, "TEST_DIARY": str(self.diary.path)}
        return {**surroundings(), **self.lab.environment, **own}

    def ready(self, *hosts: Host) -> None:
        """Wait until every worker of these hosts (all by default) is registered, and listens."""
        for host in hosts or self.hosts:
            until(partial(self._is_ready, host), f"{host.count} workers of {host.name}: {host.said[-2000:]}")

    def up(self, kind: str, *queues: str, host: str = "a", n: int = 1, options: Sequence[str] = ()) -> Host:
        """Start a host and wait until it is ready."""
        started = self.start(kind, *queues, host=host, n=n, options=options)
        self.ready(started)
        return started

    def worker_names(self, host: str) -> list[str]:
        """Give the RQ names of a host's workers: they begin with its name."""
        found: Any = self.connection.smembers("rq:workers")
        names = (str(key).removeprefix("rq:worker:") for key in found)
        return sorted(name for name in names if name.startswith(f"{host}-"))

    def worker_pids(self, host: str) -> set[int]:
        """Give the pids of a host's workers, as RQ has them."""
        found = (self.worker(name).get("pid") for name in self.worker_names(host))
        return {int(pid) for pid in found if pid}

    def worker(self, name: str) -> dict[str, str]:
        """Give RQ's hash of a worker."""
        found: Any = self.connection.hgetall(f"rq:worker:{name}")
        return dict(found)

    def enqueue(self, function: str, *args: Any, queue: str = "default", **options: Any) -> Job:
        """Enqueue a function of the project's `jobs`; options are those of RQ's `enqueue`."""
        job = self.queue(queue).enqueue(f"jobs.{function}", args=args, **{"result_ttl": KEEP_S, **options})
        self.jobs[job.id] = queue
        return job

    def give(self, job: str, function: str, *args: Any, queue: str = "default", **options: Any) -> Job:
        """The same as a part of a job of coord's, by the API for it."""
        from coord.rq import enqueue

        made = enqueue(self.queue(queue), f"jobs.{function}", job_id=job, args=args, result_ttl=KEEP_S, **options)
        self.jobs[made.id] = queue
        return made

    def enqueue_many(self, count: int, function: str = "tiny", *, queue: str = "default") -> list[Job]:
        """Enqueue so many, quickly."""
        prepared = [Queue.prepare_data(f"jobs.{function}", result_ttl=KEEP_S) for _ in range(count)]
        made = self.queue(queue).enqueue_many(prepared)
        self.jobs.update({job.id: queue for job in made})
        return made

    def queue(self, name: str) -> Queue:
        """Give RQ's own object."""
        return Queue(name, connection=self.rq)

    def state(self, jobs: Collection[str] | None = None) -> State:
        """Look where all jobs (or these) are."""
        return look(self.connection, sorted(set(self.jobs.values())), self.jobs if jobs is None else jobs)

    def faults(self, *, at_rest: bool = True) -> dict[str, str]:
        """Tell which jobs are not in exactly one place; see `tests.rq.state`."""
        return faults(self.state(), at_rest=at_rest)

    def fetch(self, job: str) -> Job:
        """Give RQ's own object of a job."""
        return Job.fetch(job, connection=self.rq)

    def shutdown(self, job: str, *options: str) -> Ended:
        """Run `coord shutdown` to its end."""
        return self.lab.call("shutdown", "--job-id", job, "--json", *options, RQ_REDIS_URL=self.url)

    def result(self, job: str) -> str:
        """Give what RQ's latest Result of a job says of a failure or stop."""
        latest = self.fetch(job).latest_result()
        return str(latest and latest.exc_string)

    def settled(self, what: str, fact: Any, wait_s: float = WAIT_S) -> State:
        """Wait until the state shows a fact; give the state."""
        seen: list[State] = []

        def shown() -> bool:
            seen[:] = [self.state()]
            return bool(fact(seen[0]))

        try:
            until(shown, what, wait_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self._account(seen[0])}") from None
        return seen[0]

    def _account(self, state: State) -> str:
        failed = {job: self.result(job)[-1000:] for job in sorted(state.at("failed"))[:2]}
        return f"there is {state.counts()}, {faults(state, at_rest=False)}, {failed}"

    def left(self) -> dict[int, str]:
        """Find what still runs of the hosts and of their jobs."""
        return leftovers(self.lab.token)

    def close(self) -> None:
        """End what a failed test left."""
        for host in self.hosts:
            for popen in host.popens:
                if popen.poll() is None:
                    popen.kill()
                popen.wait()

    def _is_ready(self, host: Host) -> bool:
        assert host.running, f"{host.kind} worker on {host.name} ended: {host.said[-4000:]}"
        workers = [self.worker(name) for name in self.worker_names(host.name)]
        live = [each for each in workers if each.get("state") in {"idle", "busy"} and not gone(int(each["pid"]))]
        return len(live) >= host.count


def _start(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=log.parent,
            start_new_session=True,
        )


def gone(pid: int) -> bool:
    """Tell whether no live process has this pid."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True


def children(pid: int) -> list[int]:
    """Give a process's children."""
    with contextlib.suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def kill_pid(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process of a fleet by handle."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)
