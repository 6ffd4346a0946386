"""A platform of dynos: starts the process types of a Procfile, each process in a pid namespace of its own.

It ends them as Heroku does: SIGTERM to every process at once, possibly twice, SIGKILL to all when their time is over.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.harness import WAIT_S, until
from tests.rq.fleet import kill_pid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INIT = Path(__file__).with_name("dyno_init.py")
AGAIN_S, BOUND_S = 1.0, 30.0  # what Heroku gives


@dataclass(frozen=True)
class Ending:
    """How a dyno ended. `code`: the command's, negative for a signal. `took_s`: from the first SIGTERM on, if any."""

    code: int
    took_s: float | None
    killed: dict[int, str]  # whom SIGKILL hit when the time was over: pid -> command
    left: dict[int, str]  # who was still there when the command had ended, and went with the namespace


@dataclass
class Dyno:
    """One process of a type, with all that it starts."""

    name: str
    popen: subprocess.Popen[bytes]
    report: Path
    log: Path

    @property
    def pid(self) -> int:
        """PID 1 of the dyno, as it is out here; it is the one child of `unshare`."""
        children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children")
        (pid,) = until(lambda: children.read_text().split(), f"{self.name} to start")
        return int(pid)

    def events(self, what: str) -> list[dict[str, Any]]:
        """Read what its PID 1 reported of this."""
        lines = self.report.read_text().splitlines() if self.report.exists() else []
        return [entry for entry in map(json.loads, lines) if entry["what"] == what]

    def ready(self) -> None:
        """Wait until the command is started."""
        until(lambda: self.events("started"), f"{self.name} to start its command")

    def stop(self) -> None:
        """Have it stopped; does not wait."""
        kill_pid(self.pid, signal.SIGTERM)

    def end(self, wait_s: float = BOUND_S + WAIT_S) -> Ending:
        """Wait for its end."""
        self.popen.wait(wait_s)
        (ended,) = self.events("ended")
        asked, killed = self.events("asked"), self.events("killed")
        took_s = ended["at"] - asked[0]["at"] if asked else None
        return Ending(ended["code"], took_s, killed[0]["processes"] if killed else {}, ended["left"])

    @property
    def said(self) -> str:
        """What its processes wrote."""
        return self.log.read_text(errors="replace")


@dataclass
class Platform:
    """Runs the types of a Procfile. `environment`: its config vars."""

    procfile: str
    environment: Mapping[str, str]
    folder: Path
    again_s: float = AGAIN_S
    bound_s: float = BOUND_S
    dynos: list[Dyno] = field(default_factory=list)

    @property
    def types(self) -> dict[str, str]:
        """Process type -> command."""
        return dict(re.findall(r"^([\w-]+):\s*(.+)$", self.procfile, re.MULTILINE))

    def start(self, kind: str, **environment: str) -> Dyno:
        """Start one dyno of a type; it is called `worker.1` and so on, as on the platform."""
        name = f"{kind}.{1 + sum(each.name.startswith(f'{kind}.') for each in self.dynos)}"
        report, log = self.folder / f"{name}.report", self.folder / f"{name}.log"
        report.write_text("")
        init = (sys.executable, "-S", str(INIT), str(report), str(self.again_s), str(self.bound_s), self.types[kind])
        with log.open("wb") as output:
            popen = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *init],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**self.environment, "DYNO": name, **environment},
                cwd=self.folder,
                start_new_session=True,
            )
        self.dynos.append(Dyno(name, popen, report, log))
        self.dynos[-1].ready()
        return self.dynos[-1]

    def scale(self, **counts: int) -> list[Dyno]:
        """Start so many of each type."""
        return [self.start(kind) for kind, count in counts.items() for _ in range(count)]

    def cycle(self) -> list[Ending]:
        """Stop all dynos that run at once, as a deploy does, and wait for their ends."""
        running = [dyno for dyno in self.dynos if dyno.popen.poll() is None]
        for dyno in running:
            dyno.stop()
        end_s = time.monotonic() + self.bound_s + WAIT_S
        return [dyno.end(max(1.0, end_s - time.monotonic())) for dyno in running]

    def close(self) -> None:
        """End what a failed test left: all of a namespace goes with its `unshare`."""
        for dyno in self.dynos:
            if dyno.popen.poll() is None:
                dyno.popen.kill()
            dyno.popen.wait()


@contextmanager
def platform(
    procfile: str, environment: Mapping[str, str], folder: Path, *, again_s: float = AGAIN_S, bound_s: float = BOUND_S
) -> Iterator[Platform]:
    """Give a platform whose dynos end with the block."""
    folder.mkdir(exist_ok=True)
    made = Platform(procfile, environment, folder, again_s, bound_s)
    try:
        yield made
    finally:
        made.close()
