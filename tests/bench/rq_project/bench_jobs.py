"""What the workers run while RQ's and coord's are measured; a user's project, so nothing of ours is imported."""

from __future__ import annotations

import os
import subprocess
import time

from rq import get_current_job

LONG_S = 300.0


def polite(key: str) -> None:
    """Say that it has begun, and wait to be stopped."""
    _say(key)
    time.sleep(LONG_S)


def with_daemon(key: str, name: str, mark: str) -> None:
    """The same, with a child in a session of its own, which has the mark in its environment."""
    with subprocess.Popen(["sleep", str(LONG_S)], start_new_session=True, env={**os.environ, name: mark}):
        polite(key)


def sleeps(name: str, mark: str) -> None:
    """Run one, and wait."""
    subprocess.run(["sleep", "1000"], env={**os.environ, name: mark}, check=False)


def began() -> float:
    """Give when the function began, in CLOCK_MONOTONIC: one clock for the host."""
    return time.monotonic()


def nothing() -> None:
    """Take no time: what is left is what a worker takes for each job."""


def _say(key: str) -> None:
    job = get_current_job()
    assert job
    job.connection.set(key, os.getpid())
