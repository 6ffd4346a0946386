"""RQ jobs that belong to a job: enqueued, and stopped with it. `from coord.rq import enqueue`.

`rq` itself is imported by the files of this package, and by nothing that does not need them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from coord.door import forged
from coord.errors import RefusedError, UsageError
from coord.keyrings import keyring
from coord.keys import check_job_id
from coord.record import RETAIN_S, Record
from coord.render.text import fenced_words
from coord.rq.meta import JOB_ID, ON_FAILURE
from coord.settings import parse_retain, variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rq import Queue
    from rq.job import Job
    from rq.queue import EnqueueData

    from coord.ledger import Ledger

__all__ = ["enqueue", "enqueue_many"]

OnFailure = Literal["stop", "ignore"]


def enqueue(
    queue: Queue,
    func: Any,
    *args: Any,
    job_id: str,
    rq_job_id: str | None = None,
    on_failure: OnFailure = "stop",
    rq_on_failure: Any = None,
    record_url: str | None = None,
    **rest: Any,
) -> Job:
    """Do as `queue.enqueue`, and make the RQ job a part of the job `job_id`: it is stopped with it.

    ```python
    import os
    from redis import Redis
    from rq import Queue
    from coord import Coordinator, RefusedError
    from coord.rq import enqueue

    queue = Queue("reports", connection=Redis.from_url(os.environ["COORD_REDIS_URL"]))
    first = enqueue(queue, "reports.build", "2026-11", job_id="reports-42")
    with Coordinator() as coordinator:
        coordinator.request("reports-42", reason="wrong month")
        for snapshot, events in coordinator.follow("reports-42"):
            pass
    print(snapshot.verdict, first.get_status().value)  # -> clean canceled
    try:
        enqueue(queue, "reports.build", "2026-10", job_id="reports-42")
    except RefusedError as error:
        print(error.exit_code)  # -> 7
    ```

    `rq_job_id`, `rq_on_failure`: what `queue.enqueue` calls job_id and on_failure. `on_failure`: whether its failure,
    once it is for good, stops the whole job. `record_url`: where the record is, else COORD_REDIS_URL, else in the
    queue's Redis. All else is given to `queue.enqueue`: `meta`, `retry`, `depends_on`, ...

    Raises RefusedError when the job was shut down: nothing was enqueued, or it was canceled again.
    """
    rest["meta"] = _meta(rest.get("meta"), job_id, on_failure)
    rq_job = rq_job_id or str(uuid4())
    index = _Index(queue, job_id, record_url)
    index.enlist([rq_job])
    made = queue.enqueue(func, *args, job_id=rq_job, on_failure=rq_on_failure, **rest)
    index.check([made])
    return made


def enqueue_many(
    queue: Queue,
    datas: Iterable[EnqueueData],
    *,
    job_id: str,
    on_failure: OnFailure = "stop",
    group: str | None = None,
    record_url: str | None = None,
) -> list[Job]:
    """Do as `queue.enqueue_many` with what `Queue.prepare_data` made, for many RQ jobs of one job, at once.

    ```python
    import os
    from redis import Redis
    from rq import Queue
    from coord.rq import enqueue_many

    queue = Queue("tiles", connection=Redis.from_url(os.environ["COORD_REDIS_URL"]))
    tiles = [Queue.prepare_data("tiles.render", (x, y)) for x in range(20) for y in range(15)]
    print(len(enqueue_many(queue, tiles, job_id="map-7")), queue.count)  # -> 300 300
    ```

    `group`: the name of an RQ group that they shall be in, too. The rest as in `enqueue`.
    """
    given = [
        each._replace(job_id=each.job_id or str(uuid4()), meta=_meta(each.meta, job_id, on_failure)) for each in datas
    ]
    index = _Index(queue, job_id, record_url)
    index.enlist([each.job_id for each in given if each.job_id])
    made = _many(queue, given, group)
    index.check(made)
    return made


class _Index:
    """A job's index of its RQ jobs, from a producer's side."""

    def __init__(self, queue: Queue, job_id: str, record_url: str | None) -> None:
        self._queue = queue
        self._record = Record(check_job_id(job_id), variable("COORD_RETAIN", parse_retain) or RETAIN_S, keyring())
        self._ledger = _ledger(queue, record_url or os.environ.get("COORD_REDIS_URL"))

    def enlist(self, rq_jobs: list[str]) -> None:
        """Before they are enqueued: so that whoever stops the job finds each."""
        answer = self._ledger.run(self._record.enlist(dict.fromkeys(rq_jobs, self._queue.name)))
        if answer.refusal:
            raise forged(answer.refusal)
        if answer.request:
            raise RefusedError(f"{fenced_words(answer.request)}: nothing of it may start", "Use a new job id")
        if answer.word == "created":
            self._ledger.remember(self._record.job_id)
        if answer.word == "crowded":
            self._tidy(set(rq_jobs))

    def _tidy(self, new: set[str]) -> None:
        """A job that runs for years keeps no index of what RQ has forgotten for years."""
        from coord.rq.members import batches, forgotten

        for ids in batches(name for name, _ in self._ledger.rq_jobs(self._record)):
            self._ledger.run(self._record.delist(forgotten(self._queue.connection, ids) - new))

    def check(self, made: list[Job]) -> None:
        """After: who stopped the job in between may have looked too early, so take them back."""
        answer = self._ledger.run(self._record.fence())
        if answer.request is None:
            return
        from coord.rq.cancel import cancel
        from coord.rq.members import WAITING, look

        members = look(self._queue.connection, [job.id for job in made])
        canceled = cancel(self._queue.connection, [each for each in members.values() if each.status in WAITING])
        self._ledger.run(self._record.tally("canceled", len(canceled)))
        raise RefusedError(f"{fenced_words(answer.request)}: nothing of it may start", "Use a new job id")


def _ledger(queue: Queue, url: str | None) -> Ledger:
    """One for each Redis: a producer enqueues thousands."""
    from coord.ledger import Ledger

    if url:
        if url not in _ledgers:
            _ledgers[url] = Ledger(url)
        return _ledgers[url]
    from coord.rq.where import shown_url

    return Ledger(shown_url(queue.connection), queue.connection)


_ledgers: dict[str, Ledger] = {}


def _meta(meta: Mapping[str, Any] | None, job_id: str, on_failure: OnFailure) -> dict[str, Any]:
    if on_failure not in {"stop", "ignore"}:
        raise UsageError(f"on_failure is {on_failure!r}", "Give `stop` or `ignore`")
    return {**(meta or {}), JOB_ID: job_id, ON_FAILURE: on_failure}


def _many(queue: Queue, datas: list[EnqueueData], group: str | None) -> list[Job]:
    if group is None:
        return queue.enqueue_many(datas)
    from rq.group import Group

    made: list[Job] = Group.create(queue.connection, group).enqueue_many(queue, datas)
    return made
