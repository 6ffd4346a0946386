"""Runs the contestants in turn, A B C A B C, so that a drift of the machine hits all alike; and keeps the pairs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tests.bench.onlooker import children, killed_on_failure, must_be_gone, time_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from tests.bench.onlooker import Gone
    from tests.bench.site import Site

QUIET_S = 0.15  # between start and stop, so that nobody's start-up is measured with its stop
SIGNAL_TO_GONE = "first signal to all gone, slowest host"  # own figure of those who have one


@dataclass(frozen=True, slots=True)
class Case:
    """So many hosts, with so many children each."""

    hosts: int
    each: int

    @property
    def total(self) -> int:
        """Children on all hosts."""
        return self.hosts * self.each


class Round(Protocol):
    """Children that run, once."""

    def stop(self) -> None:
        """Have them all stopped; need not wait for it."""

    def settle(self) -> dict[str, float]:
        """After they are gone: check the contestant's own word; give its own figures, in milliseconds."""


class Contestant(Protocol):
    """One way to stop children."""

    @property
    def name(self) -> str:
        """What the table calls it."""

    def takes(self, case: Case, /) -> bool:
        """Tell whether it can do this case."""

    def start(self, case: Case, mark: str) -> AbstractContextManager[Round]:
        """Start the children, each with the mark in its environment; leaving the context ends what is left."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round gave."""

    gone: Gone
    own_ms: dict[str, float]


def measure(
    site: Site, contestants: Sequence[Contestant], case: Case, *, runs: int, progress: Callable[[str], None]
) -> dict[str, list[Sample]]:
    """Give the samples of each contestant; the n-th of all were taken right after each other."""
    taking = [contestant for contestant in contestants if contestant.takes(case)]
    samples: dict[str, list[Sample]] = {contestant.name: [] for contestant in taking}
    for run in range(runs):
        progress(f"stop {case.hosts} x {case.each}: run {run + 1} of {runs}")
        first = run % len(taking)  # nobody is always the one that follows the heaviest
        for contestant in taking[first:] + taking[:first]:
            mark = f"{site.token}.{case.hosts}x{case.each}.{run}.{taking.index(contestant)}"
            samples[contestant.name].append(_one(contestant, case, mark))
    return samples


def _one(contestant: Contestant, case: Case, mark: str) -> Sample:
    with contestant.start(case, mark) as started, killed_on_failure(mark), children(mark, case.total) as pidfds:
        time.sleep(QUIET_S)
        gone = time_stop(started.stop, pidfds)
        own_ms = started.settle()
    must_be_gone(mark)
    return Sample(gone, own_ms)
