"""The clock of the Procfile: every night, the pipeline runs as RQ jobs of one job, which that night names.

    rq cron compose.pipeline.nightly

A clock only says when: `split` is a job for the workers, too. Were two clocks there for a moment, as in a deployment,
a night would still be enqueued once: its shares have names.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from rq import Queue, cron, get_current_job
from rq.exceptions import DuplicateJobError

from compose.pipeline.rank import STDLIB, index_share
from coord.rq import enqueue

AT = "0 3 * * *"


def split() -> str:
    """Enqueue the night's shares; gives the job's id. Raises RefusedError when that night was shut down."""
    job = get_current_job()
    if job is None or job.enqueued_at is None:
        raise RuntimeError("this is for RQ to call")
    night = f"nightly-{job.enqueued_at:%Y-%m-%d}"
    shares = int(os.environ.get("SHARES", "6"))
    queue = Queue("default", connection=job.connection)
    for share in range(shares):
        with suppress(DuplicateJobError):
            enqueue(
                queue,
                index_share,
                share,
                shares,
                Path(os.environ.get("OUT", "/tmp/nightly")) / night,  # noqa: S108  # a dyno has no disk that stays
                source=Path(os.environ.get("SOURCE", STDLIB)),
                job_id=night,
                rq_job_id=f"{night}-{share}",
                unique=True,
                description=f"share {share} of {night}",
            )
    return night


cron.register(split, queue_name="high", cron=AT)
