"""Job functions for tests of workers, and worker classes with one guard off: the negative controls."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rq import get_current_job

from coord.child import Stopped, stop


def add(one: int, other: int) -> int:
    """Be quick."""
    return one + other


def library() -> str:
    """Give what this connection told the server of its client library."""
    job = get_current_job()
    assert job
    told: Any = job.connection.client_info()
    return str(told["lib-name"] + told["lib-ver"])


def fail(words: str) -> None:
    """Fail."""
    raise ValueError(words)


def say(path: str, words: str) -> None:
    """Append a line."""
    with Path(path).open("a") as file:
        file.write(words + "\n")


def wait(path: str, seconds: float = 60.0) -> str:
    """Wait, and say when it began and how it ended."""
    try:
        say(path, "begun")
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            time.sleep(min(1.0, max(0.0, end_s - time.monotonic())))
        say(path, "done")
    except Stopped:
        say(path, "Stopped")
        raise
    finally:
        say(path, f"finally {stop.requested}")
    return "whole"


def wait_for(path: str, gate: str) -> str:
    """Wait until a file is there."""
    say(path, "begun")
    while not Path(gate).exists():
        time.sleep(0.01)
    return "whole"


def swallow(path: str) -> str:
    """Catch what no job should catch, and return."""
    try:
        wait(path)
    except Stopped:
        say(path, "swallowed")
    return "whole"


def turn(path: str) -> None:
    """Turn the stop into a failure of its own."""
    try:
        wait(path)
    except Stopped as error:
        raise RuntimeError("could not save") from error


def own_handler(path: str) -> str:
    """Have a SIGTERM handler of its own."""
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    say(path, "begun")
    while not came:
        time.sleep(0.01)
    say(path, "handled")
    return "whole"


def raises_exit(path: str) -> str:
    """Use what `coord.child` has for any program."""
    stop.raises_exit()
    try:
        say(path, "begun")
        time.sleep(60)
    finally:
        say(path, "finally")
    return "whole"


async def sleep(path: str) -> str:
    """Be a coroutine."""
    try:
        say(path, "begun")
        await asyncio.sleep(60)
    finally:
        say(path, "finally")
    return "whole"


def fork(path: str) -> str:
    """Have a forked process, which SIGTERM ends as ever."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    say(path, "begun")
    child.join()
    say(path, f"child {child.exitcode}")
    return "whole"


def leave_behind(path: str, seconds: float = 60.0) -> str:
    """Leave a daemon: a session of its own, and orphaned."""
    program = f"import os, time\nif os.fork(): os._exit(0)\nos.setsid()\ntime.sleep({seconds})"
    subprocess.run([sys.executable, "-c", program], check=True)
    say(path, "begun")
    return "whole"


def tell(path: str) -> None:
    """Say what is in the environment."""
    names = ("COORD_JOB_ID", "COORD_AGENT_ID", "COORD_LABEL", "COORD_STOP_FILE", "COORD_REDIS_URL", "COORD_RQ_LINK")
    say(path, repr({name: os.environ.get(name) for name in names}))


def drop(path: str) -> str:
    """Have the first SIGTERM come where Python drops what it raises."""

    class Deaf:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):
                pass

    say(path, "begun")
    thing = Deaf()
    del thing
    say(path, "dropped")
    time.sleep(60)
    return "whole"


def late_callback(job: Any, _connection: Any, _result: Any) -> None:
    """Be RQ's bookkeeping for a while: a success callback."""
    say(job.args[0], "callback")
    gate = Path(f"{job.args[0]}.gate")
    while not gate.exists():
        time.sleep(0.01)


def never(path: str) -> None:
    """Not be reached."""
    say(path, "reached")


def quick(path: str) -> str:
    """Be quick, with a callback that isn't."""
    say(path, "begun")
    return "whole"


def on_stopped(job: Any, _connection: Any) -> None:
    """Say that it was called, and take a while."""
    say(job.args[0], "on_stopped")
    time.sleep(60)
    say(job.args[0], "on_stopped done")
