"""For the code that runs under coord: am I being stopped, why, and how long have I got?

    from coord.child import stop

    stop.raises_exit()                  # from now on SIGTERM raises SystemExit(143): `finally` and atexit run
    try:
        for batch in stop.until_requested(batches):
            train(batch)
            with stop.deferred():       # SIGTERM waits until the checkpoint is whole
                save_checkpoint()
    finally:
        if stop.requested:
            print(f"stopping: {stop.reason}, {stop.remaining_s:.1f} s left")
            if stop.need(60) > 30:      # asks for a minute; how much of it is granted is the plan's affair
                upload()

A program that can end by itself asks to be called instead:

    from coord.child import stop

    stop.on_request(server.shutdown)
    server.serve_forever()

SIGTERM is never lost between Python and a blocking call, as happens to a plain handler: see `coord/sigterm.py`. The
price is a small thread, and the signal SIGURG. What stays: code that catches SystemExit and goes on, and C code that
neither returns nor lets a signal interrupt it.

Under `coord worker`, SIGTERM raises `Stopped` in the job's function, unless that sets a handler of its own.

Before SIGTERM, the agent writes the file that `COORD_STOP_FILE` names: who, why, when hold-outs are killed, and how far
that can be put off (CLOCK_MONOTONIC, one clock for the host). Outside of coord nothing is ever requested, so the same
code runs anywhere, and SIGTERM does the same. Standard library only; quick to import.
"""

from __future__ import annotations

import json
import os
import threading
import time

from coord import sigterm

TYPE_CHECKING = False  # typing is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")

STOP_FILE = "COORD_STOP_FILE"


class Stopped(BaseException):
    """Raised by SIGTERM in the function of an RQ job, once, so that `finally` and context managers run.

    No `except Exception` catches it. Whoever does, and goes on, is killed when the time is over.
    """


class Need:
    """What one process asked for: the file `<stop file>.need-<pid>`, which the agent reads when the wait is over."""

    def __init__(self, stop_file: str) -> None:
        self.pid = os.getpid()
        self.until_s = 0.0
        self._path = f"{stop_file}.need-{self.pid}"
        self._asking = threading.Lock()

    def ask(self, until_s: float, end_s: float) -> None:
        """Ask to live until then, in CLOCK_MONOTONIC; counts only when it is written before `end_s`, the end so far.

        Nor does it count when another thread is just asking: waiting for that could be for ever, in a signal handler.
        """
        if not self._asking.acquire(blocking=False):
            return
        try:
            with open(f"{self._path}.new", "wb") as draft:  # noqa: PTH123  # pathlib is slow to import
                draft.write(json.dumps({"until_s": until_s, "pid": self.pid}).encode())
            os.rename(f"{self._path}.new", self._path)  # noqa: PTH104
            if time.monotonic() < end_s:
                self.until_s = until_s
        except OSError:
            pass  # not ours to write in: what is left is left
        finally:
            self._asking.release()


class Stop:
    """What the agent says of the stop; read from its file each time it matters, since a plan can get shorter."""

    def __init__(self, path: str | None = None) -> None:
        self._given = path
        self._need: Need | None = None

    @property
    def _path(self) -> str | None:
        """The file; a forked rank of a `JobScope` learns of its own after this module was imported."""
        return self._given or os.environ.get(STOP_FILE)

    @property
    def requested(self) -> bool:
        """True from just before SIGTERM on."""
        return self._path is not None and os.path.exists(self._path)  # noqa: PTH110  # pathlib is slow to import

    @property
    def request_id(self) -> str | None:
        """Which request it is, as `coord status --json` shows it; None while nothing is requested."""
        return self._told().get("id")

    @property
    def cause(self) -> str | None:
        """`operator`, `failure`, `host-lost` or `drain`; None while nothing is requested."""
        return self._told().get("cause")

    @property
    def reason(self) -> str | None:
        """What the requester said, or which failure it was; None while nothing is requested."""
        return self._told().get("reason")

    @property
    def by(self) -> str | None:
        """Who requested it, as `user@host`; None while nothing is requested."""
        return self._told().get("by")

    @property
    def remaining_s(self) -> float | None:
        """Seconds until hold-outs are killed, with what `need` was granted; never negative.

        None while nothing is requested.
        """
        times = self._times()
        return None if times is None else max(0.0, self._end_s(*times) - time.monotonic())

    def need(self, seconds: float) -> float:
        """Ask for so many seconds from now on, and give back how many there are until hold-outs are killed.

        They can be fewer, since the plan has a limit; they are more where the plan gives more anyway, and then nothing
        is asked. A need can be raised, but not taken back, nor raised once its time is over. While nothing is requested
        the answer is 0.0 and nothing is asked: say it when the stop has begun, in a callback or in a `finally`.
        """
        times = self._times()
        if self._path is None or times is None:
            return 0.0
        end_s, now_s = self._end_s(*times), time.monotonic()
        until_s = min(now_s + seconds, times[1])
        if now_s < end_s < until_s:
            if self._need is None or self._need.pid != os.getpid():  # a fork's need is its own
                self._need = Need(self._path)
            self._need.ask(until_s, end_s)
        return max(0.0, self._end_s(*times) - time.monotonic())

    def until_requested(self, items: Iterable[T]) -> Iterator[T]:
        """Give the items one by one, and end early once a stop is requested."""
        for item in items:
            if self.requested:
                return
            yield item

    def raises_exit(self) -> None:
        """From now on, SIGTERM raises SystemExit(143) in the main thread, so that `finally` and atexit run.

        Every SIGTERM does: `deferred` keeps a second one out of what must not be cut off. Holds in forked processes
        too. A program that closes all its files, to become a daemon, calls it again afterwards. Raises RuntimeError
        outside of the main thread.
        """
        sigterm.require_main("raises_exit")
        sigterm.raise_on_sigterm()

    def on_request(self, callback: Callable[[], object]) -> None:
        """From now on, SIGTERM calls this in the main thread, between two steps of whatever runs there.

        It replaces `raises_exit`, and is replaced by it. Holds in forked processes too. Raises RuntimeError outside of
        the main thread.
        """
        sigterm.require_main("on_request")
        sigterm.call_on_sigterm(callback)

    def deferred(self) -> sigterm.Deferred:
        """Give a `with` block that SIGTERM waits for; then it does what it did before. SIGKILL does not wait.

        Blocks may be nested: the outermost counts. Processes that are forked in it don't hear SIGTERM; started ones do.
        Raises RuntimeError outside of the main thread, where Python can't change what a signal does.
        """
        sigterm.require_main("deferred")
        return sigterm.Deferred()

    def _times(self) -> tuple[float, float] | None:
        """Give when hold-outs are killed, and until when that can be put off; None while nothing is requested."""
        told = self._told()
        kill_at_s = told.get("kill_at_s")
        if kill_at_s is None:
            return None
        return kill_at_s, max(kill_at_s, told.get("kill_max_s") or kill_at_s)

    def _end_s(self, kill_at_s: float, kill_max_s: float) -> float:
        asked_s = self._need.until_s if self._need and self._need.pid == os.getpid() else kill_at_s
        return min(max(kill_at_s, asked_s), kill_max_s)

    def _told(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        try:
            with open(self._path, "rb") as file:  # noqa: PTH123  # pathlib is slow to import
                told = json.loads(file.read())
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}


stop = Stop()
