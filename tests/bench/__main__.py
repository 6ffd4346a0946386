"""`python -m tests.bench`: prints all figures of one run, side by side."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import signal
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import redis

from tests.bench.coord_stop import CoordStop
from tests.bench.floor import COMPILER, Floor, publish_ms
from tests.bench.footprint import rest, weigh
from tests.bench.many_agents import SIZES, job_bytes, measure_many
from tests.bench.measure import Case, measure
from tests.bench.naive import Naive
from tests.bench.recovery import measure_recovery
from tests.bench.rq_stop import RqStop
from tests.bench.rq_workers import STOCK, measure_rq
from tests.bench.site import site
from tests.bench.startup import measure_startup
from tests.bench.supervisors import SUPERVISORS
from tests.bench.table import (
    idle_table,
    many_table,
    memory_table,
    own_table,
    recovery_table,
    rq_table,
    signal_table,
    single_table,
    startup_table,
    stop_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.measure import Contestant
    from tests.bench.site import Site

CASES = (Case(hosts=1, each=10), Case(hosts=1, each=100), Case(hosts=1, each=1000), Case(hosts=4, each=25))
FEW = CASES[0]
HOSTS_MAX = max(case.hosts for case in CASES)
LONG = 500  # children; a case with more gets a third of the rounds, since starting them takes longer than all else
PARTS = ("stop", "rq", "startup", "footprint", "record")
WEIGHINGS = 3
WINDOWS = 3
WINDOW_S = 30.0  # RQ's worker looks after its work-horse so often, others more often
INTERRUPTED = 130


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure coord beside its peers.")
    parser.add_argument("--runs", type=int, default=15, help="rounds of each contestant (default: %(default)s)")
    parser.add_argument("--part", choices=PARTS, action="append", help="measure only this (default: all)")
    given = parser.parse_args()
    runs, parts = max(1, given.runs), given.part or PARTS
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    # the loop's multiprocessing takes two descriptors for each child, and many hosts allow 1024
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    began_s = time.monotonic()
    try:
        with site() as made:
            say(_surroundings(made, runs))
            if "stop" in parts:
                _all_stops(made, runs)
            if "rq" in parts:
                with redis.Redis.from_url(made.url) as connection:
                    say(rq_table(measure_rq(made, connection, runs=runs, progress=progress), against=STOCK))
            if "startup" in parts:
                say(startup_table(measure_startup(made, runs=runs, progress=progress), against="rq --help"))
            if "footprint" in parts:
                _footprint(made)
            if "record" in parts:
                _record(made, runs)
    except KeyboardInterrupt:
        progress("")
        sys.stderr.write("interrupted; everything that was started is ended\n")
        return INTERRUPTED
    say(f"Took {time.monotonic() - began_s:.0f} s; load at the end {os.getloadavg()[0]:.1f}.")
    return 0


def say(text: str) -> None:
    """Print a part of the result."""
    progress("")
    sys.stdout.write(f"{text}\n\n")
    sys.stdout.flush()


def progress(text: str) -> None:
    """Show a person what is being done, on one line that the next one replaces."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _all_stops(made: Site, runs: int) -> None:
    with ExitStack() as stack:  # contestants end with it: what is weighed later must not share pages with them
        contestants = _contestants(made, stack)
        for case in CASES:
            _stops(made, contestants, case, runs if case.total < LONG else -(-runs // 3))


def _contestants(made: Site, stack: ExitStack) -> Sequence[Contestant]:
    connection = stack.enter_context(redis.Redis.from_url(made.url))
    floor = Floor.compiled(made)
    if floor is None:
        say(f"No {COMPILER} here: the floor in C is left out.")
    return (
        CoordStop(made),
        stack.enter_context(RqStop(made, connection, per_child=False).workers(HOSTS_MAX)),
        # for the larger cases it would take 100 workers and more, which start longer than all the rest runs
        stack.enter_context(RqStop(made, connection, per_child=True).workers(FEW.total)),
        Naive(made),
        *([floor] if floor else []),
    )


def _stops(made: Site, contestants: Sequence[Contestant], case: Case, runs: int) -> None:
    samples = measure(made, contestants, case, runs=runs, progress=progress)
    say(stop_table(case, samples, against="coord"))
    say(own_table(case, samples["coord"], "coord"))
    say(signal_table(case, samples, against="coord"))
    if case is CASES[-1]:
        say(single_table("floor: PUBLISH to subscriber, bare sockets", [publish_ms(made) for _ in range(runs)]))


def _footprint(made: Site) -> None:
    missing = [each.name for each in SUPERVISORS if not each.installed]
    if missing:
        say(f"Not installed, and left out: {', '.join(missing)}.")
    present = [each for each in SUPERVISORS if each.installed]
    say(memory_table(weigh(made, present, runs=WEIGHINGS, progress=progress), against="coord"))
    say(idle_table(rest(made, present, windows=WINDOWS, window_s=WINDOW_S, progress=progress), against="coord"))


def _record(made: Site, runs: int) -> None:
    """Many agents are few processes: a third of the rounds tells enough."""
    for size, taken in measure_many(SIZES, runs=-(-runs // 3), progress=progress).items():
        say(many_table(size, taken))
    say(single_table("memory in Redis of an ended job of one agent", [job_bytes() for _ in range(3)], "bytes"))
    say(recovery_table(measure_recovery(made, runs=runs, progress=progress)))


def _surroundings(made: Site, runs: int) -> str:
    with redis.Redis.from_url(made.url) as connection:
        server: Any = connection.info("server")
    version = server.get("valkey_version") or server["redis_version"]
    return (
        f"{runs} runs, contestants in turn; median  (least - most); ratios of neighbouring rounds\n"
        f"Linux {platform.release()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, Valkey {version} on a Unix socket\n"
        "Seen from outside through pidfds, from the call that asks to the end of the last child.\n"
        "RQ kills with SIGKILL, the others ask first. The loop and the floor are told through a pipe, not by Redis."
    )


def _interrupt(_number: int, _frame: object) -> None:
    """Stop once; what follows ends everything and must not be interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
