"""An agent's place in the record: joins, keeps the lease, and learns with each beat what it may have missed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from coord.door import forged
from coord.errors import CoordError, RefusedError, UnreachableError
from coord.index import RENEW_S
from coord.messages import AgentReport, AgentState
from coord.record import BEAT_S
from coord.render.text import fenced_words

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from coord.channel import Channel
    from coord.ledger import AsyncLedger
    from coord.messages import AgentInfo, Lost, ShutdownRequest
    from coord.plan import Plan
    from coord.record import Answer, Call, Record
    from coord.refusals import Refusals

SUBSCRIBE_S = 10.0
TAKE_BACK_S = 2.0
DOUBT_S = 1.0  # a beat takes a millisecond; a dead connection is given up after 5 s only: a living one may be slow
RETRY_S = 0.5  # a beat that failed is tried again soon: who is patient with us is not so for long


class Owner(Protocol):
    """Whose place it is. `request`: the one that it obeys."""

    request: ShutdownRequest | None

    def hear(self, request: ShutdownRequest) -> None:
        """The record has a request."""

    def report(self) -> None:
        """The record had lost us, and knows no more than that we are here."""

    def give_up(self, lost: Lost) -> Call[Answer]:
        """Another agent's lease has ended: give the call to make."""

    def stop_alone(self, after_s: float) -> None:
        """Redis has been away for so long that all is to be stopped here without being asked."""

    def restore(self) -> Call[Answer]:
        """The server has lost the request: give the call that writes it again."""


class Membership:
    """One agent in one job."""

    def __init__(
        self,
        ledger: AsyncLedger,
        record: Record,
        info: AgentInfo,
        owner: Owner,
        *,
        plan: Plan,
        log: FilteringBoundLogger,
        proof: str | None,
        refusals: Refusals,
    ) -> None:
        self._ledger = ledger
        self._record = record
        self._info = info
        self._plan = plan
        self._log = log
        self._owner = owner
        self._answered_s = asyncio.get_running_loop().time()  # when what was answered last was sent
        self._proof = proof
        self._refusals = refusals
        self._doubted = asyncio.Event()
        self.over = False  # nothing is left to keep a lease for

    async def join(self, channel: Channel) -> None:
        """Subscribe, then join: a request made after the join is heard, one made before it refuses the join."""
        try:
            await self._ledger.remember(self._record.job_id)
            await _subscribe(channel)
            answer = await self._ledger.run(self._record.join(self._info, self._plan))
        except (asyncio.CancelledError, UnreachableError):
            await self._take_back()
            raise
        refuse_start(answer, self._record.job_id)
        self._log.info("agent.joined")

    async def keep(self) -> None:
        """Beat until cancelled; now and then, have the job remembered once more: the index of jobs has a lifetime."""
        loop = asyncio.get_running_loop()
        wait_s = BEAT_S
        renew_s = loop.time() + RENEW_S
        while True:
            await asyncio.sleep(wait_s)
            began_s, wait_s = loop.time(), RETRY_S
            doubt = loop.call_later(DOUBT_S, self._doubted.set)
            with suppress(CoordError):  # the channel says that Redis is away
                await self.beat()
                doubt.cancel()
                if began_s > renew_s:
                    await self._ledger.remember(self._record.job_id, again=True)
                    renew_s = began_s + RENEW_S
                wait_s = max(RETRY_S, BEAT_S - (loop.time() - began_s))  # a slow answer must not make the next one late

    async def watch(self, alone_after_s: float) -> None:
        """Say it when Redis has not answered a beat for so long; on its own, since a beat may hang."""
        loop = asyncio.get_running_loop()
        left_s = alone_after_s
        while left_s > 0:
            await asyncio.sleep(left_s)
            left_s = self._answered_s + alone_after_s - loop.time()
        self._owner.stop_alone(alone_after_s)

    async def doubt(self) -> None:
        """Make another beat when one has no answer: its connection may be dead, and the pool gives this one another."""
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            with suppress(CoordError):
                await self.beat()

    async def beat(self) -> None:
        """Renew the lease, and read what the record has; join again when it has lost us."""
        knew, sent_s = self._owner.request is not None, asyncio.get_running_loop().time()
        answer = await self._ledger.run(self._record.beat(self._info.agent_id, refused=self._refusals.told()))
        self._answered_s = sent_s
        if knew and not (answer.request or answer.refusal):
            self._log.warning("record.lost", hint="the server lost the job's request; writing it again")
            answer = await self._again(self._owner.restore())
        elif answer.word == "missing":
            self._log.warning("record.lost", hint="the server lost that this agent has joined; it says so again")
            answer = await self._again(self._record.enrol(self._info))
        elif answer.word in {"unknown", "back"} and not self.over:
            if answer.word == "back":
                self._log.warning("agent.back", hint="nobody had heard from here for too long; joining again")
            else:
                self._log.warning("record.lost", hint="the server lost the job's record; joining again")
            again = answer.word == "unknown"
            answer = await self._again(self._record.join(self._info, self._plan, again=again))
        elif answer.lost:
            self._log.warning("agent.lost", lost=answer.lost.info.agent_id, silent_s=round(answer.lost.silent_s, 1))
            answer = await self._ledger.run(self._owner.give_up(answer.lost))
        if answer.refusal:
            self._refusals.found(answer.refusal)
        if answer.request:
            self._owner.hear(answer.request)

    async def enter_again(self) -> None:
        """The record has lost this agent: it says again that it is there, also when it is over."""
        over, self.over = self.over, False
        try:
            await self.beat()
        finally:
            self.over = over

    async def _again(self, call: Call[Answer]) -> Answer:
        answer = await self._ledger.run(call)
        self._owner.report()
        await self._ledger.remember(self._record.job_id)
        return answer

    async def _take_back(self) -> None:
        """A join that was interrupted may have reached the record: say that nothing was started."""
        nothing = AgentReport(AgentState.STOPPED, self._proof)
        with suppress(CoordError, TimeoutError):
            async with asyncio.timeout(TAKE_BACK_S):
                await self._ledger.run(self._record.report(self._info, nothing, "agent.stopped"))


def refuse_start(answer: Answer, job_id: str) -> None:
    """Raise RefusedError unless an agent may start something of the job."""
    if answer.request is not None:
        raise RefusedError(f"{fenced_words(answer.request)}: nothing of it may start", "Use a new job id")
    if answer.refusal is not None:
        raise forged(answer.refusal)
    if answer.word == "unsigned":
        raise RefusedError(
            f"the agents of job {job_id} have a secret, and there is none here: nothing was started",
            "Give theirs: --secret-file or COORD_SECRET_FILE",
        )


async def _subscribe(channel: Channel) -> None:
    try:
        async with asyncio.timeout(SUBSCRIBE_S):
            await channel.open()
    except TimeoutError as error:
        raise UnreachableError(f"Redis did not answer a subscription within {SUBSCRIBE_S:.0f} s") from error
