"""Programs that SIGTERM must end, and conditions that hinder it: `python tests/stops.py PROGRAM GUARD [ARGUMENT...]`.

GUARD: `coord` is `stop.raises_exit()`, `plain` a handler set with `signal.signal`; others are `coord` without a part.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import multiprocessing
import os
import queue
import random
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from coord import sigterm
from coord.child import stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG_S = 300  # bounded all the same: a test that fails must not leave it for ever
PATIENCE_S = 30.0  # until a stop is called swallowed
PLAIN_PATIENCE_S = 2.0  # the plain handler's are expected; nothing hangs on one more or less
NEAR_S, FAR_S = 0.0003, 0.02  # signals come within this time after a child said that it is about to block


def arm(guard: str) -> None:
    """Set up what ends this program on SIGTERM."""
    if guard == "plain":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return
    if guard == "blind":  # never looks who has the wakeup fd
        sigterm.LOOK_MS = LONG_S * 1000
    if guard == "rude":  # tells nothing to who had the wakeup fd
        sigterm.Bell._foreign = property(lambda _: -1, lambda *_: None)  # type: ignore[assignment]
    stop.raises_exit()
    if guard == "drops":  # what Python drops stays dropped
        sys.unraisablehook = sys.__unraisablehook__


def say(text: str) -> None:
    """Tell the test."""
    print(text, flush=True)  # noqa: T201


# ---- one process, and the condition for certain


def in_c(library: str) -> None:
    """SIGTERM comes between Python's last look and a system call: both in one call of C."""
    say("ready")
    ctypes.CDLL(library).raise_and_pause()


def elsewhere() -> None:
    """SIGTERM goes to another thread while the main thread is blocked."""
    main = Path(f"/proc/self/task/{threading.get_native_id()}/stat")

    def hit() -> None:
        blocked = 0
        while blocked < 20:  # in a row: a thread that only waits for the GIL gets it during one of the naps
            time.sleep(0.005)
            blocked = blocked + 1 if main.read_text().rpartition(")")[2].split()[0] == "S" else 0
        say("ready")
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    threading.Thread(target=hit, daemon=True).start()
    time.sleep(LONG_S)


class Finalized:
    """SIGTERM comes in its finalizer: what is raised there, Python drops."""

    def __del__(self) -> None:
        say("ready")
        signal.raise_signal(signal.SIGTERM)


def finalizer() -> None:
    """SIGTERM comes in a finalizer."""
    Finalized()
    time.sleep(LONG_S)


def after_asyncio(library: str) -> None:
    """Asyncio took the wakeup fd, used it and left it; then SIGTERM comes as in `in_c`."""

    async def takes() -> None:
        called = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, called.set)
        signal.raise_signal(signal.SIGUSR1)
        await called.wait()

    asyncio.run(takes())
    in_c(library)


def in_asyncio(guard: str) -> None:
    """Asyncio has the wakeup fd when SIGTERM is armed; it must hear of its own signal before SIGTERM comes."""

    async def waits() -> None:
        called = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, called.set)
        arm(guard)
        say("ready")
        threading.Timer(0.1, signal.raise_signal, (signal.SIGUSR1,)).start()
        await called.wait()
        signal.raise_signal(signal.SIGTERM)

    asyncio.run(waits())


def armed_elsewhere(guard: str) -> None:
    """Be the target of a process: arm, and go on as `elsewhere`."""
    arm(guard)
    elsewhere()


def relative(guard: str, method: str) -> None:
    """SIGTERM comes to a multiprocessing child, which arms itself, or (`inherited`) was forked from one that had."""
    if method == "inherited":
        arm(guard)
    context = multiprocessing.get_context("fork" if method == "inherited" else method)
    target, args = (elsewhere, ()) if method == "inherited" else (armed_elsewhere, (guard,))
    process = context.Process(target=target, args=args)  # type: ignore[attr-defined]  # the common base has none
    process.start()
    process.join()
    sys.exit(process.exitcode)


# ---- many, at random instants


def blocks(how: str, pipe: int, random_: random.Random) -> None:
    """Block in one of the ways in which programs do."""
    match how:
        case "sleep":
            time.sleep(LONG_S)
        case "queue":
            queue.Queue[None]().get(timeout=LONG_S)
        case "select":
            select.select([pipe], [], [], LONG_S)
        case "lock":
            lock = threading.Lock()
            lock.acquire()
            lock.acquire(timeout=LONG_S)
        case "read":
            os.read(pipe, 1)
        case "naps":  # goes in and out of system calls while the signal is on its way
            for _ in range(random_.randrange(200)):
                time.sleep(random_.choice((0, 1e-6, 1e-5)))
            os.read(pipe, 1)


WAYS = ("sleep", "queue", "select", "lock", "read", "naps")


def child(guard: str, told: int, how: str, seed: int) -> NoReturn:
    """Be one of many: say that it is about to block, and block."""
    code = 1
    try:
        signal.alarm(LONG_S)
        never, _ = os.pipe()
        if guard != "inherited":
            arm(guard)
        random_ = random.Random(seed)
        os.write(told, b"x")
        blocks(how, never, random_)
    except SystemExit as left:
        code = int(str(left.code))
    finally:
        os._exit(code)


def hit(pid: int, patience_s: float) -> tuple[bool, float, int]:
    """Send a child one SIGTERM; give whether that was enough, how long it took (s), and its exit code."""
    handle = os.pidfd_open(pid)
    began_s = time.monotonic()
    signal.pidfd_send_signal(handle, signal.SIGTERM)
    enough = bool(select.select([handle], [], [], patience_s)[0])
    took_s = time.monotonic() - began_s
    if not enough:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)
    return enough, took_s, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def stops(guard: str, random_: random.Random) -> Iterator[tuple[str, bool, float, int]]:
    """Start children one by one, and hit each at a random instant; give how it blocked, and what `hit` gave."""
    while True:
        how, seed = random_.choice(WAYS), random_.randrange(2**32)
        wait_s = random_.uniform(0, random_.choice((NEAR_S, FAR_S)))
        reads, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(guard, told, how, seed)
        os.close(told)
        assert os.read(reads, 1) == b"x"
        os.close(reads)
        time.sleep(wait_s)
        yield how, *hit(pid, PLAIN_PATIENCE_S if guard == "plain" else PATIENCE_S)


def many(guard: str, count: str, seed: str) -> None:
    """Stop so many children; print [how, enough, took_s, code] of each as JSON."""
    if guard == "inherited":
        arm("coord")
    made = stops(guard, random.Random(int(seed)))
    say(json.dumps([next(made) for _ in range(int(count))]))


def newborn(guard: str, count: str) -> None:
    """Fork children and hit each while Python is still at it; print how many left, until one did not."""
    arm(guard)
    enough = 0
    for number in range(int(count)):
        pid = os.fork()
        if pid == 0:
            child("inherited", os.open(os.devnull, os.O_WRONLY), "sleep", 0)
        end_s = time.monotonic() + 5e-6 * (number % 100)
        while time.monotonic() < end_s:
            pass
        if not hit(pid, PATIENCE_S if guard == "coord" else PLAIN_PATIENCE_S)[0]:
            break
        enough += 1
    say(str(enough))


ARMED: dict[str, Callable[..., None]] = {each.__name__: each for each in (in_c, elsewhere, finalizer, after_asyncio)}
ARMING: dict[str, Callable[..., None]] = {each.__name__: each for each in (in_asyncio, relative, many, newborn)}

if __name__ == "__main__":
    _, program, guard, *arguments = sys.argv
    if program in ARMED:
        arm(guard)
        ARMED[program](*arguments)
    else:
        ARMING[program](guard, *arguments)
