"""What dead workers left in RQ: executions that nobody runs, and RQ jobs in hands that nobody has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import WatchError
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.registry import StartedJobRegistry
from rq.utils import as_text

from coord.rq.members import look
from coord.rq.where import (
    WORKERS,
    executions_key,
    hand_key,
    hosted_workers,
    intermediate_key,
    queue_key,
    queue_names,
    texts,
    worker_key,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import redis
    from redis.client import Pipeline

TRIES = 20  # each one lost means that somebody else wrote to the same RQ job


def executions_of(
    connection: redis.Redis, workers: Collection[str], queues: Iterable[str]
) -> dict[str, list[Execution]]:
    """Give the executions that RQ has as running on these workers.

    RQ forgets an execution 90 s after its last heartbeat, but not that the RQ job is started, nor on which worker.
    """
    found: dict[str, dict[str, Execution]] = {name: {} for name in workers}
    for name in workers:
        for key in texts(connection.smembers(executions_key(name))):
            _add(found[name], key.rpartition(":"), connection, name)
    for queue in queues:
        registry = StartedJobRegistry(queue, connection=connection)
        started = registry.get_job_and_execution_ids(cleanup=False)
        for (job_id, execution_id), name in zip(started, _workers_of(connection, started), strict=True):
            if name in found:
                _add(found[name], (job_id, ":", execution_id), connection, name)
    return {name: list(executions.values()) for name, executions in found.items()}


def requeue(pipe: Pipeline, job: Job) -> None:
    """Put an RQ job at the front of its queue as if it had not been taken: attempts as before, a slot kept."""
    job.set_status(JobStatus.QUEUED, pipeline=pipe)
    pipe.hset(job.key, mapping={"started_at": "", "ended_at": "", "last_heartbeat": "", "worker_name": ""})
    job.cleanup(ttl=job.ttl, pipeline=pipe)  # its work-horse had made it persist
    Queue(job.origin, connection=job.connection).push_job_id(job.id, pipeline=pipe, at_front=True)


def forget(connection: redis.Redis, execution: Execution, queues: Iterable[str]) -> None:
    """Remove an execution of an RQ job that is no more: RQ's dashboard breaks on it."""
    with connection.pipeline() as pipe:
        pipe.delete(execution.key)
        pipe.srem(execution.worker_executions_key, execution.composite_key)
        ExecutionRegistry(execution.job_id, connection=connection).remove(execution, pipe)
        for queue in queues:
            StartedJobRegistry(queue, connection=connection).remove_execution(execution, pipeline=pipe)
        pipe.execute()


def put_hand_back(connection: redis.Redis, worker: str, queue: str) -> int:
    """Put back at the front of its queue what a dead worker had taken and not begun; gives how many."""
    hand = hand_key(worker, queue)
    for _ in range(TRIES):
        with connection.pipeline() as pipe:
            pipe.watch(hand)  # type: ignore[no-untyped-call]
            held = [as_text(each) for each in connection.lrange(hand, 0, -1)]
            if not held:
                return 0
            waiting = [each for each, member in look(connection, held).items() if member.status is JobStatus.QUEUED]
            pipe.multi()
            pipe.delete(hand)
            if waiting:
                pipe.lpush(queue_key(queue), *reversed(waiting))
            try:
                pipe.execute()
            except WatchError:
                continue
            return len(waiting)
    return 0


def put_lost_hands_back(connection: redis.Redis) -> int:
    """Put back what workers of lost hosts had taken and not begun; gives how many. Forget who left nothing else."""
    names, queues = sorted(hosted_workers(connection)), queue_names(connection)
    with connection.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.exists(worker_key(name))
        lost = [name for name, there in zip(names, pipe.execute(), strict=True) if not there]
    count = sum(put_hand_back(connection, name, queue) for name in lost for queue in queues)
    running = executions_of(connection, lost, queues) if lost else {}
    for name in lost:  # one that RQ has an execution of would be taken for a plain worker's
        if not running[name] and not any(connection.exists(hand_key(name, queue)) for queue in queues):
            connection.srem(WORKERS, name)
    return count


def drop(pipe: redis.Redis | Pipeline, worker: str, job: Job) -> None:
    """Take an RQ job out of the lists of those that were taken and not begun."""
    pipe.lrem(hand_key(worker, job.origin), 0, job.id)
    pipe.lrem(intermediate_key(job.origin), 0, job.id)


def _add(found: dict[str, Execution], key: tuple[str, str, str], connection: redis.Redis, worker: str) -> None:
    job_id, _, execution_id = key
    if job_id and execution_id:
        execution = Execution(execution_id, job_id, connection, worker)
        if data := connection.hgetall(execution.key):
            execution.restore(data)
        execution.worker_name = worker
        found[execution_id] = execution


def _workers_of(connection: redis.Redis, started: list[tuple[str, str]]) -> list[str]:
    """Give who has each of them: by its execution, or by the RQ job where the execution is forgotten."""
    with connection.pipeline(transaction=False) as pipe:
        for job_id, execution_id in started:
            pipe.hget(Execution(execution_id, job_id, connection).key, "worker_name")
            pipe.hget(Job.key_for(job_id), "worker_name")
        names = pipe.execute()
    return [as_text(one or other or b"") for one, other in zip(names[::2], names[1::2], strict=True)]
