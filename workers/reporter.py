"""Makes an agent's reports: where its processes are, and what happened since the last report that got through."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from coord.messages import PROCESSES_MAX, SURVIVORS_MAX, AgentReport, AgentState, Outcome
from coord.record import Moment
from workers.state import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.messages import AgentInfo, ShutdownRequest
    from coord.record import Call, Record
    from workers.outbox import Outbox
    from workers.stopper import Stopper

# Most processes are gone before anybody could read that they were asked: the last report tells of it too.
PATIENCE_S = 0.02

_STATES = {Phase.RUNNING: AgentState.RUNNING, Phase.OVER: AgentState.STOPPED}  # else it is stopping


class Reporter:
    """One agent's word. A report is made when it is sent, so that it is never stale."""

    def __init__(
        self,
        record: Record,
        info: AgentInfo,
        stopper: Stopper,
        outbox: Outbox,
        *,
        asked: Callable[[], ShutdownRequest | None],
    ) -> None:
        self._record = record
        self._info = info
        self._stopper = stopper
        self._outbox = outbox
        self._asked = asked
        self._loop = asyncio.get_running_loop()
        self._history: list[Moment] = []
        self._made_upto = self._told_upto = 0

    def report(self) -> None:
        """Note what the processes are doing now, and report it."""
        phase = self._stopper.state.phase
        word = "stopped" if phase is Phase.OVER else phase.value
        counts = Counter(process.outcome for process in self._stopper.state.processes.values())
        if phase is Phase.STOPPING and not counts[Outcome.RUNNING]:
            return  # nobody was asked
        self._history.append(Moment(f"agent.{word}", self._loop.time(), counts))
        if phase is Phase.STOPPING:
            self._loop.call_later(PATIENCE_S, self._send_if_still, phase)
        else:
            self._send()

    def _send_if_still(self, phase: Phase) -> None:
        if self._stopper.state.phase is phase:
            self._send()

    def _send(self) -> None:
        self._outbox.put(partial(self._make, len(self._history)))

    async def _make(self, upto: int) -> Call[str]:
        """Make the report of the history up to here. The one made before got through, or it would be made again."""
        if upto != self._made_upto:
            self._told_upto, self._made_upto = self._made_upto, upto
        now_s = self._loop.time()
        state = self._stopper.state
        asked = self._asked()
        return self._record.report(
            self._info,
            AgentReport(
                _STATES.get(state.phase, AgentState.STOPPING),
                self._stopper.proof,
                state.reports()[:PROCESSES_MAX],
                survivors=self._stopper.survivors[:SURVIVORS_MAX],
                left_behind=self._stopper.left_behind,
            ),
            self._history[upto - 1].kind,
            moments=tuple(replace(each, at_s=now_s - each.at_s) for each in self._history[self._told_upto : upto]),
            signal_age_s=_age(self._stopper.first_signal_s, now_s),
            gone_age_s=_age(self._stopper.all_gone_s if state.proved else None, now_s),
            request_id=asked.id if asked else "",
        )


def _age(since_s: float | None, now_s: float) -> float | None:
    return None if since_s is None else now_s - since_s
