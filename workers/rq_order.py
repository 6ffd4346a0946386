"""What `coord worker` was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workers.containment import Choice

if TYPE_CHECKING:
    from workers.stopper import Manner


@dataclass(frozen=True, slots=True)
class RQOrder:
    """`options`: what `rq worker` has too, for the workers alone."""

    queues: tuple[str, ...]
    count: int
    name: str
    manner: Manner
    warm_s: float
    on_stop: str  # `requeue` or `fail`
    burst: bool
    with_scheduler: bool
    rq_url: str | None
    config: str | None
    paths: tuple[str, ...]
    containment: Choice = Choice.AUTO
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def ends_as(self) -> str:
        """What becomes of an RQ job whose host is stopped."""
        return "requeued" if self.on_stop == "requeue" else "failed"
