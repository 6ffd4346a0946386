"""For the code that runs under coord: am I being stopped, why, and how long have I got?

    from coord.child import stop

    for batch in stop.until_requested(batches):
        train(batch)
        with stop.deferred():        # SIGTERM waits until the checkpoint is whole
            save_checkpoint()
    if stop.requested:
        print(f"stopping: {stop.reason}, {stop.remaining_s:.1f} s left")

Before SIGTERM, the agent writes the file that `COORD_STOP_FILE` names: who, why, and when hold-outs are killed
(CLOCK_MONOTONIC, one clock for the host). Outside of coord nothing is ever requested, so the same code runs anywhere.
Standard library only; quick to import.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let SIGTERM wait until the block has ended, then let it come; SIGKILL at the deadline does not wait.

        Raises RuntimeError outside of the main thread, where Python can't change what a signal does.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("stop.deferred() works in the main thread only")
        came: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
            if came:
                signal.raise_signal(signal.SIGTERM)

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
