"""What the parts of a host of RQ workers have in common: what they were told, and who else there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from coord.messages import AgentInfo
    from workers.rq_agent import HostAgent, StopFiles
    from workers.rq_clerks import Clerks
    from workers.rq_order import RQOrder
    from workers.rq_slot import Board


@dataclass(frozen=True, slots=True)
class Ground:
    """What all stand on."""

    order: RQOrder
    info: AgentInfo
    url: str  # of the record
    log: FilteringBoundLogger
    spare: set[int]  # pids of the agent's own helpers
    agent: HostAgent
    clerks: Clerks
    files: StopFiles
    board: Board
