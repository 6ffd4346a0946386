"""Reads /proc: what a process is, and whose child. Asks only; signals nothing.

A pid alone names nobody, since the kernel uses it again; a pid with its start time does.
"""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from coord.messages import COMMAND_MAX, Survivor, clip

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from workers.events import Key

# hidden: mount option hidepid; nothing is concluded from what can't be read, see `handles.childless`
_GONE_OR_HIDDEN = (FileNotFoundError, ProcessLookupError, PermissionError)
READ_BYTES = 64 * 1024
DEAD = "ZX"  # zombie, and on its way out: proc(5)


@dataclass(frozen=True, slots=True)
class Stat:
    """What /proc/PID/stat says, as far as we need it."""

    pid: int
    ppid: int
    name: str
    state: str
    threads: int
    start_ticks: int  # clock ticks since boot

    @property
    def key(self) -> Key:
        """Name the process: never used twice while the machine is up."""
        return self.pid, self.start_ticks

    @property
    def alive(self) -> bool:
        """A leader that is a zombie while other threads of it run is alive."""
        return self.state not in DEAD or self.threads > 1


def read_stat(pid: int) -> Stat | None:
    """Read a process; None when there is none."""
    try:
        text = _read(f"/proc/{pid}/stat").decode(errors="replace")
    except _GONE_OR_HIDDEN:
        return None
    # the name stands in brackets and may itself hold brackets and spaces: the last one closes it
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Stat(
        pid=pid,
        name=head.partition("(")[2],
        state=fields[0],
        ppid=int(fields[1]),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
    )


def read_command(stat: Stat) -> str:
    """Give the command line, for people; a kernel thread or a dead process has only a name."""
    try:
        words = _read(f"/proc/{stat.pid}/cmdline").rstrip(b"\0").split(b"\0")
    except _GONE_OR_HIDDEN:
        words = [b""]
    line = " ".join(word.decode(errors="replace") for word in words)
    return clip("".join(c if c.isprintable() else " " for c in line) or f"[{stat.name}]", COMMAND_MAX)


def survivor(key: Key) -> Survivor:
    """Tell why a process is still there. `state` X: it has gone after all."""
    pid, _ = key
    stat = read_stat(pid)
    if stat is None or stat.key != key:
        return Survivor(pid, "X", None, "nobody")
    wchan = None
    with suppress(OSError):  # only for who may trace it
        wchan = _read(f"/proc/{pid}/wchan").decode(errors="replace").strip("0") or None
    return Survivor(pid, stat.state, wchan, _owner(pid))


def _owner(pid: int) -> str:
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
    except OSError:
        return "nobody"


def folder_of(pid: int) -> str:
    """Say where /proc shows what a process has open: a leader that ended before its threads shows nothing."""
    stat = read_stat(pid)
    if stat and stat.alive and stat.state in DEAD:
        for task in os.listdir(f"/proc/{pid}/task"):
            if int(task) != pid:
                return f"/proc/{pid}/task/{task}"
    return f"/proc/{pid}"


def read_pieces(path: str) -> Iterator[bytes]:
    """Read a long file of /proc in pieces of whole lines; who has seen enough stops."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        begun = b""
        while part := os.read(fd, READ_BYTES):
            lines, newline, rest = part.rpartition(b"\n")
            if newline:
                yield begun + lines
                begun = b""
            begun += rest
        if begun:
            yield begun
    finally:
        os.close(fd)


def all_pids() -> list[int]:
    """Give every process that /proc shows, dead ones included."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(root: int, spare: Collection[int] = ()) -> list[Stat]:
    """Everything alive below a process but `spare`, parents first. One look: what moves meanwhile can be missed."""
    found: list[Stat] = []
    parents = [root]
    children = _children if _has_children_file() else _scan()
    while parents:
        pids = [pid for parent in parents for pid in children(parent) if pid not in spare]
        below = [stat for pid in pids if (stat := read_stat(pid))]
        found += [stat for stat in below if stat.alive]
        parents = [stat.pid for stat in below]
    return found


def children_of(pid: int) -> list[int]:
    """Give the pids of a process's children, dead ones too."""
    return (_children if _has_children_file() else _scan())(pid)


@cache
def _has_children_file() -> bool:
    """Tell whether the kernel has it (CONFIG_PROC_CHILDREN)."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def _children(pid: int) -> list[int]:
    """Any thread may be the one that started a child."""
    children: list[int] = []
    with suppress(*_GONE_OR_HIDDEN):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(*_GONE_OR_HIDDEN):  # a thread that ends meanwhile hides no other thread's children
                children += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return children


def _scan() -> _ByParent:
    by_parent = _ByParent()
    for pid in all_pids():
        if stat := read_stat(pid):
            by_parent.setdefault(stat.ppid, []).append(pid)
    return by_parent


class _ByParent(dict[int, list[int]]):
    def __call__(self, pid: int) -> list[int]:
        return self.get(pid, [])


def _read(path: str) -> bytes:
    """Read a file of /proc; a shutdown reads hundreds of them, and with pathlib that takes most of its time."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, READ_BYTES):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)
