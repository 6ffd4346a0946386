"""What `coord doctor` finds, as data. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Status(StrEnum):
    """How it is; the most important first."""

    FAIL = "fail"  # coord can't do here what it promises
    WARN = "warn"  # it can, until something happens that a person should know of
    UNKNOWN = "unknown"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """`found`: what is, in one line. `advice`: what to do about it, in one line; empty where nothing is to be done."""

    status: Status
    found: str
    advice: str = ""
    name: str = ""


def ok(found: str) -> Finding:
    """All is well."""
    return Finding(Status.OK, found)


def warn(found: str, advice: str) -> Finding:
    """It works, but should be changed."""
    return Finding(Status.WARN, found, advice)


def fail(found: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(Status.FAIL, found, advice)


def unknown(found: str, advice: str) -> Finding:
    """It can't be told."""
    return Finding(Status.UNKNOWN, found, advice)


def by_importance(findings: Iterable[Finding]) -> list[Finding]:
    """Sort them, the most important first; else they keep their order."""
    return sorted(findings, key=lambda finding: list(Status).index(finding.status))


def count(findings: Iterable[Finding]) -> Counter[Status]:
    """Count them by status."""
    return Counter(finding.status for finding in findings)
