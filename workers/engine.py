"""Runs a keeper or an agent on a thread of a program that has work of its own: an asyncio loop, and calls into it."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from workers import forks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from workers.keeper import Keeper

T = TypeVar("T")

LOOK_S = 0.2  # between two looks at what else may have happened, while waiting for the thread
PARK_S = 5.0  # a fork waits no longer for the thread, nor the thread for the fork
CANCEL_S = 5.0


class EngineEnded(RuntimeError):  # noqa: N818  # it says what has happened
    """There is no thread any more that could do it."""


class Engine:
    """Use: `start`, then `call`, then `wait` for its end. `work(ready)` calls `ready` once its keeper watches."""

    def __init__(self, work: Callable[[Callable[[Keeper], None]], Coroutine[Any, Any, None]]) -> None:
        self.error: BaseException | None = None  # what ended it before its time
        self._work = work
        self._ready: Future[Keeper] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="coord", daemon=True)

    def start(self, check: Callable[[], None]) -> Keeper:
        """Start the thread; gives the keeper once it watches. Raises what came before that, or what `check` raises."""
        forks.engines.add(self.park)
        self._thread.start()
        try:
            while not wait([self._ready], LOOK_S).done:
                check()
        except BaseException:
            self._cancel()
            raise
        return self._ready.result()

    @property
    def running(self) -> bool:
        """Tell whether the thread has not ended."""
        return self._thread.is_alive()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the loop, and give what it gives, or raise what it raises. Raises EngineEnded."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(function(*args))
            except BaseException as error:  # noqa: BLE001  # it belongs to the caller
                done.set_exception(error)

        self.post(run)
        while not wait([done], LOOK_S).done:
            if not self.running and not done.done():
                raise EngineEnded
        return done.result()

    def post(self, function: Callable[[], None]) -> None:
        """Have the loop call a function, and don't wait for it. Raises EngineEnded."""
        if self._loop is None or not self.running:
            raise EngineEnded
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError as error:  # the loop was closed meanwhile
            raise EngineEnded from error

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; True when it has come."""
        self._thread.join(timeout_s)
        return not self.running

    def _cancel(self) -> None:
        def cancel() -> None:
            if self._task:
                self._task.cancel()

        with suppress(EngineEnded):
            self.post(cancel)
        self.wait(CANCEL_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._begin())
        except BaseException as error:  # noqa: BLE001  # the program's own thread raises it
            if self._ready.done():
                self.error = error
            else:
                self._ready.set_exception(error)
        finally:
            forks.engines.discard(self.park)

    async def _begin(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        await self._work(self._ready.set_result)

    def park(self) -> Callable[[], None] | None:
        """Have the thread stand still; gives what lets it go on, None when there is nothing to stand still."""
        if threading.current_thread() is self._thread:
            return None
        parked, go_on = threading.Event(), threading.Event()

        def stand_still() -> None:
            parked.set()
            go_on.wait(PARK_S)

        with suppress(EngineEnded):
            self.post(stand_still)
            end_s = time.monotonic() + PARK_S
            while not parked.wait(LOOK_S) and self.running and time.monotonic() < end_s:
                pass
        return go_on.set
