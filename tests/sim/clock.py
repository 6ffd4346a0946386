"""A virtual clock: an event loop whose time moves only when nothing is ready, and programs that live and die on it.

Each host's clock has an offset and a rate of its own. What runs in a program's context reads the clock of its host;
what runs in none (the server, the network) reads the true time.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import time
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis.utils

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from random import Random

EPOCH_S = 1_800_000_000.0  # what time.time() says at the true time 0
TICK_S = 1e-9  # so that a host's clock, rounded, has reached what was waited for
STEPS_MAX = 200_000  # callbacks in one history: more is a history that does not end


class StuckError(Exception):
    """The simulation itself can't go on: nothing will ever happen, or too much does."""


@dataclass(eq=False)
class HostClock:
    """The monotonic clock of a host."""

    offset_s: float = 0.0
    rate: float = 1.0

    def local(self, true_s: float) -> float:
        """Give what the host reads."""
        return self.offset_s + true_s * self.rate

    def true(self, local_s: float) -> float:
        """Give the true time at which the host reads this."""
        return (local_s - self.offset_s) / self.rate


@dataclass(eq=False)
class Program:
    """An operating system's process of ours: an agent, its heir, a follower. Dead ones run no more code at all."""

    name: str
    clock: HostClock
    host: str = ""
    dead: bool = False
    frozen_until_s: float = 0.0
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    wires: list[Any] = field(default_factory=list)
    buried: list[asyncio.Handle] = field(default_factory=list)  # what a dead one did not come to do

    def context(self) -> Context:
        """Give a context in which code is this program's."""
        context = copy_context()
        context.run(WHERE.set, self)
        return context


WHERE: ContextVar[Program | None] = ContextVar("WHERE", default=None)


class CountedTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address: sets of tasks are walked through in one order."""

    number = 0

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: VirtualLoop, **how: Any) -> None:
        loop.tasks_made += 1
        self.number = loop.tasks_made
        super().__init__(coro, loop=loop, **how)
        if place := WHERE.get():
            place.tasks.append(self)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs what is ready; when nothing is, it is later. Reaches no thread and no socket: both raise."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.steps = 0
        self.tasks_made = 0
        self.connect: Callable[..., Coroutine[Any, Any, Any]] | None = None
        self.failed: list[dict[str, Any]] = []  # what nobody caught
        self._later: list[tuple[float, int, asyncio.Handle]] = []
        self._numbers = 0
        self._readers: dict[int, asyncio.Handle] = {}
        self.set_task_factory(lambda loop, coro, **how: CountedTask(coro, loop=loop, **how))
        self.set_exception_handler(lambda _, found: self.failed.append(found))

    # -- time ----------------------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Give the monotonic time of the host whose code asks."""
        place = WHERE.get()
        return place.clock.local(self.now_s) if place else self.now_s

    def call_at(  # type: ignore[override]  # less exact types than typeshed's
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Do as a loop does; `when` is the caller's time."""
        place = WHERE.get()
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined]  # as in BaseEventLoop
        self._put(max(self.now_s, place.clock.true(when) + TICK_S if place else when), handle)
        return handle

    def after(self, wait_s: float, context: Context, callback: Any, *args: Any) -> asyncio.Handle:
        """Call it in this context when so much true time has passed."""
        handle = asyncio.Handle(callback, args, self, context)
        self._put(self.now_s + wait_s, handle)
        return handle

    def _put(self, true_s: float, handle: asyncio.Handle) -> None:
        self._numbers += 1
        heapq.heappush(self._later, (true_s, self._numbers, handle))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing: it is passed over when its time comes."""

    def _run_once(self) -> None:
        ready, later = self._ready, self._later  # type: ignore[attr-defined]
        while later and later[0][2]._cancelled:
            heapq.heappop(later)
        if not ready:
            if not later:
                raise StuckError("nothing will ever happen again")
            self.now_s = max(self.now_s, later[0][0])
        while later and later[0][0] <= self.now_s:
            ready.append(heapq.heappop(later)[2])
        for _ in range(len(ready)):
            self._run(ready.popleft())

    def _run(self, handle: asyncio.Handle) -> None:
        if handle._cancelled:
            return
        place = handle._context.get(WHERE)  # type: ignore[attr-defined]
        if place is not None:
            if place.dead:
                place.buried.append(handle)
                return
            if place.frozen_until_s > self.now_s:
                self._put(place.frozen_until_s, handle)
                return
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise StuckError(f"{STEPS_MAX} steps, and no end")
        handle._run()

    # -- the world -----------------------------------------------------------------------------------------------------

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **_how: Any) -> Any:  # type: ignore[override]
        """Connect over the virtual network."""
        if self.connect is None:
            raise StuckError("there is no network")
        return await self.connect(factory, host, port)

    def run_in_executor(self, *_: Any) -> Any:  # type: ignore[override]
        """Raise: no thread keeps this time."""
        raise StuckError("a thread was reached")

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
        """Call it when this virtual descriptor is stirred."""
        self._readers[fd] = asyncio.Handle(callback, args, self, None)

    def remove_reader(self, fd: Any) -> bool:
        """Call it no more."""
        return self._readers.pop(fd, None) is not None

    def stir(self, fd: int) -> None:
        """Make a virtual descriptor readable."""
        if handle := self._readers.get(fd):
            self._ready.append(handle)  # type: ignore[attr-defined]

    def _write_to_self(self) -> None:
        """Nobody sleeps here."""

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""


@contextmanager
def virtual_time(loop: VirtualLoop, rng: Random) -> Iterator[None]:
    """Let all of this process read the loop's time, and take its chance numbers from `rng`."""
    replaced: list[tuple[Any, str, Any]] = [
        (time, "monotonic", loop.time),
        (time, "time", lambda: EPOCH_S + loop.now_s),
        (os, "urandom", rng.randbytes),
        (redis.utils, "get_lib_version", lambda: "0"),  # read from the disk for each connection
    ]
    with replacing(replaced):
        yield


@contextmanager
def replacing(replaced: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Let names of modules mean others. Quicker than patching them one by one."""
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    for module, name, new in replaced:
        setattr(module, name, new)
    try:
        yield
    finally:
        for module, name, old in before:
            setattr(module, name, old)
