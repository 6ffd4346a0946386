"""RQ's scheduler, such that it ends when it is told to, and not a second later."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from rq import defaults
from rq.scheduler import RQScheduler

from workers.rq_hands import WakeUp

if TYPE_CHECKING:
    from redis import Redis

    from workers.rq_desk import Desk


class PromptScheduler(RQScheduler):
    """Waits between two rounds where a signal, or anybody who rings, is heard. `desk` None: without an agent."""

    wake_up: WakeUp | None = None
    desk: Desk | None = None

    def request_stop(self, signum: int | None = None, frame: Any = None) -> None:
        """End after this round."""
        super().request_stop(signum, frame)
        if self.desk:
            self.desk.leave()

    def work(self) -> None:
        """Enqueue what is due, until the end."""
        wake_up = self.wake_up or WakeUp()
        signal.set_wakeup_fd(-1)  # who forked us may have one
        wake_up.listen()
        self._install_signal_handlers()
        self.register_birth()
        if self.desk:
            self.desk.tell("up", name=self.name, pid=os.getpid())
        while not self._ended():
            self.round()
            if not self._ended():
                wake_up.wait(self.interval)
        self.stop()

    def round(self) -> None:
        """Do what is due now."""
        if self.should_reacquire_locks:
            self.acquire_locks()
        self.heartbeat()
        self.enqueue_scheduled_jobs()

    def _ended(self) -> bool:
        return self._stop_requested or (self.desk is not None and self.desk.draining)


def schedule(desk: Desk, wake_up: WakeUp, connection: Redis, names: list[str], *, config: dict[str, Any]) -> int:
    """Be a scheduler until the agent drains us, or, in a burst, for one round; gives the exit code."""
    options = config.get("options") or {}
    scheduler = PromptScheduler(
        names,
        connection=connection,
        logging_level=options.get("logging_level") or "INFO",
        date_format=options.get("date_format") or defaults.DEFAULT_LOGGING_DATE_FORMAT,
        log_format=options.get("log_format") or defaults.DEFAULT_LOGGING_FORMAT,
        serializer=options.get("serializer"),
        name=config["name"],
    )
    scheduler.desk, scheduler.wake_up = desk, wake_up
    why = "drained"
    if config.get("burst"):
        scheduler.register_birth()
        desk.tell("up", name=scheduler.name, pid=os.getpid())
        scheduler.round()
        scheduler.stop()
        why = "burst"
    else:
        scheduler.work()
    desk.tell("bye", why=desk.why or why, clean=True)
    return 0
