"""Sweeps the shared memory and semaphores that only the dead had.

Nothing is removed on the word of /proc, which need not show everybody: the kernel itself says whether anybody has it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workers.belongings import SHM
from workers.inspection import segments
from workers.leftovers import HELD, same_file
from workers.proc import read_stat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workers.belongings import Belonging

OTHER = "another one by this name"
OLDER = "older than the job"
_IPC_RMID = 0


@dataclass(frozen=True, slots=True)
class Swept:
    """What was removed; and what was not, each with a `note` that says why."""

    removed: tuple[Belonging, ...] = ()
    kept: tuple[Belonging, ...] = ()


def sweep(left: Iterable[Belonging], since: float | None = None) -> Swept:
    """Remove the shared memory and semaphores among these that nobody alive has; not what is older than `since`.

    `since`: Unix time; when the job began here, and by default when this process did. A data set that somebody put
    into /dev/shm beforehand is no leftover of a job that read it. What has gone by itself is in neither list. To free
    memory takes the kernel 0.1 s a GiB, and it is done before this returns: call it where nobody waits.
    """
    removed, kept = [], []
    since = _our_start() if since is None else since
    for item in left:
        try:
            _remove(item, since)
            removed.append(item)
        except FileNotFoundError:
            continue
        except _KeptError as why:
            kept.append(replace(item, note=str(why) or item.note))
        except BlockingIOError:
            kept.append(replace(item, note=HELD))
        except OSError as error:
            kept.append(replace(item, note=os.strerror(error.errno or 0).lower()))
    return Swept(tuple(removed), tuple(kept))


class _KeptError(Exception):
    """Not removed, and why."""


def _remove(item: Belonging, since: float) -> None:
    if item.kind not in {"shm", "semaphore", "sysv-shm"}:
        raise _KeptError
    if item.namespace:
        raise _KeptError("not ours to remove")
    if not item.own:
        raise _KeptError("another user's")
    if item.kind == "sysv-shm":
        _remove_segment(item, since)
    else:
        _unlink(item, since)


def _unlink(item: Belonging, since: float) -> None:
    name = item.name.removeprefix(SHM)
    if not item.name.startswith(SHM) or "/" in name:
        raise _KeptError("not directly in /dev/shm")
    folder = os.open(SHM, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # O_NONBLOCK: where somebody has a lease on it, we don't wait for them
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            found = os.fstat(fd)
            if not same_file(found, item):
                raise _KeptError(OTHER)
            if found.st_ctime < since:
                raise _KeptError(OLDER)
            _have_alone(fd)
            if not same_file(os.stat(name, dir_fd=folder, follow_symlinks=False), item):
                raise _KeptError(OTHER)
            os.unlink(name, dir_fd=folder)
        finally:
            os.close(fd)
    finally:
        os.close(folder)


def _have_alone(fd: int) -> None:
    """Take a write lease, which the kernel gives only while nobody else has the file open or mapped: fcntl(2).

    It counts everybody: other users, other namespaces, whom /proc hides. Until the file is closed, who opens it waits.
    Raises BlockingIOError when somebody has it.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # says that somebody waits; SIGIO, the default, would end us
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except BlockingIOError:
        raise
    except OSError as error:
        raise _KeptError("the kernel does not say whether anybody has it") from error


def _remove_segment(item: Belonging, since: float) -> None:
    found = segments().get(item.inode)
    if found is None:
        raise FileNotFoundError
    if found.size != item.size:
        raise _KeptError(OTHER)
    if found.attached:
        raise _KeptError(HELD)
    if found.changed_s + 1 <= since:  # whole seconds
        raise _KeptError(OLDER)
    import ctypes  # slow to import, so only where it is needed

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.shmctl(item.inode, _IPC_RMID, None):  # whoever attaches it right now keeps it: shmctl(2)
        raise OSError(ctypes.get_errno(), "shmctl")


def _our_start() -> float:
    """When this process began, to the end of its clock tick: Unix time."""
    stat = read_stat(os.getpid())
    if stat is None:
        return time.time()
    began_s = (stat.start_ticks + 1) / os.sysconf("SC_CLK_TCK")
    return began_s - time.clock_gettime(time.CLOCK_BOOTTIME) + time.time()
