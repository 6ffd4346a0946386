"""What a person waits for: whole commands, from their start to their end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from coord.coordinator import Coordinator
from tests.bench.coord_stop import agent
from tests.bench.measure import QUIET_S
from tests.bench.onlooker import children, must_be_gone, time_stop
from tests.bench.program import program, until_ended
from tests.bench.site import BIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.site import Site

COMMAND_S = 60.0
COORD = str(BIN / "coord")


def measure_startup(site: Site, *, runs: int, progress: Callable[[str], None]) -> dict[str, list[float]]:
    """Give milliseconds per command, taken in turn. The first round fills the caches and is thrown away."""
    stopped = f"{site.token}.stopped"
    with Coordinator(site.url, by="bench", retain_s=3600) as coordinator:
        coordinator.request(stopped, reason="bench", fence_unknown=True)
    plain = {
        "python -c pass": (sys.executable, "-c", "pass"),
        "python -c 'import redis'": (sys.executable, "-c", "import redis"),
        "rq --help": (str(BIN / "rq"), "--help"),
        "coord --help": (COORD, "--help"),
        "coord shutdown, job already stopped": (COORD, "shutdown", "--job-id", stopped),
    }
    figures: dict[str, list[float]] = {}
    for run in range(-1, runs):
        progress(f"whole commands: run {max(run, 0) + 1} of {runs}")
        taken = {name: _command_ms(site, argv) for name, argv in plain.items()}
        taken |= _live_shutdown_ms(site, f"{site.token}.live.{run}")
        for name, ms in taken.items() if run >= 0 else ():
            figures.setdefault(name, []).append(ms)
    return figures


def _live_shutdown_ms(site: Site, job_id: str) -> dict[str, float]:
    """Stop one agent with one child: the whole command, and within it the child's end."""
    command: list[float] = []
    argv = (COORD, "shutdown", "--job-id", job_id)
    with agent(site, job_id, host="h0", count=1) as started, children(job_id, 1) as pidfds:
        time.sleep(QUIET_S)
        gone = time_stop(lambda: command.append(_command_ms(site, argv)), pidfds)
        started.wait(COMMAND_S)
    must_be_gone(job_id)
    return {"coord shutdown, one host, until its child is gone": gone.all_ms, "coord shutdown, one host": command[0]}


def _command_ms(site: Site, argv: tuple[str, ...]) -> float:
    began_s = time.monotonic()
    with program(argv, site.environment()) as started:
        until_ended(started.pid, COMMAND_S)
        took_s = time.monotonic() - began_s
        if started.wait(COMMAND_S) != 0:
            raise RuntimeError(f"{argv} ended with {started.returncode}")
    return took_s * 1000
