"""What an agent would leave if it and its guardian died at one instant: written down at its start, for the next agent.

One file per agent in the user's runtime directory, removed when the agent, or its guardian, has seen to everything.
"""

from __future__ import annotations

import fcntl
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coord.errors import CoordError
from coord.settings import runtime_dir
from workers.proc import read_stat

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "agents"
KEPT_S = 7 * 24 * 3600.0  # of an agent in another pid namespace nobody here can know whether it lives


@dataclass(frozen=True, slots=True)
class Estate:
    """One agent's file. `watch`: what its guardian was told, without the way to Redis, which may hold a password."""

    path: Path
    watch: dict[str, Any]

    def remove(self) -> None:
        """Nothing is left."""
        self.path.unlink(missing_ok=True)


def declare(watch: dict[str, Any], keepers: tuple[int, ...]) -> Estate | None:
    """Write it down. `keepers`: pids of who sees to it while one of them lives. None: it can't be written."""
    path = path_of(watch["agent_id"])
    if path is None:
        return None
    estate = Estate(path, watch)
    try:
        keys = [stat.key for pid in keepers if pid > 1 and (stat := read_stat(pid))]
        draft = estate.path.with_suffix(".new")
        draft.write_text(json.dumps({"keepers": keys, "where": _where(), "watch": watch}))
        draft.replace(estate.path)
    except OSError:
        return None
    return estate


def path_of(agent_id: str) -> Path | None:
    """Give the place of an agent's file; None where there can be none."""
    try:
        folder = runtime_dir() / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
    except (CoordError, OSError):
        return None
    return folder / f"{agent_id.replace('/', '_')}.json"


def abandoned() -> Iterator[Estate]:
    """Give the estates of this host whose keepers are all dead. Each is given to one taker at a time."""
    try:
        paths = list((runtime_dir() / FOLDER).glob("*.json"))
    except (CoordError, OSError):
        return
    for path in paths:
        with suppress(OSError, ValueError, KeyError), path.open("rb") as file:
            told = json.load(file)
            if told["where"] != _where():
                _forget_if_old(path)
            elif not any(_alive(key) for key in told["keepers"]):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():  # nobody was faster
                    yield Estate(path, told["watch"])


def _where() -> list[str]:
    """Name the boot and the pid namespace: elsewhere, the same pids mean others. After a boot, nothing is left."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [boot, str(Path("/proc/self/ns/pid").readlink())]


def _forget_if_old(path: Path) -> None:
    if time.time() - path.stat().st_mtime > KEPT_S:
        path.unlink()


def _alive(key: list[int]) -> bool:
    pid, start_ticks = key
    stat = read_stat(pid)
    return stat is not None and stat.alive and stat.start_ticks == start_ticks
