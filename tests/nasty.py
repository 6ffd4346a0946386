"""Programs that don't want to go: `python tests/nasty.py NAME [ARGUMENT]`; most print `ready` once they are as told.

Those that a look at environments can't find print their pid, one on each line before that.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

LONG_S = 600  # bounded all the same: a test that fails must not leave it for ever
SLEEP = ("sleep", str(LONG_S))
RESTARTS_S = 60.0
PR_SET_CHILD_SUBREAPER = 36


def say(word: object) -> None:
    print(word, flush=True)  # noqa: T201  # this is how a test waits for it


def ready() -> None:
    say("ready")
    time.sleep(LONG_S)


def again(name: str, argument: str = "") -> tuple[str, ...]:
    """Give the command of another one of these."""
    return (sys.executable, __file__, name, argument)


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


def daemonize(command: tuple[str, ...], **rest: Any) -> int:
    """Start it in a session of its own, and be nobody it could be traced back to; gives its pid."""
    read_fd, write_fd = os.pipe()
    if (pid := os.fork()) == 0:
        daemon = subprocess.Popen(command, start_new_session=True, **rest)
        os.write(write_fd, str(daemon.pid).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return int(os.read(read_fd, 32))


# -- deaf --------------------------------------------------------------------------------------------------------------


def hangs(_: str) -> None:
    """Begins to leave on SIGTERM, and never comes to the end of it."""

    def hang(*_: object) -> None:
        time.sleep(LONG_S)

    signal.signal(signal.SIGTERM, hang)
    ready()


def cleans_up_slowly(path: str) -> None:
    """Needs 0.2 s to clean up."""

    def leave(*_: object) -> None:
        time.sleep(0.2)
        with open(path, "a") as note:  # noqa: PTH123
            note.write("cleaned up\n")
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    ready()


def blocks_all(_: str) -> None:
    """Blocks every signal that can be blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ready()


def stops_itself(path: str) -> None:
    """Would clean up on SIGTERM, and is stopped with SIGSTOP before it comes."""

    def leave(*_: object) -> None:
        with open(path, "a") as note:  # noqa: PTH123
            note.write("cleaned up\n")
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    say("ready")
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(LONG_S)


# -- got away ----------------------------------------------------------------------------------------------------------


def own_group(_: str) -> None:
    """Has a child in a process group of its own."""
    subprocess.Popen(SLEEP, process_group=0)
    ready()


def own_session(_: str) -> None:
    """Has a child in a session of its own."""
    subprocess.Popen(SLEEP, start_new_session=True)
    ready()


def double_fork(_: str) -> None:
    """Starts a daemon as daemons start: its parent is gone before anybody looks."""
    daemonize(SLEEP)
    ready()


def without_environment(_: str) -> None:
    """Double-forks a daemon that takes nothing along: no environment, no open file."""
    null = subprocess.DEVNULL
    say(daemonize(SLEEP, env={}, stdin=null, stdout=null, stderr=null))
    ready()


def leaves(name: str) -> None:
    """Starts another of these, deaf from its first moment and in a session of its own, and exits 0."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(again(name), start_new_session=True)


def parent(name: str) -> None:
    """Starts another of these in a session of its own, and waits."""
    subprocess.Popen(again(name), start_new_session=True)
    time.sleep(LONG_S)


def subreaper(count: str) -> None:
    """Collects the orphans below it, as an agent does."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for _ in range(int(count)):
        daemonize(SLEEP)
    ready()


def headless(_: str) -> None:
    """Its main thread ends, another one lives on: a zombie by its looks."""
    say(os.getpid())
    threading.Thread(target=ready).start()
    ctypes.CDLL(None).pthread_exit(None)


def closes_all(_: str) -> None:
    """Closes all its files: whoever takes the end of its output for its end is wrong."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("ready")
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))
    time.sleep(LONG_S)


# -- born while dying --------------------------------------------------------------------------------------------------


def daemonizes(name: str) -> None:
    """On SIGTERM, starts a helper as a daemon and exits 0: another of these, or one that sleeps."""

    def leave(*_: object) -> None:
        daemonize(again(name) if name else SLEEP)
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    ready()


def siblings(deaf: str) -> None:
    """Two that watch each other from sessions of their own: who sees the other die starts it again. `deaf`: or not."""
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for the dead
    if os.fork() == 0:
        watch_each_other(time.monotonic() + RESTARTS_S)
    time.sleep(LONG_S)


def watch_each_other(end_s: float) -> NoReturn:
    """Be one of the two, until `end_s`."""
    told = False
    while time.monotonic() < end_s:
        me = os.pidfd_open(os.getpid())
        pid = os.fork()
        other = me if pid == 0 else os.pidfd_open(pid)
        if pid == 0:
            os.setsid()
        if pid == 0 and not told:
            say("ready")
        told = True
        poll = select.poll()
        poll.register(other, select.POLLIN)
        poll.poll(max(0.0, end_s - time.monotonic()) * 1000)
    os._exit(0)


# -- many --------------------------------------------------------------------------------------------------------------


def wide(count: str) -> None:
    """Has many children."""
    for _ in range(int(count)):
        subprocess.Popen(SLEEP)
    ready()


def deep(count: str) -> None:
    """Is the first of a line, each the child of the one before; every tenth begins a session of its own."""
    for generation in range(1, int(count)):
        if os.fork():
            time.sleep(LONG_S)
            return
        if generation % 10 == 0:
            os.setsid()
    ready()


PROGRAMS: dict[str, Callable[[str], None]] = {
    each.__name__: each
    for each in (
        *(deaf, deaf_family, cleans_up, family, daemon, stopped, reborn),
        *(hangs, cleans_up_slowly, blocks_all, stops_itself),
        *(own_group, own_session, double_fork, without_environment, leaves, parent, subreaper, headless, closes_all),
        *(daemonizes, siblings, wide, deep),
    )
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else "")
