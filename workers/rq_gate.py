"""Where a work-horse waits until its job may be executed: it is born beside the question, and begins with the answer.

To ask the agent, and to have RQ record the execution, takes as long as a fork and what the horse sets up. Nothing of
the job runs, and nothing is written of it, before the gate opens; a horse whose gate is closed leaves without a trace.
"""

from __future__ import annotations

import json
import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from rq.executions import Execution

if TYPE_CHECKING:
    from redis import Redis

PIECE_BYTES = 4096


class Gate:
    """A pipe from the worker to its horse, for one execution."""

    def __init__(self) -> None:
        self._inner, self._outer = os.pipe2(os.O_CLOEXEC)

    # -- in the worker

    def leave_outside(self) -> None:
        """Keep our end alone, after the fork."""
        os.close(self._inner)

    def open(self, execution: Execution) -> None:
        """Let the horse begin; one that died has no need of it."""
        facts = {"id": execution.id, "job": execution.job_id, "since": execution.created_at.timestamp()}
        with suppress(BrokenPipeError):
            os.write(self._outer, json.dumps(facts).encode())
        self.close()

    def close(self) -> None:
        """Have a horse that waits leave; so does our death."""
        os.close(self._outer)

    # -- in the horse

    def wait(self, connection: Redis, worker: str) -> Execution | None:
        """Give the execution once it is to begin; None: it never is. A connection to Redis is made meanwhile."""
        os.close(self._outer)
        poll = select.poll()
        poll.register(self._inner, select.POLLIN)
        if not poll.poll(0):
            with suppress(RedisError):
                connection.ping()
        said = b""
        while piece := os.read(self._inner, PIECE_BYTES):
            said += piece
        os.close(self._inner)
        with suppress(ValueError, KeyError):
            return _execution(json.loads(said), connection, worker)
        return None


def _execution(facts: dict[str, str], connection: Redis, worker: str) -> Execution:
    execution = Execution(facts["id"], facts["job"], connection, worker)
    at = str(facts["since"]).encode()
    execution.restore({b"created_at": at, b"last_heartbeat": at, b"worker_name": worker.encode()})
    return execution
