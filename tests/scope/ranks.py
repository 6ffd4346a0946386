"""What ranks do in these tests. Each tells `ready` once it is as its name says."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING

from tests.scope.facts import tell, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

LONG_S = 120.0  # bounded all the same
KEPT: list[object] = []


class BadBatchError(Exception):
    """What a rank fails with."""


def nothing() -> None:
    """Is done at once."""


def sleeper() -> None:
    """Leaves when asked, and says so."""
    tell("ready")
    try:
        time.sleep(LONG_S)
    finally:
        tell("left")


def brief(seconds: float = 0.0) -> None:
    """Is done soon."""
    tell("ready")
    time.sleep(seconds)
    tell("done")


def deaf() -> None:
    """Ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell("ready")
    time.sleep(LONG_S)


def holder(shm: str, lock: str) -> None:
    """Holds shared memory and a file lock, and does not go when asked."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    KEPT.append(SharedMemory(shm, create=True, size=1 << 20))
    KEPT.append(open(lock, "w"))  # noqa: PTH123, SIM115
    fcntl.lockf(KEPT[-1], fcntl.LOCK_EX)  # type: ignore[arg-type]
    tell("ready")
    time.sleep(LONG_S)


def failing(others: int = 0) -> None:
    """Fails once so many others are ready."""
    wait_for("ready", others)
    tell("fails")
    raise BadBatchError("batch 7 is empty")


def killed(others: int = 0) -> None:
    """Is killed, as by the kernel when memory runs out."""
    wait_for("ready", others)
    os.kill(os.getpid(), signal.SIGKILL)


def leaving(code: object) -> None:
    """Leaves by sys.exit."""
    tell("ready")
    sys.exit(code)  # type: ignore[arg-type]


def parent() -> None:
    """Has processes of its own: a program, one that it left, and a pool."""
    subprocess.Popen(["sleep", str(LONG_S)])
    subprocess.run(["sh", "-c", f"setsid sleep {LONG_S} & exit 0"], check=True)
    with get_context("fork").Pool(2) as pool:
        pool.map(abs, range(4))
        tell("ready")
        time.sleep(LONG_S)


def daemon() -> None:
    """Leaves a daemon behind that has forgotten all of its environment, and is done."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            tell("daemon")
            os.execve("/bin/sleep", ["sleep", str(LONG_S)], {})
        os._exit(0)
    os.wait()
    tell("ready")


RANKS: dict[str, Callable[..., None]] = {
    each.__name__: each for each in (nothing, sleeper, brief, deaf, holder, failing, killed, leaving, parent, daemon)
}
