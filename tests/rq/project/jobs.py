"""What RQ jobs do, well or badly, when they are stopped. In a folder of its own: a user's project, given by `--path`.

Each notes in the diary (TEST_DIARY) what became of it. The lock beside it belongs to a job's whole tree: whoever
inherits the open file holds it too, so a second copy of the job finds it taken as long as anything of the first runs.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rq import get_current_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rq.job import Job

LONG_S = 300.0  # bounded all the same: a test that fails must not leave it for ever
DAEMON = """
import os, signal, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "fork" in sys.argv and (os.fork() or os.setsid() or os.fork()):
    os._exit(0)
os.write(int(sys.argv[1]), b"%d\\n" % os.getpid())
os.close(int(sys.argv[1]))
time.sleep(300)
"""


def note(what: str, **facts: Any) -> None:
    """Add a line to the diary: one write, so lines of many processes do not mix."""
    job = get_current_job()
    entry = {"job": job.id if job else None, "what": what, "pid": os.getpid(), "at": time.monotonic(), **facts}
    diary = os.open(os.environ["TEST_DIARY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(diary, f"{json.dumps(entry)}\n".encode())
    os.close(diary)


@contextmanager
def noted() -> Iterator[None]:
    """Note when the job begins, that it is alone, and how its function ends."""
    job = get_current_job()
    lock = os.open(f"{os.environ['TEST_DIARY']}.{job.id if job else 'none'}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)  # noqa: FBT003
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("twice")
    note("began")
    try:
        yield
    except BaseException as error:
        note("raised", error=type(error).__name__)
        raise
    note("ended")


def tiny(number: int = 0) -> int:
    """Be over at once."""
    note("ran")
    return number


def nothing() -> None:
    """Do nothing at all: what is measured is the way here."""


def began_at() -> float:
    """Give CLOCK_MONOTONIC, one clock for the host."""
    return time.monotonic()


def polite(seconds: float = LONG_S) -> str:
    """Sleep; leave when asked, by whatever SIGTERM does here."""
    with noted():
        time.sleep(seconds)
    return "slept"


def deaf(seconds: float = LONG_S) -> str:
    """Ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return polite(seconds)


def own_handler(code: int = 0) -> None:
    """Have a SIGTERM handler of one's own, which leaves by SystemExit: what a job library does."""

    def leave(*_: object) -> NoReturn:
        note("handled")
        sys.exit(code)

    signal.signal(signal.SIGTERM, leave)
    polite()


def slow_cleanup(seconds: float) -> None:
    """Take time to clean up."""
    with noted():
        try:
            time.sleep(LONG_S)
        finally:
            note("cleaning")
            time.sleep(seconds)
            note("cleaned")


def until_asked() -> str:
    """Look from time to time whether to stop, and then return as if nothing were."""
    from coord.child import stop

    signal.signal(signal.SIGTERM, lambda *_: None)
    with noted():
        for _ in stop.until_requested(range(int(LONG_S * 100))):
            time.sleep(0.01)
    return "so far"


def stubborn(seconds: float = LONG_S) -> None:
    """Catch whatever is raised, and go on."""
    with noted():
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            try:
                time.sleep(0.05)
            except BaseException as error:  # noqa: BLE001
                note("caught", error=type(error).__name__)


def daemon(*kind: str) -> int:
    """Start a process out of the job's group and session, and wait until it is there; give its pid."""
    reads, writes = os.pipe()
    os.set_inheritable(writes, True)  # noqa: FBT003
    command = [sys.executable, "-S", "-c", DAEMON, str(writes), *kind]
    started = subprocess.Popen(command, close_fds=False, start_new_session=True)
    os.close(writes)
    with os.fdopen(reads) as told:
        pid = int(told.readline())
    if "fork" in kind:
        started.wait()
    note("daemon", daemon=pid)
    return pid


def with_daemon(*kind: str, seconds: float = LONG_S) -> None:
    """Have a daemon, and sleep: kind `setsid` at least, `fork` (twice, by a dead parent), `deaf`."""
    with noted():
        daemon(*kind)
        time.sleep(seconds)


def leaves_daemon() -> str:
    """Return at once, with a daemon left."""
    with noted():
        daemon("setsid")
    return "done"


def fails(after_s: float = 0.0) -> NoReturn:
    """Fail, with a daemon, too."""
    with noted():
        daemon("setsid")
        time.sleep(after_s)
        raise ArithmeticError("the batch does not add up")


def fails_when(path: str) -> NoReturn:
    """Fail as soon as a file is there."""
    with noted():
        daemon("setsid")
        end_s = time.monotonic() + LONG_S
        while not Path(path).exists() and time.monotonic() < end_s:
            time.sleep(0.02)
        raise ArithmeticError("the batch does not add up")


def fails_times(times: int) -> str:
    """Fail so many times, and then not."""
    note("ran")
    job = get_current_job()
    assert job
    tries = [json.loads(line) for line in Path(os.environ["TEST_DIARY"]).read_text().splitlines()]
    if sum(each["job"] == job.id and each["what"] == "ran" for each in tries) <= times:
        raise ArithmeticError("not yet")
    return "at last"


def pool(method: str) -> None:
    """Have a pool of processes at work."""
    with noted(), multiprocessing.get_context(method).Pool(2) as workers:
        workers.map(time.sleep, [LONG_S] * 2)


def allocates(mb: int) -> int:
    """Use memory, and give it back by ending."""
    return len(bytearray(mb * 1024 * 1024))


def on_stopped(job: Job, _connection: object) -> None:
    """Note it: RQ's callback, run by the worker."""
    note("on_stopped", stopped=job.id)


def slow_on_stopped(job: Job, _connection: object) -> None:
    """Take a while about it."""
    note("on_stopped", stopped=job.id)
    time.sleep(0.2)
    note("on_stopped.ended", stopped=job.id)


def on_failure(job: Job, *_: object) -> None:
    """Note it: RQ's callback."""
    note("on_failure", failed=job.id)
