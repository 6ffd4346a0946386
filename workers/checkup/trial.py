"""A trial job, from its start to its verdict, as an agent and a person would have it: shows what this user may do.

Nothing is started for it, agents take no notice of it, no list shows it, and its record is gone within a minute.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from coord.coordinator import new_request
from coord.decode import MessageError, decode_control
from coord.errors import CoordError, UnreachableError
from coord.finding import fail, ok, unknown, warn
from coord.keys import CONTROL_CHANNEL
from coord.ledger import AsyncLedger
from coord.messages import AgentInfo, AgentReport, AgentState, Cause
from coord.plan import Plan
from coord.record import BEAT_S, Record
from coord.render.text import milliseconds
from coord.snapshot import Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from coord.finding import Finding
    from coord.seal import Keyring

RETAIN_S = 60
SUBSCRIBE_S = 5.0
HEAR_S = 1.0


@dataclass
class Outcome:
    """What became of it, as far as it came."""

    deaf: CoordError | None = None  # why nobody can listen
    refused: CoordError | None = None  # why the record can't be used
    requested: bool = False
    heard_s: float | None = None  # from the request's sending on


class Trial:
    """Made once, when the first finding is asked for."""

    def __init__(self, url: str, by: str, keyring: Keyring | None) -> None:
        self._url = url
        self._record = Record(f"coord-doctor-{os.urandom(8).hex()}", RETAIN_S, keyring)
        self._info = AgentInfo("trial", "trial", "trial", os.getpid(), "trial")
        self._wish = new_request(self._record.job_id, Cause.OPERATOR, by, "a trial of coord doctor")

    def record(self) -> Finding:
        """Tell whether this user may do to the record all that coord does."""
        refused = self._outcome.refused
        if refused:
            return fail(f"a trial job failed: {refused.message}", refused.hint)
        return ok("a trial job was joined, stopped and settled")

    def channel(self) -> Finding:
        """Tell whether a request is heard by who listens."""
        outcome = self._outcome
        if outcome.deaf:
            found = f"nobody may listen to {CONTROL_CHANNEL}, so `coord run` can't start: {outcome.deaf.message}"
            return fail(found, outcome.deaf.hint)
        if not outcome.requested:
            return unknown("no request could be made", "See record")
        if outcome.heard_s is None:
            return warn(
                f"a request was not heard on {CONTROL_CHANNEL} within {HEAR_S:.0f} s: agents find it with their next "
                f"heartbeat, up to {BEAT_S:.0f} s late",
                f"Allow this user to publish there: ACL SETUSER NAME +publish &{CONTROL_CHANNEL}",
            )
        return ok(f"a request was heard {milliseconds(outcome.heard_s * 1000)} after it was sent")

    @cached_property
    def _outcome(self) -> Outcome:
        return asyncio.run(self._tried())

    async def _tried(self) -> Outcome:
        ledger = AsyncLedger(self._url)
        ear = ledger.listen()
        outcome = Outcome()
        try:
            outcome.deaf = await _subscribed(ear)
            await self._lived(ledger, ear, outcome)
        except CoordError as error:
            outcome.refused = error
        finally:
            await ear.aclose()
            await ledger.close()
        return outcome

    async def _lived(self, ledger: AsyncLedger, ear: AsyncGenerator[bytes | None], outcome: Outcome) -> None:
        record, nothing_ran = self._record, AgentReport(AgentState.STOPPED, "subreaper")
        await ledger.run(record.join(self._info, Plan.of()))
        sent_s = time.monotonic()
        await ledger.run(record.request(self._wish, None))
        outcome.requested = True
        if not outcome.deaf and await self._hears(ear):
            outcome.heard_s = time.monotonic() - sent_s
        await ledger.run(record.report(self._info, nothing_ran, "agent.stopped"))
        await ledger.events(record, "0", 0.0)  # as who follows a shutdown reads them
        snapshot = await ledger.run(record.snapshot())
        if snapshot is None or snapshot.verdict is not Verdict.CLEAN:
            raise CoordError("it was not settled as clean", "This is a defect of coord")

    async def _hears(self, ear: AsyncGenerator[bytes | None]) -> bool:
        """Wait for the broadcast of our own request; others' requests pass by."""
        try:
            async with asyncio.timeout(HEAR_S):
                async for message in ear:
                    if _job_of(message) == self._record.job_id:
                        return True
        except (TimeoutError, CoordError):
            pass
        return False


async def _subscribed(ear: AsyncGenerator[bytes | None]) -> CoordError | None:
    try:
        async with asyncio.timeout(SUBSCRIBE_S):
            await anext(ear)
    except TimeoutError:
        return UnreachableError(f"Redis did not answer a subscription within {SUBSCRIBE_S:.0f} s")
    except CoordError as error:
        return error
    return None


def _job_of(message: bytes | None) -> str | None:
    try:
        return decode_control(message or b"").job_id
    except MessageError:
        return None
