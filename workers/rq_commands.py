"""RQ's commands to a worker, `stop-job` and the like: heard as long as it lives, whatever else is published.

Hosted, each is put to the agent, which stops the whole tree in order; alone, it is done as RQ does it. What a command
means is looked for among the executions that run here, and not in RQ's index, which may know old ones.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from rq.command import handle_command, parse_payload

from workers.rq_reaping import ReapingWorker
from workers.rq_take import UNREACHABLE, hold

if TYPE_CHECKING:
    from redis.client import PubSub
    from rq.executions import Execution

LISTEN_AGAIN_S = 1.0
JOIN_S = 1.0
WHAT = {"stop-job": "stop", "stop-execution": "stop", "kill-horse": "kill", "shutdown": "shutdown"}


class CommandedWorker(ReapingWorker):
    """What of a worker hears commands."""

    pubsub: PubSub | None
    pubsub_thread: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._heard_s = 0.0  # when somebody last began to listen anew
        super().__init__(*args, **kwargs)

    def subscribe(self) -> None:
        """Listen to commands; signals stay with the main thread."""
        before = hold(*signal.valid_signals())
        try:
            super().subscribe()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def unsubscribe(self) -> None:
        """Stop listening: first the thread, or it misses the answer that wakes it, and is waited for in vain."""
        if self.pubsub_thread and self.pubsub:
            self.log.info("Worker %s: unsubscribing from channel %s", self.name, self.pubsub_channel_name)
            self.pubsub_thread.stop()
            self.pubsub.unsubscribe()
            self.pubsub_thread.join(timeout=JOIN_S)
            self.pubsub.close()

    def listen_again(self) -> None:
        """Replace the thread that listens, if it ended."""
        if self.deaf_s is None or self.ended or time.monotonic() - self._heard_s < LISTEN_AGAIN_S:
            return
        self.pubsub_thread.join(timeout=JOIN_S)
        self._heard_s = time.monotonic()
        self.deaf_s = None  # first, since the new thread may fail, too
        try:
            self.subscribe()
        except RedisError:
            self.deaf_s = time.monotonic()
            raise

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: Any) -> None:
        if isinstance(exc, UNREACHABLE):
            super()._pubsub_exception_handler(RedisConnectionError(str(exc)), pubsub, pubsub_thread)
            return
        self.deaf_s = time.monotonic()
        self.wake_up.ring()  # the main thread replaces this one
        super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)

    def handle_payload(self, message: Any) -> None:
        """Handle a command, whatever it is."""
        try:
            payload = parse_payload(message)
            command = payload["command"]
            execution = self._meant(command, payload)
            if self.hosting:
                self._ask(command, execution)
            elif command in {"stop-job", "stop-execution"}:
                self.request_stop_execution(execution.id if execution else payload.get("execution_id", ""))
            else:
                handle_command(self, payload)
        except Exception as error:  # noqa: BLE001  # it would end the thread
            self.log.warning("Worker %s: a command was ignored: %r", self.name, error)

    def _meant(self, command: str, payload: dict[str, Any]) -> Execution | None:
        """Find the execution that a command means, among those that run here, and not in RQ's index of old ones."""
        for execution in list(self.executions.values()):
            if (
                command == "kill-horse"
                or (command == "stop-job" and execution.job_id == payload.get("job_id"))
                or (command == "stop-execution" and execution.id == payload.get("execution_id"))
            ):
                return execution
        return None

    def _ask(self, command: str, execution: Execution | None) -> None:
        """Have the agent do it: it stops the whole tree, in order."""
        assert self.hosting
        what = WHAT.get(command)
        if what == "shutdown":
            self.hosting.desk.why = self.hosting.desk.why or "shutdown"
        elif what is None or execution is None:
            self.log.warning("Worker %s: nothing to %s, command ignored", self.name, command)
            return
        self.hosting.desk.tell("asked", what=what, execution=execution.id if execution else None)
