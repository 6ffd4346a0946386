"""Plays many histories, and says which of them did not hold."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from tests.sim.history import Ended, play

if TYPE_CHECKING:
    from collections.abc import Callable

LAST_EVENTS = 60
BATCH = 50  # histories that a process plays in a row
COLLECT_EVERY = 10
REAL_S = time.perf_counter


def story(ended: Ended, last: int | None = LAST_EVENTS) -> str:
    """Give what happened last, and how to see it again."""
    trace = ended.trace if last is None else ended.trace[-last:]
    lines = [
        f"{at_s:9.4f}  {who:14} {what} {' '.join(f'{name}={value}' for name, value in facts.items())}"
        for at_s, who, what, facts in trace
    ]
    found = "; ".join(ended.found) or "all invariants held"
    return "\n".join([*lines, f"seed {ended.seed}: {found}", f"replay: python -m tests.sim --seed {ended.seed}"])


def play_range(first: int, count: int) -> list[Ended]:
    """Play some in this process; gives those that did not hold."""
    bad = []
    for seed in range(first, first + count):
        ended = play(seed)
        if ended.found:
            bad.append(ended)
        if seed % COLLECT_EVERY == 0:
            gc.collect()
    return bad


def soak(first: int, count: int, processes: int, say: Callable[[str], None]) -> list[Ended]:
    """Play many on several processes, and say how it goes."""
    began_s, said_s = REAL_S(), 0.0
    bad: list[Ended] = []
    done = 0
    with ProcessPoolExecutor(processes, max_tasks_per_child=40) as pool:
        batches = [(seed, min(BATCH, first + count - seed)) for seed in range(first, first + count, BATCH)]
        for (_, played), found in zip(batches, pool.map(_batch, batches), strict=True):
            done += played
            for ended in found:
                bad.append(ended)
                say(story(ended))
            passed_s = REAL_S() - began_s
            if passed_s - said_s > 10 or done == count:
                said_s = passed_s
                say(f"{done} of {count} histories, {len(bad)} bad, {done / passed_s:.1f} per second")
    return bad


def _batch(batch: tuple[int, int]) -> list[Ended]:
    return play_range(*batch)
