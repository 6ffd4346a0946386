"""What programs do in the block of their scope."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import queue
import random
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from coord.errors import CoordError
from coord.messages import Cause
from tests.scope.facts import tell, wait_for
from tests.scope.ranks import LONG_S, RANKS, brief, nothing
from workers import JobScope, JobStopped

if TYPE_CHECKING:
    from collections.abc import Callable


def start(scope: JobScope, options: dict[str, Any]) -> None:
    """Start the ranks that were named: `[[NAME, ARGUMENT...], ...]`."""
    for number, (name, *arguments) in enumerate(options["ranks"]):
        scope.spawn(RANKS[name], *arguments, label=f"rank{number}")
    tell("started")


def ranks(scope: JobScope, options: dict[str, Any]) -> None:
    """Start ranks, and leave the block in the normal way."""
    start(scope, options)


def blocked(scope: JobScope, options: dict[str, Any]) -> None:
    """Start ranks, then be somewhere for long."""
    start(scope, options)
    wait_for("ready", len(options["ranks"]))
    tell("blocked")
    PLACES[options["where"]](scope)


def busy(_scope: JobScope) -> None:
    end_s = time.monotonic() + LONG_S
    count = 0
    while time.monotonic() < end_s:
        count += 1


def swallows(_scope: JobScope) -> None:
    """Goes on whatever happens, as loops that try again do."""
    end_s = time.monotonic() + LONG_S
    while time.monotonic() < end_s:
        try:
            time.sleep(LONG_S)
        except Exception as error:  # that is what it is for
            tell("swallowed", error=type(error).__name__)
            if len(told_here) < 3:
                told_here.append(1)
                continue
            raise


LIVES = 20
told_here: list[int] = []


def cleans_up(_scope: JobScope) -> None:
    """Takes its time to clean up, in which nothing more may be raised."""
    try:
        time.sleep(LONG_S)
    finally:
        time.sleep(0.5)
        tell("cleaned")


def deletes(_scope: JobScope) -> None:
    """Is in `__del__` when the stop comes, where Python drops what is raised."""

    class Slow:
        def __del__(self) -> None:
            time.sleep(LONG_S)
            tell("never")

    Slow()
    time.sleep(LONG_S)


def produces(_scope: JobScope) -> None:
    """Hands things from thread to thread, through locks."""
    things: queue.Queue[int] = queue.Queue(1)

    def consume() -> None:
        while things.get() >= 0:
            pass

    threading.Thread(target=consume, daemon=True).start()
    end_s = time.monotonic() + LONG_S
    while time.monotonic() < end_s:
        things.put(1)


def listens(_scope: JobScope) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LONG_S)
        server.accept()


PLACES: dict[str, Callable[[JobScope], object]] = {
    "join": lambda scope: scope.join(),
    "exit": lambda _scope: None,
    "sleep": lambda _scope: time.sleep(LONG_S),
    "queue": lambda _scope: queue.Queue[int]().get(),
    "mp_queue": lambda _scope: multiprocessing.get_context("fork").Queue().get(timeout=LONG_S),
    "event": lambda _scope: threading.Event().wait(LONG_S),
    "program": lambda _scope: subprocess.run(["sleep", str(LONG_S)], check=False),
    "asyncio": lambda _scope: asyncio.run(asyncio.sleep(LONG_S)),
    "busy": busy,
    "swallows": swallows,
    "cleans_up": cleans_up,
    "deletes": deletes,
    "produces": produces,
    "listens": listens,
}


def starting(scope: JobScope, _options: dict[str, Any]) -> None:
    """Start ranks and programs without end."""
    end_s = time.monotonic() + LONG_S
    while time.monotonic() < end_s:
        tell("started")
        scope.spawn(nothing)
        scope.popen(["true"]).wait()
        scope.join()


def raising(scope: JobScope, options: dict[str, Any]) -> None:
    """Leave the block by an exception."""
    start(scope, options)
    wait_for("ready", len(options["ranks"]))
    match options["how"]:
        case "error":
            raise KeyError("no such layer")
        case "exit":
            sys.exit(3)


def stubborn(scope: JobScope, options: dict[str, Any]) -> None:
    """Go on in the block after it was stopped."""
    start(scope, options)
    try:
        time.sleep(LONG_S)
    except JobStopped:
        again(scope, options["way"])
        raise


def again(scope: JobScope, way: str) -> None:
    """Try to start one more."""
    try:
        match way:
            case "spawn":
                scope.spawn(brief)
            case "popen":
                scope.popen([sys.executable, "-c", "from tests.scope.ranks import brief; brief()"])
            case "adopt":
                with subprocess.Popen(["sleep", "1000"]) as other:
                    try:
                        scope.adopt(other)
                    finally:
                        other.kill()
            case "join":
                scope.join()
    except CoordError as error:
        tell("refused", error=type(error).__name__, text=str(error))


LAUNCHERS = {
    "fork": "multiprocessing.popen_fork",
    "spawn": "multiprocessing.popen_spawn_posix",
    "forkserver": "multiprocessing.popen_forkserver",
}


def overtaken(scope: JobScope, options: dict[str, Any]) -> None:
    """Have a stop begin at the worst moment: the scope has looked, the process is not there yet."""
    way = options["way"]
    kind: Any = subprocess.Popen if way == "program" else importlib.import_module(LAUNCHERS[way]).Popen
    name = "_execute_child" if way == "program" else "_launch"
    launch = getattr(kind, name)

    def late(*args: Any, **named: Any) -> None:
        setattr(kind, name, launch)
        scope._opened.stop(Cause.OPERATOR, "too late")
        launch(*args, **named)

    setattr(kind, name, late)
    again(scope, "popen" if way == "program" else "spawn")
    scope.join()


def by_hand(_scope: JobScope, options: dict[str, Any]) -> None:
    """Do without the scope: the naive loop."""
    context: Any = multiprocessing.get_context("fork")
    processes = [context.Process(target=RANKS[name], args=arguments) for name, *arguments in options["ranks"]]
    for process in processes:
        process.start()
    wait_for("ready", len(processes))
    began_s = time.monotonic()
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(timeout=options["grace_s"])
        if process.is_alive():
            process.kill()
    tell("by hand", took_s=time.monotonic() - began_s)
    for process in processes:
        process.join()


def living(scope: JobScope, options: dict[str, Any]) -> None:
    """Start ranks and programs of all kinds, again and again, and wait for none of them for long."""
    chance = random.Random(options["seed"])
    for _ in range(LIVES):
        name = chance.choice(["sleeper", "deaf", "parent", "daemon", "brief"])
        if chance.random() < 0.7:
            scope.spawn(RANKS[name])
        else:
            scope.popen([sys.executable, "-c", f"from tests.scope.ranks import {name}; {name}()"])
        scope.join(chance.uniform(0, 0.2))
    scope.join()


BODIES: dict[str, Callable[[JobScope, dict[str, Any]], None]] = {
    each.__name__: each for each in (ranks, blocked, starting, raising, stubborn, overtaken, by_hand, living)
}
