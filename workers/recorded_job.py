"""The job behind a `JobScope` that spans hosts: its agent joins the record, and obeys it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from coord.coordinator import new_request
from coord.embedded import ensure
from coord.errors import CoordError
from coord.keyrings import keyring
from coord.ledger import AsyncLedger
from coord.messages import Cause
from coord.record import Record
from coord.render.text import failure_words
from workers.agent import Agent, Policy
from workers.scoped_job import ScopedJob
from workers.state import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.messages import ShutdownRequest
    from coord.record import Answer, Call
    from workers.keeper import Keeper
    from workers.state import Process

LEARN_S = 5.0  # how long reading the job's first failure may take at the end
REPORT_SOON_S = 0.05  # many children started in a row are reported together


class RecordedJob(ScopedJob):
    """Use it as `ScopedJob`."""

    _agent: Agent | None = None
    _report_planned = False

    def open(self, check: Callable[[], None]) -> None:
        """Join the job. Raises RefusedError when it is fenced, UnreachableError when Redis can't be used."""
        self._url = self.terms.redis_url or ensure()
        self._record = Record(self.terms.job_id, self.terms.retain_s, keyring(self.terms.secret_file))
        super().open(check)

    @property
    def request(self) -> ShutdownRequest | None:
        """The job's request, if there is one."""
        return self._agent.request or self._agent.alone if self._agent else None

    async def _work(self, ready: Callable[[Keeper], None]) -> None:
        ledger = AsyncLedger(self._url or "", min_replicas=self.terms.min_replicas)
        try:
            self._agent = Agent(
                ledger,
                self._record,
                self._info,
                manner=self._manner,
                log=self._log,
                containment=self._containment,
                link=self._beside.link,
                policy=Policy(self.terms.by, self._failed if self.terms.stop_on_failure else None),
            )
            async with self._agent as agent:
                self._begin(agent, ready)
                await agent.over()
                await self._learn(ledger)
        finally:
            await ledger.close()

    def _stop_elsewhere(self, cause: Cause, reason: str) -> None:
        if self._agent and self.terms.stop_on_failure:
            self._agent.ask(partial(self._record.request, self._wish(cause, reason), None))

    async def _failed(self, process: Process) -> Call[Answer]:
        failure = self._failure_of(process)
        wish = self._wish(Cause.FAILURE, failure_words(failure))
        if self._agent:
            self._agent.caused = wish.id, failure
        return self._record.fail(failure, wish)

    async def _learn(self, ledger: AsyncLedger) -> None:
        """Read which failure was the first: it may have been on another host."""
        try:
            async with asyncio.timeout(LEARN_S):
                snapshot = await ledger.run(self._record.snapshot())
        except (CoordError, TimeoutError):
            return
        if snapshot and snapshot.request:
            self.first_failure = snapshot.first_failure

    def _adopted(self) -> None:
        if not self._report_planned:
            self._report_planned = True
            asyncio.get_running_loop().call_later(REPORT_SOON_S, self._report)

    def _report(self) -> None:
        self._report_planned = False
        if self._agent and self.state.phase is Phase.RUNNING:
            self._agent.report()

    def _wish(self, cause: Cause, reason: str) -> ShutdownRequest:
        return new_request(self.terms.job_id, cause, self.terms.by, reason)
