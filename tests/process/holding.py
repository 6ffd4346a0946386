"""Starts processes that have something, and kills them by handle."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.harness import WAIT_S

HOLDERS = str(Path(__file__).parent.parent / "holders.py")


@dataclass
class Holder:
    """A process that has something. `words`: what it said of it."""

    popen: subprocess.Popen[str]
    words: list[str]

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def pids(self) -> list[int]:
        """The process and its children."""
        return [self.pid, *map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())]

    def kill(self) -> None:
        """Send SIGKILL to its children, which might clean up after it, and to the process; wait until all are gone."""
        for pid in (*self.pids[1:], self.pid):
            kill(pid)
        self.popen.wait()

    def close(self) -> None:
        """End what a test left."""
        if self.popen.poll() is None:
            self.kill()
        if self.popen.stdout:
            self.popen.stdout.close()


def start(program: str, argument: object = "") -> Holder:
    """Start one of the holders and wait until it has what it is to have."""
    popen = subprocess.Popen(
        [sys.executable, HOLDERS, program, str(argument)], stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert popen.stdout
    words = popen.stdout.readline().split()
    assert words[:1] == ["ready"], f"{program} did not come up"
    return Holder(popen, words[1:])


def kill(pid: int) -> None:
    """Kill it, and wait until it has ended."""
    handle = os.pidfd_open(pid)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    assert poll.poll(WAIT_S * 1000)
    os.close(handle)
