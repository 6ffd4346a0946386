"""cgroup v2: where it is mounted, whether this agent may use it, and one folder per child below its own cgroup.

Found through /proc/self/mountinfo, since it may be mounted anywhere; see cgroups(7) and the kernel's cgroup-v2 manual.
"""

from __future__ import annotations

import fcntl
import os
import select
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coord.errors import CoordError
from workers.mounts import mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "coord-"  # of every agent's folder
EMPTY_S = 0.002  # the kernel takes the last process out a moment after its handle says that it is gone


class NoCgroupError(CoordError):
    """cgroup v2 can't be used here; the message says why, the hint how it could."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One folder of the cgroup tree. What is in it can leave it only by the will of who may write to its parents."""

    path: str

    @classmethod
    def make(cls, parent: str, name: str) -> Cgroup:
        """Make it. Raises NoCgroupError."""
        path = f"{parent}/{name}"
        try:
            os.mkdir(path)
        except OSError as error:
            raise NoCgroupError(f"no cgroup can be made in {parent}: {error.strerror}", DELEGATE_HINT) from error
        return cls(path)

    def hold(self) -> int | None:
        """Show that somebody cares for it, as long as the descriptor is open: `clear` takes others away."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        fcntl.flock(fd, fcntl.LOCK_SH)
        return fd

    def take_in(self, pid: int) -> None:
        """Move a process (0: this one) into it: what it starts from now on is born there. Raises OSError."""
        fd = os.open(f"{self.path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)

    def members(self) -> dict[int, int]:
        """Give all processes in it and below: pid -> the number of the folder that it is in; 0 for others."""
        found: dict[int, int] = {}
        for folder, _, _ in os.walk(self.path):
            with suppress(OSError):  # it went meanwhile, or it is threaded: then its processes stand above
                first = os.path.relpath(folder, self.path).partition("/")[0]
                number = int(first) if first.isdigit() else 0
                found |= dict.fromkeys(map(int, _read(f"{folder}/cgroup.procs").split()), number)
        found.pop(0, None)  # one in a pid namespace that we don't see
        return found

    def exists(self) -> bool:
        """Tell whether it was not removed."""
        return os.path.exists(self.path)

    def populated(self) -> bool:
        """Tell whether any process is in it or below: the kernel's word."""
        try:
            return b"populated 1" in _read(f"{self.path}/cgroup.events")
        except FileNotFoundError:
            return False

    def emptied(self) -> bool:
        """Tell whether it is empty; waits a moment for the kernel."""
        if not self.populated():
            return True
        fd = os.open(f"{self.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.read(fd, 4096)
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            poll.poll(EMPTY_S * 1000)
        finally:
            os.close(fd)
        return not self.populated()

    def kill(self) -> None:
        """Send SIGKILL to everything in it at one instant; nothing forks its way out."""
        with suppress(FileNotFoundError):
            fd = os.open(f"{self.path}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"1")
            finally:
                os.close(fd)

    def remove(self) -> None:
        """Take it away, and what was made below it; one that is not empty stays."""
        for folder, _, _ in os.walk(self.path, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)


DELEGATE_HINT = "Have it delegated (systemd: Delegate=yes; a container: a writable cgroup mount), or leave it to coord"


@contextmanager
def alone(parent: str) -> Iterator[None]:
    """Let one agent at a time make and clear folders: one that was just made is not held yet."""
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def clear(parent: str) -> None:
    """Remove the empty folders of agents that are no more; one that is not empty is left to `sweep`."""
    for name in os.listdir(parent):
        if not name.startswith(PREFIX):
            continue
        with suppress(OSError):
            fd = os.open(f"{parent}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Cgroup(f"{parent}/{name}").remove()
            finally:
                os.close(fd)


def home() -> str:
    """Give the folder of this process's own cgroup, if children's can be made below it. Raises NoCgroupError."""
    own = _own_path()
    for mount in mounts("cgroup2"):
        inside = os.path.relpath(own, mount.root)
        if not inside.startswith("..") and not _above_namespace(own) and not _above_namespace(mount.root):
            folder = os.path.normpath(f"{mount.point}/{inside}")
            _check(folder)
            return folder
    raise NoCgroupError("cgroup v2 is not mounted where this process can see its own cgroup", "Mount it: cgroups(7)")


def _own_path() -> str:
    lines = _read("/proc/self/cgroup").decode(errors="surrogateescape").splitlines()
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if own is None:
        raise NoCgroupError("this kernel has no cgroup v2", "Leave it to coord: it does without")
    return own


def _above_namespace(path: str) -> bool:
    """Tell whether a path leads out of this cgroup namespace, so that its names are not known: cgroup_namespaces(7).

    So it is with the host's mount in a container: at its mount point is the host's root, not the container's cgroup.
    """
    return path.startswith("/..")


def _check(folder: str) -> None:
    """Raise NoCgroupError unless children could be moved from this folder into ones below it, and killed there."""
    if not os.access(folder, os.W_OK) or not os.access(f"{folder}/cgroup.procs", os.W_OK):
        raise NoCgroupError(f"cgroup {folder} is not this user's to divide", DELEGATE_HINT)
    kind = f"{folder}/cgroup.type"  # the root has none
    if os.path.exists(kind) and _read(kind) != b"domain\n":
        raise NoCgroupError(f"cgroup {folder} is threaded", "Start coord in a domain cgroup")


def usable(cgroup: Cgroup) -> None:
    """Try whether a cgroup that was made serves: a child can enter it. Removes it and raises NoCgroupError if not."""
    reason = None
    if not os.path.exists(f"{cgroup.path}/cgroup.kill"):
        reason = "this kernel has no cgroup.kill (Linux 5.14 has it)"
    elif not _a_child_can_enter(cgroup):
        reason = f"no process can be moved into cgroup {cgroup.path}"
    if reason:
        cgroup.remove()
        raise NoCgroupError(reason, DELEGATE_HINT)


def _a_child_can_enter(cgroup: Cgroup) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: this child calls the kernel only
        pid = os.fork()
    if pid == 0:
        try:
            cgroup.take_in(0)
        except OSError:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return status == 0


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
