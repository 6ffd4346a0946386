"""What a `JobScope` was told, checked."""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from coord.errors import UsageError
from coord.keys import check_job_id
from coord.messages import COMMAND_MAX, AgentInfo, clip
from coord.plan import Plan
from coord.record import RETAIN_S
from coord.settings import LEVELS, acting_on, alone_after, check_host, host_name, parse_replicas, parse_retain, variable
from workers.containment import Choice
from workers.stopper import Manner

if TYPE_CHECKING:
    from collections.abc import Iterable

LABEL_MAX = 64


@dataclass(frozen=True, slots=True)
class Terms:
    """`redis_url` None: the embedded server, but for a local one."""

    job_id: str
    label: str
    plan: Plan
    stop_on_failure: bool
    containment: Choice
    local: bool
    redis_url: str | None
    host: str
    by: str
    retain_s: int
    log_level: str
    sweep_shm: bool
    alone_after_s: float | None
    min_replicas: int = 0
    secret_file: str | None = None

    @classmethod
    def of(  # noqa: PLR0913  # see `JobScope`
        cls,
        job_id: str,
        *,
        redis_url: str | None,
        local: bool,
        plan: Plan | None,
        on_failure: str,
        containment: str | None,
        sweep_shm: bool,
        host: str | None,
        label: str | None,
        log_level: str,
        on_redis_loss: str,
        redis_loss_after_s: float,
        secret_file: str | None = None,
    ) -> Self:
        """Check them, and take from the environment what was not given. Raises UsageError."""
        host = check_host(host or variable("COORD_HOST", check_host) or host_name())
        containment = containment or os.environ.get("COORD_CONTAINMENT") or Choice.AUTO
        if local and redis_url:
            raise UsageError("a local scope uses no Redis", "Give redis_url or local, not both")
        return cls(
            job_id=check_job_id(job_id),
            label=clip(label or Path(sys.argv[0] or "python").name, LABEL_MAX),
            plan=plan or Plan.of(),
            stop_on_failure=_one_of("on_failure", on_failure, ("stop", "ignore")) == "stop",
            containment=Choice(_one_of("containment", containment, Choice)),
            local=local,
            redis_url=redis_url or variable("COORD_REDIS_URL", str),
            host=host,
            by=acting_on(host),
            retain_s=variable("COORD_RETAIN", parse_retain) or RETAIN_S,
            log_level=_one_of("log_level", log_level, LEVELS),
            sweep_shm=sweep_shm,
            min_replicas=variable("COORD_MIN_REPLICAS", parse_replicas) or 0,
            alone_after_s=alone_after(_one_of("on_redis_loss", on_redis_loss, ("keep", "stop")), redis_loss_after_s),
            secret_file=str(Path(secret_file).absolute()) if secret_file else None,  # the program may go elsewhere
        )

    @property
    def info(self) -> AgentInfo:
        """How the record names this program, made anew."""
        return AgentInfo(
            agent_id=f"{self.host}-{os.getpid()}-{secrets.token_hex(4)}",
            host=self.host,
            label=self.label,
            pid=os.getpid(),
            command=clip(" ".join(sys.argv), COMMAND_MAX),
            fail_fast=self.stop_on_failure,
            alone_s=self.manner.alone_s,
        )

    @property
    def manner(self) -> Manner:
        """How its processes are stopped."""
        return Manner(self.plan, ask_all=False, sweep_shm=self.sweep_shm, alone_after_s=self.alone_after_s)

    def left_to_an_heir(self) -> dict[str, object]:
        """Give what of it an heir has to know."""
        manner = self.manner
        return {
            "job_id": self.job_id,
            "retain_s": self.retain_s,
            "plan": self.plan.to_list(),
            "stop_on_failure": self.stop_on_failure,
            "by": self.by,
            "local": self.local,
            "secret_file": self.secret_file,
            "ask_all": manner.ask_all,
            "term_again_s": manner.term_again_s,
            "sweep_shm": manner.sweep_shm,
        }


def _one_of(name: str, given: str, allowed: Iterable[str]) -> str:
    words = [str(each) for each in allowed]
    if given not in words:
        raise UsageError(f"{name} {given!r} is none of {', '.join(words)}")
    return given
