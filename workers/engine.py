"""Runs a keeper or an agent on a thread of a program that has work of its own: an asyncio loop, and calls into it.

While the program forks, the thread stands still at a known place: the child must find no lock held.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from workers.keeper import Keeper

T = TypeVar("T")

PARK_S = 5.0  # a fork waits no longer for the thread, nor the thread for the fork


class Engine:
    """Use: `start`, then `call`, then `wait` for its end. `work(ready)` calls `ready` once its keeper watches."""

    def __init__(self, work: Callable[[Callable[[Keeper], None]], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._ready: Future[Keeper] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="coord", daemon=True)

    def start(self) -> Keeper:
        """Start the thread; gives the keeper once it watches. Raises what came before that."""
        _engines.add(self)
        self._thread.start()
        return self._ready.result()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the loop, and give what it gives, or raise what it raises."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(function(*args))
            except BaseException as error:  # noqa: BLE001  # it belongs to the caller
                done.set_exception(error)

        if self._loop is None or not self._thread.is_alive():
            raise RuntimeError("the scope has ended")
        self._loop.call_soon_threadsafe(run)
        return done.result()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; True when it has come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._begin())
        except BaseException as error:
            if self._ready.done():
                raise  # the thread's excepthook shows it
            self._ready.set_exception(error)
        finally:
            _engines.discard(self)

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._work(self._ready.set_result)

    # -- forks ---------------------------------------------------------------------------------------------------------

    def park(self) -> Callable[[], None] | None:
        """Have the thread stand still; gives what lets it go on."""
        if self._loop is None or threading.current_thread() is self._thread:
            return None
        parked, go_on = threading.Event(), threading.Event()

        def stand_still() -> None:
            parked.set()
            go_on.wait(PARK_S)

        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(stand_still)
            parked.wait(PARK_S if self._thread.is_alive() else 0)
        return go_on.set


_engines: set[Engine] = set()
_parked: list[Callable[[], None]] = []


def _before_fork() -> None:
    _parked.extend(go_on for engine in list(_engines) if (go_on := engine.park()))


def _after_fork_in_parent() -> None:
    while _parked:
        _parked.pop()()


def _after_fork_in_child() -> None:
    _parked.clear()
    _engines.clear()  # their threads did not come along


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
