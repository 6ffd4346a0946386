"""What tests of `JobScope` share: the programs that use it, started with the lab's environment."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import WAIT_S, until
from tests.process.conftest import containment, shm  # noqa: F401  # fixtures
from tests.scope import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness import Ended, Lab, Started

UNCHANGED = {"what", "host", "pid", "at_s"}  # of what a program tells when nothing of it is different
PROGRAMS = str(Path(__file__).with_name("programs.py"))


@dataclass
class Program:
    """A program that runs, and what it tells."""

    started: Started
    host: str
    path: str

    def told(self, what: str) -> list[dict[str, Any]]:
        """Give all facts of one kind."""
        return [fact for fact in facts.told(what, self.path) if fact["host"] == self.host]

    def signal(self, number: int) -> None:
        """Signal the program alone."""
        self.started.signal(number)

    def ctrl_c(self) -> None:
        """Send SIGINT to all in its process group, as a terminal does."""
        os.killpg(self.started.popen.pid, signal.SIGINT)

    def until(self, what: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for facts; a program that ended will tell no more."""
        until(lambda: len(self.told(what)) >= count or not self.started.running, f"{count} times {what!r}", 2 * WAIT_S)
        found = self.told(what)
        assert len(found) >= count, f"{what!r} was told {len(found)} times: {self.end()}"
        return found

    def end(self) -> Ended:
        """Wait for its end."""
        return self.started.end(2 * WAIT_S)

    @property
    def ended(self) -> dict[str, Any]:
        """How its block was left."""
        return self.until("ended")[0]


@pytest.fixture
def program(lab: Lab, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start one: `program("ranks", scope={...}, ranks=[...])`. What has left its block has a moment to end."""

    def start(name: str, *, host: str = "here", env: dict[str, str] | None = None, **options: Any) -> Program:
        path = str(tmp_path / "facts")
        words = (PROGRAMS, name, json.dumps(options))
        started = lab.start(*words, program=sys.executable, host=host, FACTS=path, **(env or {}))
        runs.append(Program(started, host, path))
        return runs[-1]

    runs: list[Program] = []
    yield start
    if all(run.told("ended") for run in runs):
        until(lambda: not lab.left(), "the programs and the helpers of multiprocessing to have ended")
