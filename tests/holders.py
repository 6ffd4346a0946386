"""Programs that have something which may outlive them: `python tests/holders.py NAME [ARGUMENT]`.

Each prints `ready` and what a test must know, and keeps what it has until it is killed.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LONG_S = 600
MIB = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
KEPT: list[object] = []


def ready(*words: object) -> None:
    print("ready", *words, flush=True)  # noqa: T201  # this is how a test waits for it
    time.sleep(LONG_S)


def shared_memory(name: str) -> None:
    """64 MiB by way of multiprocessing, whose own helper would clean up if it lived."""
    KEPT.append(SharedMemory(name, create=True, size=64 * MIB))
    ready()


def mapped(path: str) -> None:
    """As a C program does: opened, or made when there is none; mapped, and closed."""
    _map(path)
    ready()


def opened(path: str) -> None:
    """A file that is open for reading, and nothing else."""
    os.open(path, os.O_RDONLY)
    ready()


def segment(shmid: str) -> None:
    """System V shared memory: a new one, or the one that is named."""
    found = int(shmid) if shmid else LIBC.shmget(0, ctypes.c_size_t(MIB), 0o600)
    LIBC.shmat.restype = ctypes.c_void_p
    KEPT.append(LIBC.shmat(found, None, 0))
    ready(found)


def semaphore(name: str) -> None:
    """A named semaphore, which the C library maps and closes."""
    LIBC.sem_open.restype = ctypes.c_void_p
    KEPT.append(LIBC.sem_open(f"/{name}".encode(), os.O_CREAT, 0o600, 1))
    ready()


def flock(path: str) -> None:
    """Locked as a shell script does it: by a helper that is gone."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    subprocess.run([sys.executable, "-c", f"import fcntl; fcntl.flock({fd}, fcntl.LOCK_EX)"], pass_fds=[fd], check=True)
    ready()


def fcntl_lock(path: str) -> None:
    """Locked by fcntl(2)."""
    fcntl.lockf(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
    ready()


def nameless(folder: str) -> None:
    """What goes with the last who has it: a deleted file, a memfd, shared anonymous memory, an unlinked semaphore."""
    fd, path = tempfile.mkstemp(dir=folder)
    os.truncate(fd, MIB)
    Path(path).unlink()
    KEPT.extend([os.memfd_create("x"), mmap.mmap(-1, MIB)])
    LIBC.sem_open.restype = ctypes.c_void_p
    name = f"/coord-{os.getpid()}".encode()
    KEPT.append(LIBC.sem_open(name, os.O_CREAT, 0o600, 1))
    LIBC.sem_unlink(name)
    ready(path, fd)


def listener(address: str) -> None:
    """Listens on `host:0`, or on a path."""
    host, _, port = address.rpartition(":")
    family = socket.AF_UNIX if address.startswith("/") else socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family)
    server.bind(address if family == socket.AF_UNIX else (host, int(port)))
    server.listen()
    KEPT.append(server)
    ready(*server.getsockname()[1:2] if port else ())


def shared_listener(_: str) -> None:
    """Listens, and so does a child."""
    server = socket.create_server(("127.0.0.1", 0))
    child = subprocess.Popen(["sleep", str(LONG_S)], pass_fds=[server.fileno()], stdout=subprocess.DEVNULL)
    ready(server.getsockname()[1], child.pid)


def connection(port: str) -> None:
    """Is connected to a server of the test's."""
    KEPT.append(socket.create_connection(("127.0.0.1", int(port))))
    ready()


def headless(path: str) -> None:
    """Its main thread has ended, another one runs."""
    fcntl.lockf(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
    threading.Thread(target=ready).start()
    LIBC.pthread_exit(None)


def elsewhere(path: str) -> None:
    """Shared memory and a listener in namespaces of their own, as in a container."""
    for flags in (0x20000 | 0x40000000, 0x10000000 | 0x20000 | 0x40000000):  # NEWNS, NEWNET; NEWUSER, for who needs it
        if not LIBC.unshare(flags):
            _map(path)
            listener("0.0.0.0:0")
    ready("refused")


def _map(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, MIB)
    LIBC.mmap.restype = ctypes.c_void_p
    KEPT.append(LIBC.mmap(None, ctypes.c_size_t(MIB), mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0)))
    os.close(fd)


PROGRAMS: dict[str, Callable[[str], None]] = {
    each.__name__: each
    for each in (
        shared_memory,
        mapped,
        opened,
        segment,
        semaphore,
        flock,
        fcntl_lock,
        nameless,
        listener,
        shared_listener,
        connection,
        headless,
        elsewhere,
    )
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else "")
