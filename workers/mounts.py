"""What is mounted where, as this process sees it: proc_pid_mountinfo(5). Asks only."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """`root`: the part of the file system that is seen at `point`; `options`: the file system's own."""

    kind: str
    root: str
    point: str
    options: tuple[str, ...]


def mounts(kind: str | None = None) -> list[Mount]:
    """Give all mounts, or those of one kind of file system, in the order in which they were made."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        found = [_mount(line) for line in file]
    return [mount for mount in found if kind in {None, mount.kind}]


def mount_of(path: str) -> Mount | None:
    """Give the mount that a path lies on; the last one made hides those before."""
    inside = [mount for mount in mounts() if f"{path}/".startswith(f"{mount.point.rstrip('/')}/")]
    return max(reversed(inside), key=lambda mount: len(mount.point), default=None)


def _mount(line: str) -> Mount:
    head, _, tail = line.rstrip("\n").partition(" - ")
    root, point = head.split(" ")[3:5]
    kind, _, options = tail.split(" ", 2)
    return Mount(kind, _unescaped(root), _unescaped(point), tuple(options.split(",")))


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)
