"""A mark that a child and all its descendants carry: who started them, and which child of its they come from.

It stands in a resource limit that limits nothing: the soft RLIMIT_RTTIME, which fork, exec, setsid, a double fork and
an empty environment all hand down (getrlimit(2)). As microseconds it is tens of thousands of years of real-time CPU.
"""

from __future__ import annotations

import resource
import secrets
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Self

_BASE = 1 << 61
_OWNER_BITS = 38
_NUMBER_BITS = 22
CHILDREN_MAX = 1 << _NUMBER_BITS


class Mark(NamedTuple):
    """The `number`-th child of the agent that drew `owner`."""

    owner: int
    number: int

    @property
    def limit(self) -> int:
        """Give the value of the limit, in microseconds."""
        return _BASE | self.owner << _NUMBER_BITS | self.number

    @classmethod
    def of_limit(cls, limit: int) -> Self | None:
        """Read a limit; None when it is no mark."""
        if not _BASE <= limit < _BASE << 1:
            return None
        return cls(limit >> _NUMBER_BITS & (1 << _OWNER_BITS) - 1, limit & CHILDREN_MAX - 1)


def new_owner() -> int:
    """Draw a number that no other agent of this host has."""
    return secrets.randbits(_OWNER_BITS)


def put_on(mark: Mark, pid: int = 0) -> None:
    """Mark a process (0: this one); what it starts from now on is born with it. A lower hard limit stands: no mark."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_RTTIME)
    if hard == resource.RLIM_INFINITY:
        resource.prlimit(pid, resource.RLIMIT_RTTIME, (mark.limit, hard))


def read_mark(pid: int) -> Mark | None:
    """Read a process's mark; None when it has none, or is gone."""
    try:
        soft, _ = resource.prlimit(pid, resource.RLIMIT_RTTIME)
    except ProcessLookupError:
        return None
    except PermissionError:
        soft = _from_proc(pid)
    return Mark.of_limit(soft)


def _from_proc(pid: int) -> int:
    """Another user's process shows its limits in /proc alone: proc(5)."""
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0
    words = next((line.split() for line in lines if line.startswith(b"Max realtime timeout")), [])
    return int(words[3]) if len(words) > 3 and words[3].isdigit() else 0
