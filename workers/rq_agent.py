"""The agent of a host of RQ workers: its own job is the host; requests for other jobs go to the shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.agent import Agent
from workers.link import guardian
from workers.stop_file import StopFile

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from structlog.typing import FilteringBoundLogger

    from coord.ledger import AsyncLedger
    from coord.messages import AgentInfo, ShutdownRequest
    from coord.plan import Plan
    from coord.record import Record
    from workers.containment import Containment
    from workers.stopper import Manner

TELL_S = 3.0  # how long the last report may take: nobody waits for a host that leaves, and its platform does not wait


class StopFiles(StopFile):
    """The agent's own stop file, and with it those of all that runs: each says what is meant for it."""

    def __init__(self, agent_id: str) -> None:
        super().__init__(StopFile.of(agent_id).path)
        self.others: dict[StopFile, str] = {}  # of each worker: what becomes of what it runs

    def write(self, facts: dict[str, Any]) -> None:
        """Say it to all."""
        super().write(facts)
        for each, ends_as in self.others.items():
            each.write({**facts, "as": ends_as})

    def wanted_s(self) -> float:
        """Give the latest instant until which anybody asked to be waited for."""
        return max(super().wanted_s(), *(each.wanted_s() for each in self.others), 0.0)

    def remove(self) -> None:
        """Take all away."""
        super().remove()
        for each in self.others:
            each.remove()


@dataclass(frozen=True, slots=True)
class Mandate:
    """What the agent of a host is told: who it is, and who does what it does not do itself."""

    record: Record
    info: AgentInfo
    manner: Manner
    log: FilteringBoundLogger
    works: Callable[[], list[Coroutine[Any, Any, None]]]
    elsewhere: Callable[[ShutdownRequest], None]  # hears of requests for other jobs
    wind_up: Callable[[], None]


class HostAgent(Agent):
    """Use as an Agent."""

    def __init__(self, mandate: Mandate, ledger: AsyncLedger, containment: Containment, files: StopFiles) -> None:
        self._mandate = mandate
        self._files = files
        self._told: ShutdownRequest | None = None
        self._all = False  # the workers too are being stopped
        super().__init__(
            ledger,
            mandate.record,
            mandate.info,
            manner=mandate.manner,
            log=mandate.log,
            containment=containment,
            link=guardian,
        )

    def new_stop_file(self, agent_id: str) -> StopFile:
        """Choose where the processes are told that they are being stopped."""
        del agent_id
        return self._files

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """Give what is to be done all the time."""
        return [*self._mandate.works(), *super().works()]

    def hear(self, request: ShutdownRequest) -> None:
        """Obey: a request for the host itself winds it up, one for a job stops what runs of it here."""
        if request.job_id != self.job_id:
            self._mandate.elsewhere(request)
        elif self._all:
            super().hear(request)
        else:
            self._told = request
            self._mandate.wind_up()

    def stop_alone(self, after_s: float) -> None:
        """Redis stays away: leave as when the host is to stop."""
        self._log.error(
            "agent.alone", after_s=after_s, hint="Redis stays away; the workers leave, as --on-redis-loss says"
        )
        self._mandate.wind_up()

    def stop_all(self, plan: Plan) -> None:
        """Have all stopped, the workers too; they know what is meant by it."""
        self._all = True
        self._patience_s = TELL_S
        if self._told:
            super().hear(self._told)
        else:
            self.stop(plan)
