"""PID 1 of a dyno: `python dyno_init.py REPORT AGAIN_S BOUND_S COMMAND`. Does to a command what a platform does.

On SIGTERM: SIGTERM to every process of the pid namespace but itself, at one instant, kill(2) with -1; the same again
after AGAIN_S; SIGKILL to all that is left after BOUND_S. When the command has ended, so has the dyno: what is left then
is told, and goes with the namespace. REPORT gets one JSON line per event, with seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

SIGNALS = {signal.SIGTERM, signal.SIGCHLD}
LONG_S = 3600.0


def main(report: str, again: str, bound: str, command: str) -> NoReturn:
    """Run the command as a shell's, and be its platform until it ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.setsid()
        os.execvp("bash", ["bash", "-c", command])  # a Procfile's line is a shell's
    tell(report, "started", pid=pid)
    steps: list[tuple[float, str, int]] = []
    while (status := reaped(pid)) is None:
        number = next_signal(steps)
        if number == signal.SIGTERM and not steps:
            now_s = time.monotonic()
            steps += [(now_s, "asked", signal.SIGTERM), (now_s + float(again), "asked again", signal.SIGTERM)]
            steps += [(now_s + float(bound), "killed", signal.SIGKILL), (now_s + LONG_S, "", 0)]
        while steps and steps[0][0] <= time.monotonic():
            due_s, what, sent = steps.pop(0)
            tell(report, what, processes=others(), at=due_s)
            to_all(sent)
    code = os.waitstatus_to_exitcode(status)
    tell(report, "ended", code=code, left=others())
    sys.exit(code if code >= 0 else 128 - code)


def next_signal(steps: list[tuple[float, str, int]]) -> int | None:
    """Wait for SIGTERM, a child's end, or the next step's time."""
    wait_s = max(0.0, steps[0][0] - time.monotonic()) if steps else LONG_S
    came = signal.sigtimedwait(SIGNALS, wait_s)
    return came.si_signo if came else None


def to_all(number: int) -> None:
    """Signal everybody here but PID 1: the kernel does it in one go."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, number)


def reaped(main_pid: int) -> int | None:
    """Reap whoever has ended, orphans too; give the command's wait status when it is among them."""
    found = None
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return found
        if pid == main_pid:
            return status


def others() -> dict[int, str]:
    """Give pid -> command of every live process here but this one."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    found = {pid: alive(pid) for pid in pids if pid != 1}
    return {pid: command for pid, command in found.items() if command}


def alive(pid: int) -> str:
    """Give a live process's command; empty for a dead one."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
    return "" if state in "ZX" else command or "?"


def tell(report: str, what: str, **facts: Any) -> None:
    """Add a line to the report."""
    with open(report, "a") as file:  # noqa: PTH123
        file.write(json.dumps({"what": what, "at": time.monotonic(), **facts}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
