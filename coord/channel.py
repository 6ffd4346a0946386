"""Hears requests, and never misses one for long: the broadcast makes it fast, the record makes it sure.

Subscribed first, then the record is read, and read again after every new subscription: what was published while
nobody listened is found there. Messages that are not ours are logged and dropped; the agent goes on. With a keyring,
so are those that are not well signed, not fresh, or not heard for the first time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from coord.decode import MessageError, decode_control
from coord.errors import CoordError
from coord.messages import MESSAGE_MAX_BYTES
from coord.seal import Doubt, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from structlog.typing import FilteringBoundLogger

    from coord.ledger import AsyncLedger
    from coord.messages import ShutdownRequest
    from coord.refusals import Refusals
    from coord.seal import Keyring

RETRY_MIN_S = 0.05
RETRY_MAX_S = 1.0
IGNORED_MAX = 1000  # distinct bad messages remembered, so that each is logged once
SEALS_MAX = 100_000  # remembered as heard; older ones are stale, unless there are more than so many in a minute


class Channel:
    """The ear of one agent. `heard(request)` is called for each request on the channel, whatever its job."""

    def __init__(
        self,
        ledger: AsyncLedger,
        heard: Callable[[ShutdownRequest], None],
        read_again: Callable[[], Awaitable[None]],
        log: FilteringBoundLogger,
        *,
        refusals: Refusals,
        keyring: Keyring | None = None,
    ) -> None:
        self._ledger = ledger
        self._heard = heard
        self._read_again = read_again
        self._log = log
        self._refusals = refusals
        self._keyring = keyring
        self._ignored: set[bytes] = set()
        self._seals: OrderedDict[tuple[str, bool], None] = OrderedDict()  # heard before
        self._lost = False
        self._messages = ledger.listen()

    async def open(self) -> None:
        """Subscribe for the first time. Raises CoordError when that can't be done."""
        self._messages = self._ledger.listen()
        await anext(self._messages)

    async def listen(self) -> None:
        """Listen until cancelled; subscribe again, for ever, when the connection is lost."""
        retry_s = RETRY_MIN_S
        while True:
            try:
                async for message in self._messages:
                    retry_s = RETRY_MIN_S
                    await self._take(message)
            except CoordError as error:
                if not self._lost:
                    self._log.warning("redis.lost", error=str(error))
                self._lost = True
            await self.close()
            await asyncio.sleep(retry_s)
            retry_s = min(RETRY_MAX_S, retry_s * 2)
            self._messages = self._ledger.listen()

    async def close(self) -> None:
        """Unsubscribe."""
        await self._messages.aclose()

    async def _take(self, message: bytes | None) -> None:
        if message is None:
            await self._read_again()
            self._log.warning("redis.back")
            self._lost = False
            return
        try:
            request = decode_control(message)
        except MessageError as error:
            self._refusals.count(Doubt.OVERSIZED if len(message) > MESSAGE_MAX_BYTES else Doubt.MALFORMED)
            self._ignore(message, str(error))
            return
        if self._keyring is None:
            self._heard(request)
        elif doubt := self._doubt(self._keyring, request):
            self._refusals.heard(Refusal(doubt, request.by, request.job_id))
        else:
            age_us = self._keyring.clock.now_us() - request.requested_us  # what the message says of it is not signed
            self._heard(replace(request, elapsed_s=max(0, age_us) / 1e6))

    def _doubt(self, keyring: Keyring, request: ShutdownRequest) -> Doubt | None:
        if doubt := keyring.doubt_broadcast(request):
            return doubt
        heard = (request.seal, request.rq)  # said again, it says that there are RQ jobs
        if heard in self._seals:
            return Doubt.REPLAYED
        self._seals[heard] = None
        if len(self._seals) > SEALS_MAX:
            self._seals.popitem(last=False)
        return None

    def _ignore(self, message: bytes, why: str) -> None:
        name = hashlib.blake2b(message, digest_size=16).digest()
        if name not in self._ignored and len(self._ignored) < IGNORED_MAX:
            self._ignored.add(name)
            self._log.warning("control.ignored", why=why, size=len(message), start=repr(message[:40]))
