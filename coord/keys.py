"""Every key in Redis: its type, who writes it, who reads it, how long it lives.

All keys of one job share the hash tag `{J}`, so that on a Cluster they live in one slot and one script may use them
all. Each script gets all of them, in this order. Every write renews the lifetime of all keys of the job: they go
together, `--retain` (default 7 days) after the last thing that happened to the job. The fence lives as long.

In RQ's Redis, beside RQ's own keys, `rq.where` has a few more: `coord:rq:*`. Those in OWNED have an owner in place of a
lifetime; all others expire.
"""

from __future__ import annotations

from coord.errors import UsageError

JOB_ID_MAX = 128

# channel; `request`, `shorten` and `fail` publish a ShutdownRequest message, every agent listens
CONTROL_CHANNEL = "coord:control"

# zset job id -> Redis time of its last join, in us; written beside `join` and `--fence`, by a script of its own: it
# can't share the job's slot. `coord jobs` and `coord agents` read it, and drop entries whose job has expired; of a few,
# picked by chance, so does each who writes. Lives `index.LIFE_S` (8 days) after the last join; agents renew it hourly.
JOBS_INDEX = "coord:jobs"

OWNED = {
    "coord:rq:workers": "agents of `coord worker`: who hosts a worker takes it out, or `settle` when its host is lost",
    "coord:rq:hand:*": "a hosted worker: empty between two RQ jobs; put back by `settle` when the worker is lost",
}


def job_keys(job_id: str) -> tuple[str, ...]:
    """Give all keys of one job, in the order in which the scripts' prelude names them."""
    return tuple(f"coord:{{{job_id}}}:{name}" for name in JOB_KEYS)


JOB_KEYS = (
    # hash: created_us, longest waits, patience_us (until then nobody is given up), forgot_us (when the server lost it),
    # memory (who wrote it again knew `part` or the `whole`); then request, plan, requested_us, rev, first_failure; then
    # verdict; with RQ jobs: rq (1: they are to be swept), rq_due_us and rq_by (until when, and who does it), rq_lost,
    # rq_unproved and its count, and how many were rq_canceled, rq_stopped, rq_requeued
    "job",
    "agents",  # hash agent id -> AgentInfo JSON; `join` writes it
    "reports",  # hash agent id -> AgentReport JSON with its timings; `report` writes it
    "leases",  # zset agent id -> Redis time its lease ends, in us: who has to answer; `join`, `beat`, `report`
    "lost",  # zset agent id -> Redis time it was given up; `settle`, `host_lost`; `join` or a late `report` takes out
    "left",  # zset agent id -> Redis time it left, in us; bounds what a job id that is used again and again keeps
    "heard",  # zset agent id -> Redis time it was last heard, in us; `join`, `beat`, `report`, `enrol`
    "rq",  # hash RQ job id -> queue name: what of the job runs on RQ; `enlist` writes it, sweepers read it
    "events",  # stream, at most about 10,000 entries; every script that changes something adds one
)


def check_job_id(job_id: str) -> str:
    """Give the id back if it can name a job; raises UsageError that says why not."""
    if not job_id:
        raise UsageError("the job id is empty", "Name the job: --job-id train-42")
    if len(job_id) > JOB_ID_MAX:
        raise UsageError(f"the job id has {len(job_id)} characters", f"At most {JOB_ID_MAX}")
    if not job_id.isprintable() or job_id != job_id.strip():
        raise UsageError(
            f"the job id {job_id!r} has characters that can't be printed, or spaces at an end",
            "Use letters, digits and signs",
        )
    if "{" in job_id or "}" in job_id:
        raise UsageError(f"the job id {job_id!r} has a brace", "Braces mark a Cluster's hash tag; leave them out")
    return job_id
