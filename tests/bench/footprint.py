"""What a supervisor costs while nothing happens: memory, processor time, wake-ups. The kernel's own counts, proc(5)."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.bench.site import Site
    from tests.bench.supervisors import Supervisor

WEIGHED_AFTER_S = 2.0  # what is imported late is there by then
IDLE_AFTER_S = 7.0  # coord looks for descendants ever more seldom, and as seldom as it ever does from then on
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Weight:
    """Memory of a process in MB. `pss` counts what several have in common once, `rss` each time."""

    pss: float
    rss: float


@dataclass(frozen=True, slots=True)
class Idle:
    """What a process did in a minute."""

    cpu_ms: float
    wake_ups: float


def weigh(
    site: Site, supervisors: Sequence[Supervisor], *, runs: int, progress: Callable[[str], None]
) -> dict[str, list[dict[str, Weight]]]:
    """Give, for each supervisor and round, role -> weight. Each is alone: who shares pages makes others lighter."""
    figures: dict[str, list[dict[str, Weight]]] = {each.name: [] for each in supervisors}
    for run in range(runs):
        progress(f"memory: run {run + 1} of {runs}")
        for number, each in enumerate(supervisors):
            with each.start(site, f"{site.token}.weigh.{run}.{number}") as processes:
                time.sleep(WEIGHED_AFTER_S)
                figures[each.name].append({role: _weight(pid) for role, pid in processes.items()})
    return figures


def rest(
    site: Site, supervisors: Sequence[Supervisor], *, windows: int, window_s: float, progress: Callable[[str], None]
) -> dict[str, list[dict[str, Idle]]]:
    """Give, for each supervisor and window, role -> what it did. All are there at once: they leave each other alone."""
    figures: dict[str, list[dict[str, Idle]]] = {each.name: [] for each in supervisors}
    with ExitStack() as stack:
        running = {
            each.name: stack.enter_context(each.start(site, f"{site.token}.rest.{number}"))
            for number, each in enumerate(supervisors)
        }
        time.sleep(IDLE_AFTER_S)
        for window in range(windows):
            progress(f"idle: window {window + 1} of {windows}")
            before, began_s = _done(running), time.monotonic()
            time.sleep(window_s)
            after, minutes = _done(running), (time.monotonic() - began_s) / MINUTE_S
            for name, processes in running.items():
                done = {role: _between(before[pid], after[pid], minutes) for role, pid in processes.items()}
                figures[name].append(done)
    return figures


def _weight(pid: int) -> Weight:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kb = {field: float(number) for field, number in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    return Weight(pss=kb["Pss"] / 1024, rss=kb["Rss"] / 1024)


def _done(running: Mapping[str, Mapping[str, int]]) -> dict[int, tuple[float, int]]:
    """Give, per process, the processor time in seconds, and how often its threads went to sleep, since its start."""
    return {pid: (_cpu_s(pid), _sleeps(pid)) for processes in running.values() for pid in processes.values()}


def _cpu_s(pid: int) -> float:
    """In nanoseconds, by clock_getcpuclockid(3): /proc/PID/stat counts ticks of 10 ms, more than an idle one uses."""
    return time.clock_gettime((~pid << 3) | 2)


def _sleeps(pid: int) -> int:
    """Every sleep but the first is one wake-up. Linux counts them per thread."""
    statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(re.findall(r"^voluntary_ctxt_switches:\t(\d+)$", text, re.MULTILINE)[0]) for text in statuses)


def _between(before: tuple[float, int], after: tuple[float, int], minutes: float) -> Idle:
    return Idle((after[0] - before[0]) * 1000 / minutes, (after[1] - before[1]) / minutes)
