"""Lists what processes have that may outlive them. Reads /proc; changes nothing.

Done just before SIGKILL, so one budget bounds it, even where a read hangs. What this process has open as well is not
listed: it was handed down. Not known: a System V segment that nobody has attached, System V semaphores, UDP.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from workers.belongings import SEMAPHORE, SHM, Belonging, Inventory
from workers.proc import folder_of, read_pieces, read_stat
from workers.sockets import LISTENS, tcp_sockets, unix_sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from workers.belongings import Kind

ITEMS_MAX = 10_000
DELETED = " (deleted)"
# what never had a name, and semaphores, which multiprocessing unlinks as soon as they are made
_NAMELESS = ("/memfd:", "/dev/zero", "/SYSV", "/[", SEMAPHORE)
# a locked file is left behind when it is there for the sake of the lock; a locked database is data
_LOCK_NAME = re.compile(r"^/(run|var)/lock/.|([/._-](lock|lck|pid)|/lock-[^/]*|/LCK\.\.[^/]*|lockfile)$", re.IGNORECASE)
_LOCKED = re.compile(rb"^lock:.* (FLOCK|POSIX|OFDLCK) ", re.MULTILINE)
_MAPPED = re.compile(rb"^\S+ \S+ \S+ (\S+) (\d+) +(/dev/shm/.+|/SYSV[0-9a-f]{8} \(deleted\))$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Segment:
    """A row of /proc/sysvipc/shm, which is that of our own IPC namespace."""

    size: int  # bytes
    attached: int
    uid: int
    changed_s: int  # Unix time: made, or its mode changed


class OutOfTimeError(Exception):
    """The budget is over."""


def inspect(pids: Iterable[int], budget_s: float) -> Inventory:
    """List what these processes have, once for all that share it. A process that vanishes meanwhile is passed over."""
    look = _Look(list(pids), time.monotonic() + budget_s)
    done = within(budget_s, look.run)
    return Inventory(tuple(item for item in list(look.found) if item.pid != os.getpid()), whole=done and look.whole)


def within(budget_s: float, work: Callable[[], None]) -> bool:
    """Do it in a thread; False when it took too long, or there could be no thread.

    A read of /proc can hang: for as long as a process keeps its memory map locked, or a file server doesn't answer.
    """
    failed: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # handed to who asked
            failed.append(error)

    thread = threading.Thread(target=run, name="belongings", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads for this user: pthread_create(3), EAGAIN
        return False
    thread.join(max(0.0, budget_s))
    if failed:
        raise failed[0]
    return not thread.is_alive()


def segments() -> dict[int, Segment]:
    """Read all System V shared memory: by shmid. A kernel without it has none. Raises OSError."""
    if not os.path.exists("/proc/sysvipc/shm"):
        return {}
    rows = [line.split() for line in b"\n".join(read_pieces("/proc/sysvipc/shm")).splitlines()[1:]]
    return {int(row[1]): Segment(int(row[3]), int(row[6]), int(row[7]), int(row[13])) for row in rows}


class _Who(NamedTuple):
    pid: int
    folder: str  # of /proc


class _Later(NamedTuple):
    """A file to be looked at last: its file system may hang."""

    kind: Kind
    who: _Who
    name: str
    path: str  # by way of /proc


class _Look:
    """One look at some processes, and at ourselves first: what two of them have is listed under the first."""

    def __init__(self, pids: list[int], end_s: float) -> None:
        self.found: list[Belonging] = []  # only appended to: it is read while a thread that hangs may still write
        self.whole = True
        self._pids = [os.getpid(), *pids]
        self._end_s = end_s
        self._seen: set[tuple[str, str, int, int]] = set()
        self._later: list[_Later] = []
        self._sockets: dict[str, dict[int | str, _Who]] = {}  # by network namespace, then by inode
        self._home: dict[str, str] = {}
        self._spaces: dict[tuple[str, str], str] = {}
        self._segments: dict[int, Segment] = {}

    def run(self) -> None:
        try:
            self._home = {space: os.readlink(f"/proc/self/ns/{space}") for space in ("mnt", "net", "ipc")}
            self._segments = segments()
            for pid in self._pids:
                with self._excused(pid):
                    self._process(pid)
            for space, wanted in self._sockets.items():
                with self._excused():
                    self._tables(space, wanted)
            for later in self._later:
                self._in_time()
                with self._excused():
                    self._file(later)
        except (OutOfTimeError, OSError):
            self.whole = False

    def _process(self, pid: int) -> None:
        who, numbers = _Who(pid, f"/proc/{pid}"), []
        with suppress(PermissionError):
            numbers = os.listdir(f"{who.folder}/fd")
        if not numbers:
            who = _Who(pid, folder_of(pid))
            numbers = os.listdir(f"{who.folder}/fd")
        for number in numbers:
            self._in_time()
            self._open(who, number)
        for piece in read_pieces(f"{who.folder}/maps"):
            self._in_time()
            for row in _MAPPED.finditer(piece) if b"/dev/shm/" in piece or b"/SYSV" in piece else ():
                self._mapped(who, *row.groups())

    def _open(self, who: _Who, number: str) -> None:
        path = f"{who.folder}/fd/{number}"
        with self._excused(who.pid):
            link = os.readlink(path)
            if link.startswith("socket:["):
                self._sockets.setdefault(self._space(who, "net"), {}).setdefault(int(link[8:-1]), who)
            elif link.endswith(DELETED):
                if not link.startswith(_NAMELESS):
                    self._later.append(_Later("deleted-file", who, link.removesuffix(DELETED), path))
            elif link.startswith(SHM):
                self._memory(who, link, os.stat(path))
            elif _LOCK_NAME.search(link) and _LOCKED.search(b"\n".join(read_pieces(f"{who.folder}/fdinfo/{number}"))):
                self._later.append(_Later("lock", who, link, path))

    def _mapped(self, who: _Who, device: bytes, inode: bytes, name: bytes) -> None:
        with self._excused(who.pid):
            path, space = os.fsdecode(name), self._space(who, "mnt")
            if path.startswith("/SYSV"):
                self._segment(who, int(inode))
                return
            deleted = path.endswith(DELETED)
            if not space:
                path = SHM + self._names.get(int(inode), "") if deleted else path
                status = os.stat(path, follow_symlinks=False)
                if (status.st_dev, status.st_ino) == (_device(device), int(inode)):
                    self._memory(who, path, status)
            elif not deleted:  # its path means nothing here
                where = (_device(device), int(inode))
                self._add(Belonging(_memory_kind(path), path, who.pid, None, *where, namespace=space))

    def _memory(self, who: _Who, path: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            return
        self._add(
            Belonging(
                _memory_kind(path),
                path,
                who.pid,
                status.st_size,
                status.st_dev,
                status.st_ino,
                own=status.st_uid == _user(who),
                namespace=self._space(who, "mnt"),
            )
        )

    def _segment(self, who: _Who, shmid: int) -> None:
        space = self._space(who, "ipc")
        row = None if space else self._segments.get(shmid)
        size, own = (row.size, row.uid == _user(who)) if row else (None, False)
        self._add(Belonging("sysv-shm", str(shmid), who.pid, size, inode=shmid, own=own, namespace=space))

    def _tables(self, space: str, wanted: dict[int | str, _Who]) -> None:
        folders = (who.folder for who in wanted.values() if os.path.exists(f"{who.folder}/net/unix"))
        folder = next(folders, None) if space else "/proc/self"
        if folder is None:
            return  # all of them have vanished
        for rows in unix_sockets(f"{folder}/net"):
            self._in_time()
            for row in rows:
                if (owner := wanted.pop(row.inode, None)) and row.ends:
                    with self._excused():
                        path = os.path.join(os.readlink(f"{owner.folder}/cwd"), row.ends)
                        self._later.append(_Later("listener", owner, path, f"{owner.folder}/root{path}"))
        for rows in tcp_sockets(f"{folder}/net", wanted) if wanted else ():
            self._in_time()
            for row in rows:
                kind: Kind = "listener" if row.state == LISTENS else "connection"
                pid = wanted[row.inode].pid
                self._add(Belonging(kind, row.name, pid, inode=row.inode, ends=row.ends, namespace=space))

    def _file(self, later: _Later) -> None:
        status = os.stat(later.path)
        size, ends = None, ""
        match later.kind:
            case "deleted-file":
                if not stat.S_ISREG(status.st_mode) or status.st_nlink:
                    return
                size = status.st_size
            case "listener":
                if not stat.S_ISSOCK(status.st_mode):
                    return
                ends = later.name
        space = self._space(later.who, "mnt")
        where = (status.st_dev, status.st_ino, ends)
        self._add(Belonging(later.kind, later.name, later.who.pid, size, *where, namespace=space))

    @cached_property
    def _names(self) -> dict[int, str]:
        """What is in /dev/shm, by inode: sem_open(3) links a new semaphore to its name, and deletes the one it had."""
        with os.scandir(SHM) as entries:
            return {entry.inode(): entry.name for entry in entries}

    def _add(self, item: Belonging) -> None:
        place = item.namespace if item.kind == "sysv-shm" else ""  # inodes of files and of sockets are the kernel's
        identity = (item.kind, place, item.device, item.inode)
        if identity in self._seen:
            return
        if len(self.found) == ITEMS_MAX:
            self.whole = False
            return
        self._seen.add(identity)
        self.found.append(item)

    def _space(self, who: _Who, space: str) -> str:
        """Name its namespace; nothing when that is ours."""
        key = who.folder, space
        if key not in self._spaces:
            link = os.readlink(f"{who.folder}/ns/{space}")
            self._spaces[key] = "" if link == self._home[space] else link
        return self._spaces[key]

    def _in_time(self) -> None:
        if time.monotonic() > self._end_s:
            raise OutOfTimeError

    @contextmanager
    def _excused(self, pid: int = 0) -> Iterator[None]:
        """Whoever or whatever is gone has nothing; what can't be read is said to be left out."""
        try:
            yield
        except (FileNotFoundError, ProcessLookupError):
            pass
        except OSError:
            ended = pid and not ((now := read_stat(pid)) and now.alive)  # a zombie's /proc is root's
            self.whole = self.whole and bool(ended)


def _memory_kind(path: str) -> Kind:
    return "semaphore" if path.startswith(SEMAPHORE) else "shm"


def _device(text: bytes) -> int:
    major, _, minor = text.partition(b":")
    return os.makedev(int(major, 16), int(minor, 16))


def _user(who: _Who) -> int:
    return os.stat(who.folder).st_uid
