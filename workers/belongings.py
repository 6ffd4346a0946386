"""What a process has that may outlive it: shared memory, semaphores, lock files, sockets. The words; reads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["shm", "sysv-shm", "semaphore", "lock", "deleted-file", "listener", "connection"]

SHM = "/dev/shm/"  # noqa: S108  # where shm_open(3) and sem_open(3) put things, by the C library's word
SEMAPHORE = f"{SHM}sem."
_TEXT = {
    "sysv-shm": "System V shared memory ",
    "semaphore": "semaphore ",
    "lock": "lock file ",
    "deleted-file": "deleted file ",
    "listener": "listening socket ",
    "connection": "connection to ",
}
_NAMESPACES = {"mnt": "mount", "net": "network", "ipc": "IPC"}


@dataclass(frozen=True, slots=True)
class Belonging:
    """Something that a process has open, mapped, attached or locked; with what is needed to know it again."""

    kind: Kind
    name: str  # path, address, or shmid
    pid: int  # the first one that was seen to have it
    size: int | None = None  # bytes
    device: int = 0
    inode: int = 0  # with `device`, the file; a TCP socket; a segment's shmid
    ends: str = ""  # of a socket: see `sockets.Socket`
    own: bool = False  # it belongs to the user of that process
    namespace: str = ""  # where it is, when not where we are: `mnt:[4026531841]`
    note: str = ""

    @property
    def text(self) -> str:
        """Say it to a person: `/dev/shm/psm_x 64 MiB`, `connection to 10.0.0.5:5432 (FIN_WAIT2)`."""
        size = f" {_readable(self.size)}" if self.size is not None and self.kind != "semaphore" else ""
        space = _NAMESPACES.get(self.namespace.partition(":")[0])
        notes = "; ".join(filter(None, (f"in another {space} namespace" if space else "", self.note)))
        return f"{_TEXT.get(self.kind, '')}{_printable(self.name)}{size}" + (f" ({notes})" if notes else "")

    def to_dict(self) -> dict[str, str | int | None]:
        """Give what a report says of it."""
        name = _printable(self.name)
        return {"kind": self.kind, "name": name, "size": self.size, "pid": self.pid, "text": self.text}


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was found. `whole`: nothing was left out, be it for want of time or of permission."""

    items: tuple[Belonging, ...] = ()
    whole: bool = True


def _readable(size: float) -> str:
    """`67108864` -> `64 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def _printable(name: str) -> str:
    """Whoever made it chose the name: nothing in it may steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in name)
