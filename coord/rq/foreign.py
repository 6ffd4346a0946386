"""RQ jobs that run now, and the plain `rq worker`s that run some of them.

What hosted workers run, their agents stop and prove. A plain worker is told once per execution, by RQ's own command,
and only when its work-horse is certainly forked: told before, or a second time, it can kill itself and its siblings.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rq.command import send_stop_execution_command
from rq.exceptions import InvalidJobOperation
from rq.executions import Execution
from rq.job import JobStatus
from rq.registry import StartedJobRegistry

from coord.rq.where import told_key, worker_key

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import redis

    from coord.rq.members import Member

TOLD_S = 24 * 3600
UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Running:
    """An execution of an RQ job. `created_s`: by its worker's clock; None when RQ has forgotten it."""

    id: str
    rq_job: str
    worker: str
    created_s: float | None = None
    host: str = UNKNOWN

    @property
    def alive(self) -> bool:
        """Tell whether its worker was heard from within the last minute or two."""
        return self.created_s is not None


def running(connection: redis.Redis, members: Mapping[str, Member]) -> list[Running]:
    """Give the executions of these RQ jobs that RQ has as running; not what is left of those that ended long ago."""
    found = []
    for queue in {member.origin for member in members.values()}:
        registry = StartedJobRegistry(queue, connection=connection)
        for rq_job, execution in registry.get_job_and_execution_ids(cleanup=False):
            if rq_job in members:
                found.append(Running(execution, rq_job, members[rq_job].worker))
    with connection.pipeline(transaction=False) as pipe:
        for each in found:
            pipe.hmget(Execution(each.id, each.rq_job, connection).key, "worker_name", "created_at")
        facts = pipe.execute()
        known = [_known(each, *fact) for each, fact in zip(found, facts, strict=True)]
        known = [each for each in known if each.alive or members[each.rq_job].status is JobStatus.STARTED]
        for each in known:
            pipe.hget(worker_key(each.worker), "hostname")
        hosts = pipe.execute()
    return [
        Running(each.id, each.rq_job, each.worker or UNKNOWN, each.created_s, (host or b"").decode() or UNKNOWN)
        for each, host in zip(known, hosts, strict=True)
    ]


def tell(connection: redis.Redis, execution: Running, member: Member) -> bool:
    """Tell its worker to stop it, if nobody has, and if its work-horse has said that it is there."""
    if not _forked(execution, member) or not connection.set(told_key(execution.id), 1, nx=True, ex=TOLD_S):
        return False
    with suppress(InvalidJobOperation):  # it has just ended
        send_stop_execution_command(connection, execution.rq_job, execution.id)
    return True


def foreign(executions: Collection[Running], hosted: Collection[str]) -> list[Running]:
    """Leave out what hosted workers run."""
    return [each for each in executions if each.worker not in hosted]


def _forked(execution: Running, member: Member) -> bool:
    """The work-horse itself writes `started`, its worker's name and the time, after its worker wrote the execution."""
    if member.status is not JobStatus.STARTED or member.worker != execution.worker or execution.created_s is None:
        return False
    return _seconds(member.started_at) >= execution.created_s


def _seconds(moment: str) -> float:
    from rq.utils import utcparse

    try:
        return utcparse(moment).timestamp()
    except ValueError:
        return 0.0


def _known(execution: Running, worker: bytes | None, created_at: bytes | None) -> Running:
    name = (worker or b"").decode() or execution.worker
    return Running(execution.id, execution.rq_job, name, float(created_at) if created_at else None)
