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

A program that can end by itself asks to be called instead:

    from coord.child import stop

    stop.on_request(server.shutdown)
    server.serve_forever()

SIGTERM is never lost between Python and a blocking call, as happens to a plain handler: see `coord/sigterm.py`. The
price is a small thread, and the signal SIGURG. What stays: code that catches SystemExit and goes on, and C code that
neither returns nor lets a signal interrupt it.

Before SIGTERM, the agent writes the file that `COORD_STOP_FILE` names: who, why, and when hold-outs are killed
(CLOCK_MONOTONIC, one clock for the host). Outside of coord nothing is ever requested, so the same code runs anywhere,
and SIGTERM does the same. Standard library only; quick to import.
"""

from __future__ import annotations

import json
import os
import time

from coord import sigterm

TYPE_CHECKING = False  # typing is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")

STOP_FILE = "COORD_STOP_FILE"


class Stop:
    """What the agent says of the stop; read from its file each time it matters, since a plan can get shorter."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    @property
    def requested(self) -> bool:
        """True from just before SIGTERM on."""
        return self._path is not None and os.path.exists(self._path)  # noqa: PTH110  # pathlib is slow to import

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
        """Seconds until hold-outs are killed, never negative; None while nothing is requested."""
        kill_at_s = self._told().get("kill_at_s")
        return None if kill_at_s is None else max(0.0, kill_at_s - time.monotonic())

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

    def _told(self) -> dict[str, Any]:
        if self._path is None:
            return {}
        try:
            with open(self._path, "rb") as file:  # noqa: PTH123  # pathlib is slow to import
                told = json.loads(file.read())
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}


stop = Stop(os.environ.get(STOP_FILE))
