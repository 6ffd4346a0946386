"""One host's agent of a job: a keeper that joins the job's record, obeys its request, and reports.

Signals to processes never wait for Redis: reports leave through a queue of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

from coord.channel import Channel
from coord.coordinator import new_request
from coord.memory import restored_by_agent
from coord.messages import Cause
from coord.plan import format_duration
from coord.refusals import Refusals
from coord.render.text import failure_words
from workers.keeper import Keeper
from workers.membership import Membership
from workers.outbox import Outbox
from workers.reporter import Reporter
from workers.state import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from structlog.typing import FilteringBoundLogger

    from coord.ledger import AsyncLedger
    from coord.messages import AgentInfo, FirstFailure, Lost, ShutdownRequest
    from coord.record import Answer, Call, Record
    from workers.containment import Containment
    from workers.link import Link
    from workers.state import Process, State
    from workers.stopper import Manner

REPORT_S = 10.0  # how long the last report may take when Redis is away; then the host counts as not heard from
ASKED_S = 60.0  # and when somebody asked for the stop, who may be waiting for it just as long
URGENT_S = 300.0  # and when other hosts have to be stopped: nobody else would tell them


@dataclass(frozen=True, slots=True)
class Policy:
    """What a failure means: who acts, and with fail-fast, what the record is told of a child that failed."""

    by: str
    failed: Callable[[Process], Coroutine[Any, Any, Call[Answer]]] | None = None


class Agent(Keeper):
    """Use: `async with Agent(...) as agent` joins the job; then `adopt` children, then `await agent.over()`.

    With `info.fail_fast`, a child's failure stops all: here at once, elsewhere by the call that `policy.failed` makes.
    Raises RefusedError when the job is fenced, UnreachableError when Redis can't be used at the start.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        record: Record,
        info: AgentInfo,
        *,
        manner: Manner,
        log: FilteringBoundLogger,
        containment: Containment,
        link: Link,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(
            info.agent_id,
            manner,
            log=log,
            containment=containment,
            link=link,
            stop_on_failure=info.fail_fast,
        )
        self.info = info
        self.request: ShutdownRequest | None = None
        self.caused: tuple[str, FirstFailure] | None = None  # the id of a request that was made here, and why
        self._heard_s = 0.0
        self.alone: ShutdownRequest | None = None  # what nobody asked for, since Redis stayed away
        self.told = False  # the record has all that this agent had to tell
        self._record = record
        self._policy = policy or Policy(info.host)
        refusals = Refusals(log)
        self._membership = Membership(
            ledger,
            record,
            info,
            self,
            plan=manner.plan,
            log=log,
            proof=containment.proof,
            refusals=refusals,
        )
        beat, keyring = self._membership.beat, record.keyring
        self._channel = Channel(ledger, self.hear, beat, log, refusals=refusals, keyring=keyring)
        self._outbox = Outbox(ledger, self.hear, log, refusals=refusals, enter=self._membership.enter_again)
        self._reporter = Reporter(record, info, self._stopper, self._outbox, asked=lambda: self.request)
        self.refusals, self.keyring = refusals, keyring
        self._patience_s = REPORT_S
        self._alone_after_s = manner.alone_after_s

    async def __aenter__(self) -> Self:
        """Subscribe, then join: a request made after the join is heard, one made before it refuses the join."""
        try:
            await self._membership.join(self._channel)
        except BaseException:
            await self._channel.close()
            raise
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind."""
        await super().__aexit__(kind, error, trace)
        await self._channel.close()

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """Give what is to be done all the time."""
        after_s = self._alone_after_s
        place = [self._membership.keep(), self._membership.doubt()]
        if after_s is not None:
            place.append(self._membership.watch(after_s))
        return [self._channel.listen(), *place, self._outbox.send(), *super().works()]

    # -- what comes in -------------------------------------------------------------------------------------------------

    @property
    def job_id(self) -> str:
        """The job that this agent works for."""
        return self._record.job_id

    def hear(self, request: ShutdownRequest) -> None:
        """Obey a request for this job; one that is known changes nothing."""
        if request.job_id != self.job_id:
            return
        known = self.request
        if known and known.id == request.id and known.rev >= request.rev:
            return
        self.request, self._heard_s = request, self.now_s()
        self._stopper.stop(request.plan, request.elapsed_s, hurried=request.rev > 1)  # signals first, words later
        self._log.info(
            "shutdown.requested", request=request.id, cause=request.cause, by=request.by, reason=request.reason
        )

    def stop_alone(self, after_s: float) -> None:
        """Redis stays away: the plan is run without being asked. Who hears us first, when it is back, is told of it."""
        if self.state.phase is not Phase.RUNNING:
            return
        reason = f"host {self.info.host} was cut off from Redis for {format_duration(after_s)}"
        self.alone = new_request(self.job_id, Cause.HOST_LOST, self._policy.by, reason)
        self._log.error("agent.alone", after_s=after_s, hint="Redis stays away; stopping, as --on-redis-loss says")
        if self.info.fail_fast:
            call = self._record.request(self.alone, None)

            async def made() -> Call[Answer]:
                return call

            self._outbox.put(made)
        self._stopper.stop(self.state.plan)

    # -- what goes out -------------------------------------------------------------------------------------------------

    async def over(self) -> None:
        """Wait until every process is gone or has survived the plan, and the record knows it."""
        await super().over()
        self.told = await self._outbox.empty(max(self._patience_s, ASKED_S if self.request else 0.0))

    def ask(self, make: Callable[[], Call[Answer]]) -> None:
        """Send a call to the record when those before it are through; the request in its answer is heard.

        `make`: makes the call, perhaps more than once: what is signed must be signed at that time.
        """

        async def made() -> Call[Answer]:
            return make()

        self._patience_s = URGENT_S
        self._outbox.put(made)

    def report(self) -> None:
        """Tell the record what the processes are doing."""
        self._reporter.report()

    def give_up(self, lost: Lost) -> Call[Answer]:
        """Another agent's lease has ended: a rank whose host is lost is as missing as one that failed."""
        wish = new_request(self.job_id, Cause.HOST_LOST, self._policy.by, failure_words(lost.failure))
        self.caused = wish.id, lost.failure
        return self._record.host_lost(lost, wish)

    def restore(self) -> Call[Answer]:
        """The server has lost the request that is obeyed here: it is written again, as old as it is."""
        request = cast("ShutdownRequest", self.request)
        request = replace(request, elapsed_s=request.elapsed_s + self.now_s() - self._heard_s)
        failure = self.caused[1] if self.caused and self.caused[0] == request.id else None
        return restored_by_agent(self._record, request, self.info, failure)

    def why(self) -> dict[str, str | None]:
        """Give what the children are told of the reason."""
        return {name: getattr(self.request or self.alone, name, None) for name in ("id", "cause", "by", "reason")}

    def note(self, before: State) -> None:
        """Log and report what changed."""
        if self.state.phase is Phase.OVER:
            self._membership.over = True
        super().note(before)
        if self.state.phase is not before.phase:
            self.report()

    def failed(self, process: Process) -> None:
        """Have the job stopped on the other hosts."""
        if self._policy.failed:
            self._patience_s = URGENT_S
            self._outbox.put(partial(self._policy.failed, process))
