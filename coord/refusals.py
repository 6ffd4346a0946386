"""What an agent heard or found and did not obey: counted by kind, and said, at growing intervals."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from coord.messages import dump, one_line
from coord.seal import DOUBT_WORDS

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from coord.seal import Doubt, Refusal


class Refusals:
    """One agent's. A flood of them fills no log: each kind is said the first, second, fourth, eighth ... time."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._counts: Counter[str] = Counter()
        self._found: dict[str, Refusal] = {}

    def count(self, doubt: Doubt) -> None:
        """Count one that is said elsewhere."""
        self._counts[doubt] += 1

    def heard(self, refusal: Refusal) -> None:
        """Count one that came over the channel; `by` and the job are claims of its sender."""
        self.count(refusal.doubt)
        count = self._counts[refusal.doubt]
        if count & (count - 1) == 0:
            self._say(refusal, "heard", count)

    def found(self, refusal: Refusal) -> None:
        """Count one that stands in a job's record; it is read again with every beat."""
        if self._found.get(refusal.job_id) != refusal:
            self._found[refusal.job_id] = refusal
            self.count(refusal.doubt)
            self._say(refusal, "in the record", self._counts[refusal.doubt])

    def told(self) -> str:
        """Give what the record is told of it, as JSON; '' when there is nothing to tell."""
        return dump(dict(self._counts)) if self._counts else ""

    def _say(self, refusal: Refusal, where: str, count: int) -> None:
        self._log.warning(
            "control.refused",
            why=DOUBT_WORDS[refusal.doubt],
            kind=refusal.doubt.value,
            where=where,
            claimed_by=one_line(refusal.by),
            claimed_job=one_line(refusal.job_id),
            count=count,
        )
