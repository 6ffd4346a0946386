"""Runs a few lines of Python as a program of their own, with what programs under `coord.child` need at hand."""

from __future__ import annotations

import subprocess
import sys

from tests.harness import WAIT_S, surroundings

BEGIN = """
import atexit, os, signal, sys, threading, time
from coord import sigterm
from coord.child import stop

def say(text):
    print(text, flush=True)

def term():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0)

def from_outside():
    # SIGTERM to another thread, while this one sleeps: only a nudge wakes it
    timer = threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))
    timer.start()
    return timer
"""


def outcome(script: str) -> tuple[list[str], int]:
    """Run a program; give the lines that it said, and its exit code."""
    ended = subprocess.run(
        # of forks beside threads, which Python 3.12 shows: here, they are what is tested
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", BEGIN + script],
        check=False,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env=surroundings(),
    )
    return [*ended.stdout.splitlines(), *ended.stderr.splitlines()], ended.returncode
