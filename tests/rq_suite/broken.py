"""The suite's negative control: a worker that kills nobody must fail RQ's tests of stopping."""

from __future__ import annotations

import signal

from rq.worker.worker_classes import Worker


class Spares(Worker):
    """Does as RQ's does, but for killing."""

    def kill_horse(self, _number: int = signal.SIGKILL) -> None:
        """Kill nobody."""
