"""Programs that a contestant needs, each ended by its handle when it is not needed any more."""

from __future__ import annotations

import os
import select
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

END_S = 15.0  # how long a program may take to leave after SIGTERM


def sleeps(count: int) -> tuple[str, ...]:
    """Give the command that every contestant runs: a shell that starts `count` children and waits for them."""
    return ("sh", "-c", f"i=0; while [ $i -lt {count} ]; do sleep 1000 & i=$((i+1)); done; wait")


@contextmanager
def program(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program out of reach of this terminal's Ctrl-C; at the end: SIGTERM, a bounded wait, SIGKILL."""
    started = subprocess.Popen(
        argv,
        env=environment,
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield started
    finally:
        _end(started)


def until_ended(pid: int, wait_s: float) -> None:
    """Wait for a child of ours to the instant: `Popen.wait` with a time limit looks only every 50 ms."""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(wait_s * 1000)
    os.close(pidfd)


def _end(started: subprocess.Popen[bytes]) -> None:
    started.terminate()
    try:
        started.wait(END_S)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait(END_S)
    for pipe in (started.stdin, started.stdout):
        if pipe:
            pipe.close()
