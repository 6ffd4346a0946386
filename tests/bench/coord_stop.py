"""Contestant: `coord run` on every host, stopped by one request over a warm connection."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from statistics import median
from typing import TYPE_CHECKING

from coord.coordinator import Coordinator
from coord.messages import Outcome
from coord.snapshot import Verdict
from tests.bench.measure import SIGNAL_TO_GONE
from tests.bench.program import program, sleeps
from tests.bench.site import BIN

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from coord.snapshot import Snapshot
    from tests.bench.measure import Case
    from tests.bench.site import Site

VERDICT_S = 30.0
AGENT_S = 30.0
STOPPED = 143  # how `coord run` ends when its job was stopped


class CoordStop:
    """One agent per host, each a real `coord run`."""

    name = "coord"

    def __init__(self, site: Site) -> None:
        self._site = site
        self._coordinator = Coordinator(site.url, by="bench", retain_s=3600)

    def takes(self, _case: Case) -> bool:
        """Any."""
        return True

    @contextmanager
    def start(self, case: Case, mark: str) -> Iterator[CoordRound]:
        """Start the agents; the job has the name of the mark."""
        with ExitStack() as stack:
            agents = [
                stack.enter_context(agent(self._site, mark, host=f"h{number}", count=case.each))
                for number in range(case.hosts)
            ]
            yield CoordRound(self._coordinator, mark, agents, case)


class CoordRound:
    """One job."""

    def __init__(
        self, coordinator: Coordinator, job_id: str, agents: list[subprocess.Popen[bytes]], case: Case
    ) -> None:
        self._coordinator = coordinator
        self._job_id = job_id
        self._agents = agents
        self._case = case

    def stop(self) -> None:
        """Make the request."""
        self._coordinator.request(self._job_id, reason="bench")

    def settle(self) -> dict[str, float]:
        """Wait for the verdict and for the agents' ends; give coord's own figures."""
        for snapshot, _ in self._coordinator.follow(self._job_id, timeout_s=VERDICT_S):
            last = snapshot
        self._check(last)
        for each in self._agents:
            if each.wait(AGENT_S) != STOPPED:
                raise RuntimeError(f"`coord run` ended with {each.returncode}, not {STOPPED}")
        return _own_figures(last)

    def _check(self, snapshot: Snapshot) -> None:
        shells = self._case.hosts
        if snapshot.verdict is not Verdict.CLEAN or snapshot.count(Outcome.TERMINATED) != self._case.total + shells:
            raise RuntimeError(f"job {snapshot.job_id} ended as {snapshot.verdict}, not clean with every process in it")


@contextmanager
def agent(site: Site, job_id: str, *, host: str, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a `coord run` with `count` children; it marks them with the job's name."""
    argv = (str(BIN / "coord"), "run", "--job-id", job_id, "--", *sleeps(count))
    with program(argv, site.environment(job_id, COORD_HOST=host, COORD_REDIS_URL=site.url)) as started:
        yield started


def _own_figures(snapshot: Snapshot) -> dict[str, float]:
    figures = [(each.report.first_signal_ms, each.report.all_gone_ms) for each in snapshot.agents]
    said = [(first, gone) for first, gone in figures if first is not None and gone is not None]
    return {
        "first signal, median host": median(first for first, _ in said),
        "first signal, slowest host": max(first for first, _ in said),
        "all gone, slowest host": max(gone for _, gone in said),
        SIGNAL_TO_GONE: max(gone - first for first, gone in said),
        "verdict": (snapshot.took_s or 0.0) * 1000,
    }
