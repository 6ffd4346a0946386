"""Stops a host again and again while it works a busy queue of tiny jobs, and looks after each stop where the jobs are.

Half of the stops come at a random instant; the other half is aimed: as soon as a look sees a worker with a job that is
out of its queue and not started yet, where RQ loses jobs.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from tests.harness import until
from tests.rq.state import ENDED, faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.rq.fleet import Fleet, Host

BUSY = 60  # jobs that wait at least, on all queues, when a host is started
SPAN_S = 0.4  # a random stop comes within this time after the first job
AIM_S = 0.002  # an aimed one within this after it was seen
AIMED_MAX_S = 5.0
SLOW_S = 5.0  # no tiny job takes so long


@dataclass
class Found:
    """What came of some stops."""

    stops: int = 0
    jobs: int = 0
    faults: dict[str, str] = field(default_factory=dict)  # job -> fault
    never_ran: set[str] = field(default_factory=set)
    again: int = 0  # runs beyond the first: of jobs that were put back
    codes: set[int] = field(default_factory=set)
    registered: set[str] = field(default_factory=set)  # workers that RQ still counts after their host's end
    hung: int = 0  # hosts that SIGTERM did not end
    took_s: list[float] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)  # what hosts said that took long to stop

    def __str__(self) -> str:
        kinds = dict(Counter(self.faults.values()))
        return (
            f"{self.stops} stops, {self.jobs} jobs: {len(self.faults)} not in exactly one place {kinds}, "
            f"{len(self.never_ran)} never ran, {self.again} runs more than once, exit codes {sorted(self.codes)}, "
            f"still registered: {len(self.registered)}, hung: {self.hung}, "
            f"stop took {median(self.took_s or [0]):.2f} s, at most {max(self.took_s, default=0):.2f} s, "
            f"slow: {self.slow}"
        )


@dataclass
class HostStops:
    """Stops of one kind of host, on one or more queues. `seed` decides the instants."""

    fleet: Fleet
    kind: str
    queues: Sequence[str]
    seed: int
    n: int = 2
    options: Sequence[str] = ()
    found: Found = field(default_factory=Found)
    _open: set[str] = field(default_factory=set)  # jobs not seen ended yet

    def run(self, stops: int) -> Found:
        """Stop so many times, then have the rest worked off in peace."""
        for _ in self.one_by_one(stops):
            pass
        return self.finish()

    def one_by_one(self, stops: int) -> Iterator[Found]:
        """Stop so many times at most; gives what was found so far, after each."""
        chance = random.Random(self.seed)
        for _ in range(stops):
            self._fill()
            host = self.fleet.start(self.kind, *self.queues, n=self.n, options=self.options)
            until(self._ran_since, "the first job of a host")
            self._wait(chance)
            began_s = time.monotonic()
            self._stop(host)
            self.found.took_s.append(time.monotonic() - began_s)
            if self.found.took_s[-1] > SLOW_S:
                self.found.slow.append(host.said[-2000:])
            self._look()
            self.found.stops += 1
            yield self.found

    def finish(self) -> Found:
        """Have the rest worked off, by one host that nobody stops until it is done; look again."""
        host = self.fleet.up(self.kind, *self.queues, n=self.n, options=self.options)
        with suppress(AssertionError):  # the look tells which did not
            until(self._all_ended, "all jobs to end")
        self.found.codes |= set(host.stop())
        self._look()
        everybody = set(self.fleet.jobs)
        runs = self.fleet.diary.times("ran", everybody)
        self.found.never_ran = {job for job in everybody if not runs[job]} - set(self.found.faults)
        self.found.again = sum(count - 1 for count in runs.values() if count > 1)
        self.found.faults |= dict.fromkeys(self._open, "never ended")
        return self.found

    def _stop(self, host: Host) -> None:
        try:
            self.found.codes |= set(host.stop())
        except subprocess.TimeoutExpired:
            self.found.hung += 1
            for popen in host.popens:
                popen.kill()
            host.end()

    def _fill(self) -> None:
        each = -(-BUSY // len(self.queues))
        for queue in self.queues:
            waiting = int(self.fleet.connection.llen(f"rq:queue:{queue}"))
            self._open |= {job.id for job in self.fleet.enqueue_many(max(0, 2 * each - waiting), queue=queue)}
        self.found.jobs = len(self.fleet.jobs)
        self._size = self._diary_size()

    def _ran_since(self) -> bool:
        return self._diary_size() > self._size

    def _diary_size(self) -> int:
        path = self.fleet.diary.path
        return path.stat().st_size if path.exists() else 0

    def _wait(self, chance: random.Random) -> None:
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, SPAN_S))
            return
        end_s = time.monotonic() + AIMED_MAX_S
        while not self._in_between() and time.monotonic() < end_s and self._waiting():
            pass
        time.sleep(chance.uniform(0, AIM_S))

    def _in_between(self) -> bool:
        """Tell whether some job is out of its queue, and not started: in an intermediate list, a hand, or nowhere."""
        state = self.fleet.state(self._open)
        queued = {job for job, status in state.status.items() if status == "queued"}
        return bool(queued - state.at("queue"))

    def _waiting(self) -> bool:
        return any(self.fleet.connection.llen(f"rq:queue:{queue}") for queue in self.queues)

    def _all_ended(self) -> bool:
        state = self.fleet.state(self._open)
        return self._open <= state.at("finished") | state.at("failed")

    def _look(self) -> None:
        """Nobody works: each job is in its queue, or ended. Those that ended are not looked at again."""
        state = self.fleet.state(self._open)
        wrong = faults(state)
        self.found.faults |= {job: fault for job, fault in wrong.items() if job not in self.found.faults}
        ended = {job for kind in ENDED for job in state.at(kind)}
        self._open -= ended | set(wrong)
        self.found.registered |= set(state.workers)
