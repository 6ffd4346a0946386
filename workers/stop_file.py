"""Tells an agent's children that they are being stopped, before the signal does: the file behind `COORD_STOP_FILE`."""

from __future__ import annotations

import glob
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from coord.errors import CoordError
from coord.settings import runtime_dir
from workers.proc import read_stat

FOLDER = "stops"
NEED = ".need-"  # and the pid of who asks for more time: `coord.child` writes it


class StopFile:
    """One agent's file. Where none can be made, children are only signalled."""

    def __init__(self, path: str | None) -> None:
        self.path = path

    @classmethod
    def of(cls, agent_id: str) -> StopFile:
        """Choose the file's place, in the user's runtime directory."""
        try:
            folder = runtime_dir() / FOLDER
            folder.mkdir(mode=0o700, exist_ok=True)
        except (CoordError, OSError):
            return cls(None)
        return cls(str(folder / f"{agent_id.replace('/', '_')}.json"))

    def write(self, facts: dict[str, Any]) -> None:
        """Say it, or say it anew; whoever reads sees the whole old text or the whole new one."""
        if self.path is None:
            return
        draft = f"{self.path}.new"
        with suppress(OSError):
            # by bare system calls: every first signal waits for this
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.write(fd, json.dumps(facts).encode())
            os.close(fd)
            os.rename(draft, self.path)  # noqa: PTH104

    def wanted_s(self) -> float:
        """Give the latest instant (CLOCK_MONOTONIC) until which a living process asked to be waited for; 0: none."""
        return max((_wanted_s(path) for path in self._needs()), default=0.0)

    def remove(self) -> None:
        """Take it away when nobody is left to read it."""
        if self.path:
            for path in (Path(self.path), *self._needs()):
                path.unlink(missing_ok=True)

    def _needs(self) -> list[Path]:
        if self.path is None:
            return []
        path = Path(self.path)
        return list(path.parent.glob(f"{glob.escape(path.name)}{NEED}*"))


def _wanted_s(path: Path) -> float:
    try:
        stat = read_stat(int(path.name.rpartition("-")[2]))
        return float(json.loads(path.read_bytes())["until_s"]) if stat and stat.alive else 0.0
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0  # somebody's draft, or none of ours
