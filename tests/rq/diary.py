"""What the jobs noted of themselves, in the order in which they did."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


@dataclass(frozen=True)
class Diary:
    """A file that every job appends lines to."""

    path: Path

    def entries(self, what: str | None = None, job: str | None = None) -> list[dict[str, Any]]:
        """Read those of a kind, of a job; all by default. A line that is being written is not read."""
        if not self.path.exists():
            return []
        text = self.path.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        every = (json.loads(line) for line in lines)
        return [each for each in every if what in {None, each["what"]} and job in {None, each["job"]}]

    def jobs(self, what: str) -> set[str]:
        """Give the jobs that noted this."""
        return {each["job"] for each in self.entries(what)}

    def times(self, what: str, jobs: Collection[str]) -> dict[str, int]:
        """Count how often each of these jobs noted it."""
        counts = dict.fromkeys(jobs, 0)
        for entry in self.entries(what):
            if entry["job"] in counts:
                counts[entry["job"]] += 1
        return counts
