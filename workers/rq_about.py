"""What is known of an RQ job: for the agent that is asked about it, and for its function, by the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coord.rq.meta import JOB_ID, ON_FAILURE

if TYPE_CHECKING:
    from rq.job import Job
    from rq.queue import Queue

    from workers.rq_take import Hosting

LABEL_MAX = 75


def surroundings(hosting: Hosting, job: Job) -> dict[str, str]:
    """Give what a job's function finds in its environment, as any child of an agent."""
    found = {
        "COORD_JOB_ID": job_id_of(job) or job.id,
        "COORD_AGENT_ID": hosting.agent_id,
        "COORD_LABEL": label_of(job),
        "COORD_STOP_FILE": hosting.stop_file,
        "COORD_REDIS_URL": hosting.record_url,
    }
    return {name: value for name, value in found.items() if value}


def job_id_of(job: Job) -> str | None:
    """Give the id of the job of ours that an RQ job belongs to."""
    found = meta_of(job).get(JOB_ID)
    return found if isinstance(found, str) else None


def meta_of(job: Job) -> dict[str, Any]:
    """Give an RQ job's meta; people put into it what they like."""
    meta: object = job.meta
    return meta if isinstance(meta, dict) else {}


def about(job: Job, queue: Queue) -> dict[str, Any]:
    """Give what the agent must know to say whether a job may be executed."""
    job_id = job_id_of(job)
    on_failure = meta_of(job).get(ON_FAILURE)
    return {
        "rq_job": job.id,
        "queue": queue.name,
        "job_id": job_id,
        "group": job.group_id,
        "label": label_of(job),
        "on_failure": on_failure if on_failure in {"stop", "ignore"} else "stop" if job_id else "ignore",
    }


def label_of(job: Job) -> str:
    """Give a short name for what a job does."""
    return (job.description or job.id).replace("\n", " ")[:LABEL_MAX]
