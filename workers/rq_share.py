"""What a host's RQ workers have to do with the record: for each job of which something runs here, a share.

A job is joined when the first of its RQ jobs is about to start here, and left when none has run for a while. What
belongs to a job by its RQ group or its RQ job id alone is not joined: it is found when a request names it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from coord.coordinator import new_request
from coord.errors import CoordError
from coord.messages import Cause
from coord.record import BEAT_S, Record
from coord.render.text import failure_words
from workers.membership import refuse_start
from workers.outbox import Outbox
from workers.reporter import PATIENCE_S
from workers.rq_reports import WHY, Share, beat, failure_of, report, words_of
from workers.rq_slot import Intent

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.ledger import AsyncLedger
    from coord.messages import ShutdownRequest
    from coord.record import Answer, Call
    from workers.rq_ground import Ground
    from workers.rq_slot import Execution
    from workers.rq_stops import Stops

LINGER_S = 2 * BEAT_S  # a batch of small jobs joins once
RETRY_S = 0.2
TELL_S = 10.0
OBEYED_MAX = 1000


class Shares:
    """All of them."""

    def __init__(
        self,
        ledger: AsyncLedger,
        ground: Ground,
        stops: Stops,
        *,
        sweep: Callable[[ShutdownRequest], None],
        by: str,
        retain_s: int,
    ) -> None:
        self._ledger = ledger
        self._info = ground.info
        self._plan = ground.order.manner.plan
        self._log = ground.log
        self._board = ground.board
        self._stops = stops
        self._sweep = sweep  # has what RQ still holds of the job cancelled
        self._by = by
        self._retain_s = retain_s
        self._shares: dict[str, Share] = {}
        self._obeyed: dict[str, ShutdownRequest] = {}  # what comes of them now is refused
        self._keyring = ground.agent.keyring
        self._refusals = ground.agent.refusals
        self._outbox = Outbox(ledger, self.hear, ground.log, refusals=self._refusals)
        self._loop = asyncio.get_running_loop()
        self._later = ground.agent.later

    # -- before anything starts ----------------------------------------------------------------------------------------

    async def may(self, execution: Execution) -> ShutdownRequest | None:
        """Ask whether it may start; gives the request that forbids it. What is asked is known here from now on.

        So a request that comes after the record's answer finds it: there is no gap.
        """
        share = self._share(execution.job_id) if execution.job_id else None
        if share:
            share.running.add(execution)
        while True:
            try:
                request = await self._ask(execution, share)
            except CoordError as error:
                self._log.warning("job.waits", rq_job=execution.rq_job, error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                if request is not None:
                    self._refuse(execution, share, request)
                return request

    def _refuse(self, execution: Execution, share: Share | None, request: ShutdownRequest) -> None:
        execution.refused = request.job_id
        if share:
            share.running.discard(execution)
            if not (share.joined or share.running or share.stopping):
                self._shares.pop(share.record.job_id, None)

    async def _ask(self, execution: Execution, share: Share | None) -> ShutdownRequest | None:
        if share and (request := await self._ask_for(execution, share)):
            return request
        for job_id in execution.ids:
            if job_id != execution.job_id:
                answer = await self._run(self._record(job_id).fence())
                if answer.request:
                    return answer.request
        return share.request if share else None

    async def _ask_for(self, execution: Execution, share: Share) -> ShutdownRequest | None:
        """Ask for the job that it names, and join that. Once a request was heard, joining would undo our answer."""
        async with share.lock:
            if share.failed:  # what stops the job is on its way
                await share.heard.wait()
            if share.request:
                return share.request
            if share.record.job_id in self._obeyed:
                return (await self._run(share.record.fence())).request
            answer = await self._run(share.record.enlist({execution.rq_job: execution.queue}))
            if answer.request is None and not share.joined:
                await self._ledger.remember(share.record.job_id)
                answer = await self._run(share.record.join(self._info, self._plan))
                share.joined = answer.word == "joined"
                if answer.request is None:
                    refuse_start(answer, share.record.job_id)
            return answer.request

    def began(self, execution: Execution) -> None:
        """Hear that an execution has a process. The record hears of the first at once, of changes with the beat."""
        share = self._shares.get(execution.job_id or "")
        if share and share.told is None:
            share.told = set()
            self._tell(share, "agent.running")

    def left(self, execution: Execution, *, for_good: bool) -> None:
        """Hear that an execution is over. `for_good`: RQ will not try that job again; the record forgets it."""
        share = self._shares.get(execution.job_id or "")
        if share:
            share.running.discard(execution)
            share.idle_since_s = self._loop.time()
            if for_good:
                share.done.append(execution.rq_job)

    # -- stopping ------------------------------------------------------------------------------------------------------

    def hear(self, request: ShutdownRequest) -> None:
        """Obey a request for any job: what runs of it here is stopped."""
        targets = [each for each in self._board.executions() if request.job_id in each.ids and not each.refused]
        share = self._shares.get(request.job_id)
        known = (share.request if share else None) or self._obeyed.get(request.job_id)
        if known and known.rev >= request.rev and (share or not targets):
            return
        if targets or share:
            share = share or self._share(request.job_id)
            share.request, share.heard_s = request, self._loop.time()
            share.heard.set()
            self._log.info("job.stopping", job=request.job_id, request=request.id, cause=request.cause, by=request.by)
            if share.stopping is None:
                share.targets = targets
                share.stopping = self._later(self._stop(share, request))
            for keeper in share.keepers:
                keeper.hurry(request)
        self._sweep(request)

    async def _stop(self, share: Share, request: ShutdownRequest) -> None:
        intent = Intent("stopped", words_of(request), {name: getattr(request, name) for name in WHY})
        enrolled = self._later(self._enrol(share))
        for each in share.targets:
            each.first = enrolled  # its worker writes RQ's state when the record knows of us, and not before
        self._loop.call_later(PATIENCE_S, self._tell_if_stopping, share)
        await asyncio.gather(*(self._stops.stop(each, intent, request.plan) for each in share.targets))
        await enrolled
        self._tell(share, "agent.stopped")
        self._shares.pop(share.record.job_id, None)
        self._obeyed[share.record.job_id] = request
        while len(self._obeyed) > OBEYED_MAX:
            del self._obeyed[next(iter(self._obeyed))]

    def _tell_if_stopping(self, share: Share) -> None:
        if share.stopping is None or share.stopping.done():
            return
        if any(keeper.first_signal_s for keeper in share.keepers):
            self._tell(share, "agent.stopping")
        else:
            self._loop.call_later(PATIENCE_S, self._tell_if_stopping, share)

    async def _enrol(self, share: Share) -> None:
        """Have the record wait for us, where it does not yet."""
        end_s = self._loop.time() + TELL_S
        async with share.lock:
            while not share.joined and self._loop.time() < end_s:
                with suppress(CoordError):
                    await self._ledger.run(share.record.enrol(self._info))
                    share.joined = True
                    return
                await asyncio.sleep(RETRY_S)

    def count(self, execution: Execution, field: str, job_id: str | None = None) -> None:
        """Have the record count an RQ job that was stopped or canceled, for the job whose request did it."""
        job_id = job_id or next((each for each in execution.ids if (s := self._shares.get(each)) and s.request), None)
        if job_id:
            self._put(partial(self._record(job_id).tally, field))

    # -- failures ------------------------------------------------------------------------------------------------------

    def failed(self, execution: Execution, told: dict[str, Any]) -> None:
        """Hear that an RQ job has failed for good: it stops its job, when it is of one."""
        if not (execution.job_id and execution.stop_on_failure):
            return
        failure = failure_of(execution, self._info, told)
        share = self._share(execution.job_id)
        share.failed = True
        wish = new_request(execution.job_id, Cause.FAILURE, self._by, failure_words(failure))
        self._put(partial(share.record.fail, failure, wish))

    # -- all the time --------------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Beat for each job until cancelled; leave those of which nothing runs any more."""
        while True:
            await asyncio.sleep(BEAT_S)
            for share in list(self._shares.values()):
                if share.joined:
                    with suppress(CoordError):
                        await self._beat(share)
                self._delist(share)
                if share.told is not None and share.told != share.running and not share.request:
                    self._tell(share, "agent.running")
            with suppress(CoordError):
                await self.look()

    async def look(self) -> None:
        """Read whether anything that runs here is to be stopped: what was published while nobody listened."""
        for job_id in {job_id for each in self._board.executions() for job_id in each.ids}:
            share = self._shares.get(job_id)
            joined = share and share.joined
            if not joined and (request := (await self._run(self._record(job_id).fence())).request):
                self.hear(request)

    async def _beat(self, share: Share) -> None:
        answer = await beat(self._ledger, share, self._info, plan=self._plan, by=self._by)
        if answer.refusal:
            self._refusals.found(answer.refusal)
        if answer.request:
            self.hear(answer.request)
        elif not share.running and self._loop.time() - share.idle_since_s > LINGER_S:
            self._leave(share)

    async def send(self) -> None:
        """Send what is to be told, until cancelled."""
        await self._outbox.send()

    async def over(self) -> bool:
        """Leave every job; False when the record could not be told."""
        for share in list(self._shares.values()):
            if share.stopping:
                await share.stopping
            elif share.joined:
                self._leave(share)
        self._shares.clear()
        return await self._outbox.empty(TELL_S)

    def _leave(self, share: Share) -> None:
        self._shares.pop(share.record.job_id, None)
        self._delist(share)
        self._tell(share, "agent.stopped")

    def _delist(self, share: Share) -> None:
        """Have the record forget what is done, so that it says of a job that has ended that it has."""
        if share.done and not share.request:
            self._put(partial(share.record.delist, share.done))
            share.done = []

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _share(self, job_id: str) -> Share:
        if job_id not in self._shares:
            self._shares[job_id] = Share(self._record(job_id))
            self._shares[job_id].idle_since_s = self._loop.time()
        return self._shares[job_id]

    def _record(self, job_id: str) -> Record:
        return Record(job_id, self._retain_s, self._keyring)

    async def _run(self, call: Call[Answer]) -> Answer:
        answer = await self._ledger.run(call)
        if answer.refusal:
            self._refusals.found(answer.refusal)
        return answer

    def _put(self, make: Callable[[], Call[Any]]) -> None:
        async def made() -> Call[Any]:
            return make()

        self._outbox.put(made)

    def _tell(self, share: Share, kind: str) -> None:
        self._outbox.put(partial(report, share, self._info, kind))
