"""Whether the RQ that is installed is one that `CoordWorker` was made for: what it overrides and calls."""

from __future__ import annotations

import inspect

from rq.job import Job
from rq.queue import Queue
from rq.scheduler import RQScheduler
from rq.version import VERSION
from rq.worker.worker_classes import Worker

SERIES = "3.0."
PARAMETERS = {
    Worker: {
        "bootstrap": "self logging_level date_format log_format",
        "check_for_suspension": "self burst",
        "cleanup_execution": "self job pipeline execution",
        "dequeue_job_and_maintain_ttl": "self timeout max_idle_time",
        "execute_job": "self job queue",
        "fork_work_horse": "self job queue",
        "get_heartbeat_ttl": "self job working_time",
        "handle_job_failure": "self job queue started_job_registry exc_string execution",
        "handle_payload": "self message",
        "handle_work_horse_killed": "self job retpid ret_val rusage",
        "heartbeat": "self timeout pipeline",
        "kill_horse": "self sig",
        "main_work_horse": "self job queue",
        "maintain_heartbeats": "self job execution",
        "monitor_work_horse": "self job queue execution",
        "perform_job": "self job queue execution",
        "prepare_job_execution": "self job remove_from_intermediate_queue",
        "request_force_stop": "self signum frame",
        "request_stop": "self signum frame",
        "request_stop_execution": "self execution_id",
        "set_state": "self state pipeline",
        "setup_work_horse_signals": "self",
        "wait_for_horse": "self",
        "_finalize_failure": "self job queue execution exc_info",
        "_finalize_success": "self job queue execution return_value",
        "_handle_stopped_job": "self job queue execution",
        "_install_signal_handlers": "self",
        "_start_scheduler": "self burst logging_level date_format log_format",
        "_pubsub_exception_handler": "self exc pubsub pubsub_thread",
    },
    Queue: {
        "_enqueue_job": "self job pipeline at_front unique",
        "_fetch_dequeued_job": "connection queue_key job_id job_class serializer death_penalty_class",
    },
    Job: {"cancel": "self pipeline enqueue_dependents remove_from_dependencies", "perform": "self", "refresh": "self"},
    RQScheduler: {"enqueue_scheduled_jobs": "self", "heartbeat": "self", "acquire_locks": "self auto_start"},
}


def misfit() -> str | None:
    """Say in one line why this RQ is not one that we know; None when it is."""
    found = [
        f"{owner.__name__}.{name}"
        for owner, methods in PARAMETERS.items()
        for name, parameters in methods.items()
        if _parameters(owner, name) != parameters
    ]
    if VERSION.startswith(SERIES) and not found:
        return None
    what = f"; other than there: {', '.join(found)}" if found else ""
    return f"coord worker knows RQ {SERIES}x, and this is RQ {VERSION}{what}"


def _parameters(owner: type, name: str) -> str | None:
    method = getattr(owner, name, None)
    return " ".join(inspect.signature(method).parameters) if method else None
