"""What happens to an agent's processes, and what is to be done about it: the words between `stopping` and the doing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from coord.plan import Plan

Key: TypeAlias = tuple[int, int]  # pid, and start time in clock ticks since boot: together never used twice


@dataclass(frozen=True, slots=True)
class Found:
    """A process of the tree, alive when it was looked at.

    `child`: the agent itself started it; `orphan`: its parent, if it had another one, is gone.
    """

    key: Key
    label: str
    command: str
    child: bool = False
    orphan: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """These are alive. `complete`: and nothing else is, after a look at the whole tree."""

    found: tuple[Found, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Exit:
    """A process is gone; how, where the kernel told us (it tells only parents)."""

    key: Key
    exit_code: int | None = None
    signal: str | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """These are gone. `strangers`: those among them that nobody had seen alive; SIGKILL reached them all the same."""

    exits: tuple[Exit, ...]
    strangers: tuple[Found, ...] = ()


@dataclass(frozen=True, slots=True)
class Requested:
    """The job, or a person at this agent, wants it stopped by this plan, which began `elapsed_s` ago.

    `hurried`: it was made more urgent after it had been requested.
    """

    plan: Plan
    elapsed_s: float = 0.0
    hurried: bool = False


@dataclass(frozen=True, slots=True)
class Sealed:
    """No more children will be started."""


@dataclass(frozen=True, slots=True)
class Due:
    """The time of the last Wake has come. `wanted_s`: until when a process asked to be waited for; 0: none did."""

    wanted_s: float = 0.0


Event: TypeAlias = Seen | Left | Requested | Sealed | Due

# -- actions


@dataclass(frozen=True, slots=True)
class Send:
    """Send a signal to each of these."""

    signal: str
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL to each of these, and let nobody slip away meanwhile."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """Look at the whole tree, and say what was Seen."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Say Due at this time. Replaces the Wake before."""

    at_s: float


Action: TypeAlias = Send | Kill | Look | Wake
