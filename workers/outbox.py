"""What an agent has to tell the record: sent one by one, in order, until it gets through. Signals never wait here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

from coord.errors import CoordError
from coord.record import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from structlog.typing import FilteringBoundLogger

    from coord.ledger import AsyncLedger
    from coord.messages import ShutdownRequest
    from coord.record import Call
    from coord.refusals import Refusals

    # made when it is sent, so that what it says is never stale; None: nothing to say any more
    MakeCall: TypeAlias = Callable[[], Awaitable[Call[Answer] | Call[None] | Call[str] | None]]

RETRY_S = 0.1
SIGN_TRIES = 3
RETRY_MAX_S = 1.0


class Outbox:
    """Calls on their way. `heard(request)` is called when an answer holds the job's request.

    `enter`: has an agent that the record has lost known to it again; what it had to tell is told then once more.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        heard: Callable[[ShutdownRequest], None],
        log: FilteringBoundLogger,
        *,
        refusals: Refusals,
        enter: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._heard = heard
        self._log = log
        self._refusals = refusals
        self._enter = enter
        self._queue: asyncio.Queue[MakeCall] = asyncio.Queue()

    def put(self, make: MakeCall) -> None:
        """Add one."""
        self._queue.put_nowait(make)

    async def send(self) -> None:
        """Send until cancelled."""
        while True:
            make = await self._queue.get()
            retry_s = RETRY_S
            while not await self._sent(make, first=retry_s == RETRY_S):
                await asyncio.sleep(retry_s)
                retry_s = min(RETRY_MAX_S, retry_s * 2)
            self._queue.task_done()

    async def empty(self, wait_s: float) -> bool:
        """Wait until all are sent; False, and a word in the log, when they could not be."""
        try:
            async with asyncio.timeout(wait_s):
                await self._queue.join()
        except TimeoutError:
            self._log.error("report.lost", waited_s=wait_s, hint="the verdict will not count this host as stopped")
            return False
        return True

    async def _sent(self, make: MakeCall, *, first: bool) -> bool:
        try:
            call, answer = await self._answer(make)
        except CoordError as error:
            if first:
                self._log.warning("report.delayed", error=str(error))
            return False
        if not isinstance(answer, Answer):
            return True
        if answer.refusal:
            self._refusals.found(answer.refusal)
        if answer.word == "unsigned":
            self._log.error("request.unsigned", hint="the job's agents have a secret: give it to this one, too")
        if answer.request:
            self._heard(answer.request)
        if call and answer.word == "created" and self._ledger.min_replicas:
            await self._count_copies(call)
        return answer.word != "plan"

    async def _answer(self, make: MakeCall) -> tuple[Call[Any] | None, Answer | str | None]:
        """Send it; at once again where the record knows better what has to be signed, or has lost who sends it."""
        call, answer = None, None
        for _ in range(SIGN_TRIES):
            call = await make()
            answer = await self._ledger.run(call) if call else None
            word = answer.word if isinstance(answer, Answer) else answer
            if word == "missing" and self._enter:
                await self._enter()
            elif word != "plan":
                break
        return call, answer

    async def _count_copies(self, call: Call[Any]) -> None:
        """Say it when a request that was just made is on fewer replicas than it should be."""
        try:
            copies = await self._ledger.copies(call)
        except CoordError:
            copies = 0
        if copies < self._ledger.min_replicas:
            self._log.warning(
                "request.risky", copies=copies, wanted=self._ledger.min_replicas, hint="lost if Redis' primary dies now"
            )
