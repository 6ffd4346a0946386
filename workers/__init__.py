"""The host side of coord: what watches and stops processes. For programs: `JobScope` and `JobStopped`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.job_stopped import JobStopped
    from workers.scope import JobScope

__all__ = ["JobScope", "JobStopped"]


def __getattr__(name: str) -> object:
    """Import what programs use when they use it: agents and guardians start without it."""
    if name == "JobScope":
        from workers.scope import JobScope

        return JobScope
    if name == "JobStopped":
        from workers.job_stopped import JobStopped

        return JobStopped
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
