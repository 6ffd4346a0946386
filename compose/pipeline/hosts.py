"""The demo's hosts: starts an agent for each, apart from the user's own server and settings, and leaves none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from compose.pipeline.scan import kill, marked

if TYPE_CHECKING:
    from collections.abc import Iterable

COORD = str(Path(sys.executable).with_name("coord"))
BROKEN = "def total(rows):\n    return sum(row.price for row in"  # a file that was cut off
MARK = "DEMO_MARK"  # an agent has it in its environment, and so has everything that it starts, however deep
IDLE_S = 1.0  # the embedded server leaves this long after its last client
STOP_MAX_S = 20.0  # for an agent: its plan, and its last report
LEAVE_MAX_S = 20.0  # for what an agent that was killed left to its guardian, and for the server
LOOK_S = 0.1


@dataclass
class Host:
    """One host: what its agent is told, what about it is special, and how it has to end."""

    name: str
    about: str
    words: tuple[str, ...]  # its command line as a person would type it
    told: tuple[str, ...]  # what `coord` is told
    exit_code: int
    environment: dict[str, str] = field(default_factory=dict)
    agent: subprocess.Popen[bytes] | None = None

    @property
    def ended(self) -> int | None:
        """The exit code of its agent; None while that runs."""
        return self.agent.poll() if self.agent else None

    def log(self, folder: Path) -> Path:
        """Give the file that has its output."""
        return folder / f"host-{self.name}.log"

    def start(self, mark: str, folder: Path) -> None:
        """Start its agent, in a session of its own: a Ctrl-C is for the demo, which then stops the agents in order."""
        with self.log(folder).open("ab") as log:
            self.agent = subprocess.Popen(
                [COORD, *self.told],
                env={**os.environ, "COORD_HOST": self.name, MARK: mark, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def broken_file(folder: Path) -> Path:
    """Give a file of Python that was cut off."""
    path = folder / "broken.py"
    path.write_text(BROKEN)
    return path


def keep_apart(folder: Path) -> None:
    """Have everything that this process starts use a server in `folder`, and nothing of the user's settings."""
    for name in [name for name in os.environ if name.startswith(("COORD_", "RQ_"))]:
        del os.environ[name]
    os.environ |= {"COORD_RUNTIME_DIR": str(folder), "COORD_EMBEDDED_IDLE_S": str(IDLE_S), "TMPDIR": str(folder)}


def leave(hosts: Iterable[Host], folder: Path) -> list[int]:
    """Leave nothing behind, whatever happened before. Gives the pids that had to be killed for that: none, in order."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # what follows is bounded, and must be done
    stop([host.agent for host in hosts if host.agent and host.ended is None])
    # what we started has the first in its environment; the server puts its title, with the second, over its own
    ours = (f"COORD_RUNTIME_DIR={folder}", f"unixsocket:{folder}")
    end_s = time.monotonic() + LEAVE_MAX_S
    while marked(*ours) and time.monotonic() < end_s:
        time.sleep(LOOK_S)
    left = marked(*ours)
    for pid in left:
        kill(pid, ours)
    return left


def stop(agents: list[subprocess.Popen[bytes]]) -> None:
    """Ask the agents to stop what they run and leave; kill who has not left in time."""
    for agent in agents:
        agent.terminate()
    end_s = time.monotonic() + STOP_MAX_S
    for agent in agents:
        try:
            agent.wait(max(0.0, end_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            agent.kill()
            with suppress(subprocess.TimeoutExpired):
                agent.wait(LOOK_S)
