"""How many files and processes one agent, or this user, may have."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from coord.finding import fail, ok, warn
from workers.handles import SPARE_FDS
from workers.mounts import mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coord.finding import Finding

AGENT_FDS = 11  # what an agent has open before its first child
HELD_MIN = 200  # processes
ROOM_MIN = 100  # more processes
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
UNBOUNDED = "no limit"


def open_files() -> Finding:
    """Tell how many processes one agent can hold at once: a pidfd each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return ok("ulimit -n unlimited")
    held = max(0, soft - AGENT_FDS - SPARE_FDS)
    count = f"{held:,} process{'' if held == 1 else 'es'}"
    found = f"ulimit -n {soft:,} (hard {_shown(hard)}): an agent can hold {count} at once"
    advice = "Raise it where coord is started: ulimit -n 4096, systemd LimitNOFILE=4096, docker --ulimit nofile=4096"
    if held < 1:
        return fail(found, advice)
    if held < HELD_MIN:
        return warn(f"{found}; others wait for their turn", advice)
    return ok(found)


class Limit(NamedTuple):
    """One of the limits to the number of processes. `room`: how many more it lets through; None: any number."""

    words: str
    room: int | None
    advice: str


def processes() -> Finding:
    """Tell how many more processes may be started: the tightest of all limits counts."""
    limits = [_of_the_user(), _of_the_cgroup(), _of_the_kernel()]
    words = "; ".join(limit.words for limit in limits)
    bounded = [limit for limit in limits if limit.room is not None]
    room, advice = min((limit.room or 0, limit.advice) for limit in bounded)
    found = f"room for {max(0, room):,} more ({words})"
    if room < 1:
        return fail(found, advice)
    return ok(found) if room >= ROOM_MIN else warn(found, advice)


def _of_the_user() -> Limit:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    words = f"ulimit -u {_shown(soft)}"
    if soft == resource.RLIM_INFINITY:
        return Limit(words, None, "")
    if _may_exceed():
        return Limit(f"{words}, not for root", None, "")
    return Limit(words, soft - _threads_of(os.getuid()), "Raise ulimit -u, systemd LimitNPROC=, docker --ulimit nproc=")


def _of_the_cgroup() -> Limit:
    """Look at the pids controller, in v2 or v1, from our own cgroup up to the root of what we see."""
    tightest: tuple[int, int] | None = None
    for folder in _pids_folders():
        limit, current = _number(folder / "pids.max"), _number(folder / "pids.current")
        if limit is not None and current is not None:
            tightest = min(tightest or (limit - current, limit), (limit - current, limit))
    if tightest is None:
        return Limit(f"pids cgroup {UNBOUNDED}", None, "")
    room, limit = tightest
    return Limit(f"pids cgroup {limit:,}", room, "Raise it: systemd TasksMax=, docker --pids-limit")


def _of_the_kernel() -> Limit:
    pid_max = int(Path("/proc/sys/kernel/pid_max").read_text())
    threads = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    return Limit(f"pid_max {pid_max:,}", pid_max - threads, "Raise it: sysctl kernel.pid_max=4194304")


def _may_exceed() -> bool:
    """Tell whether RLIMIT_NPROC does not hold for this process: fork(2), EAGAIN."""
    capable = int(_status("/proc/self/status", "CapEff") or "0", 16)
    return os.getuid() == 0 or bool(capable & (1 << CAP_SYS_ADMIN | 1 << CAP_SYS_RESOURCE))


def _threads_of(uid: int) -> int:
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _status(str(entry / "status"), "Uid").split()[:1] == [str(uid)]:
            found += int(_status(str(entry / "status"), "Threads") or 0)
    return found


def _status(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")), "")


def _pids_folders() -> Iterator[Path]:
    paths = [line.rstrip("\n").split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, controllers, own in paths:
        for mount in mounts("cgroup" if controllers else "cgroup2"):
            if controllers and not ("pids" in controllers.split(",") and "pids" in mount.options):
                continue
            inside = os.path.relpath(own, mount.root)
            if not inside.startswith(".."):
                folder = Path(os.path.normpath(f"{mount.point}/{inside}"))
                yield from (each for each in (folder, *folder.parents) if each.is_relative_to(mount.point))


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _shown(limit: int) -> str:
    return UNBOUNDED if limit == resource.RLIM_INFINITY else f"{limit:,}"
