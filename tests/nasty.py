"""Programs that don't want to go: `python tests/nasty.py NAME [ARGUMENT]`; most print `ready` once they are as told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LONG_S = 600  # bounded all the same: a test that fails must not leave it for ever


def ready() -> None:
    print("ready", flush=True)  # noqa: T201  # this is how a test waits for it
    time.sleep(LONG_S)


def deaf(_count: str) -> None:
    """Ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready()


def deaf_family(count: str) -> None:
    """Ignores SIGTERM, and so do all of its many children."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(int(count)):
        subprocess.Popen(["sleep", str(LONG_S)])
    ready()


def cleans_up(path: str) -> None:
    """Cleans up on SIGTERM, and leaves a note of it."""

    def leave(*_: object) -> None:
        with open(path, "a") as note:  # noqa: PTH123
            note.write("cleaned up\n")
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    ready()


def family(count: str) -> None:
    """Starts children of every kind that gets away from a process group."""
    for _ in range(int(count)):
        subprocess.Popen(["sleep", str(LONG_S)])
    subprocess.Popen(["setsid", "sleep", str(LONG_S)])
    subprocess.run(["sh", "-c", f"setsid sleep {LONG_S} & exit 0"], check=True)
    ready()


def daemon(_: str) -> None:
    """Leaves a daemon behind and exits 0."""
    subprocess.run(["sh", "-c", f"setsid sleep {LONG_S} >/dev/null 2>&1 & exit 0"], check=True)


def stopped(_: str) -> None:
    """Stopped with SIGSTOP: it can't act on SIGTERM until somebody wakes it."""
    os.kill(os.getpid(), signal.SIGSTOP)


def reborn(_: str) -> None:
    """On SIGTERM, starts another one like itself, in a session of its own, and exits."""

    def again(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # inherited: it is deaf from its first moment
        subprocess.Popen([sys.executable, __file__, "deaf", ""], start_new_session=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, again)
    ready()


PROGRAMS: dict[str, Callable[[str], None]] = {
    each.__name__: each for each in (deaf, deaf_family, cleans_up, family, daemon, stopped, reborn)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else "")
