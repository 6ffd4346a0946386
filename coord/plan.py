"""The escalation as data: signal, then wait, then the next. Pure: knows no clock and sends no signal.

Waits are seconds. The last step is always SIGKILL, so that every plan ends; what comes before it asks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

from coord.errors import UsageError

GRACE_S = 10.0
KILL_WAIT_S = 5.0
# A wait of nothing after SIGKILL would call every process a survivor: the kernel needs a moment to take it away.
KILL_WAIT_MIN_S = 0.1
WAIT_MAX_S = 7 * 24 * 3600.0
STEPS_MAX = 8

KILL = "SIGKILL"
ASKING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")

_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[dhms]))+")
_BARE = re.compile(r"\d+(?:\.\d+)?")


def parse_duration(text: str) -> float:
    """Seconds of `10`, `10s`, `1m30s`, `500ms`, `2h`; units come largest first, each once.

    Raises UsageError when the text is not a duration or is longer than WAIT_MAX_S.
    """
    text = text.strip()
    if _BARE.fullmatch(text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        parts = _PART.findall(text)
        units = [_UNITS_S[unit] for _, unit in parts]
        if any(larger <= smaller for larger, smaller in pairwise(units)):
            raise UsageError(f"{text!r} is not a duration", "Write units largest first, each once: 1m30s")
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    else:
        raise UsageError(f"{text!r} is not a duration", "Use seconds, or units: 10, 10s, 1m30s, 500ms")
    if seconds > WAIT_MAX_S:
        raise UsageError(f"{text!r} is too long", f"At most {format_duration(WAIT_MAX_S)}")
    return seconds


def format_duration(seconds: float) -> str:
    """`90.0` -> `1m30s`: what `parse_duration` reads, for people."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms" if seconds else "0s"
    parts = []
    for unit in ("d", "h", "m"):
        count, seconds = divmod(seconds, _UNITS_S[unit])
        if count:
            parts.append(f"{count:.0f}{unit}")
    if seconds or not parts:
        parts.append(f"{seconds:g}s")
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Step:
    """One signal to all, and how long to wait for them after it."""

    signal: str
    wait_s: float
    wait_max_s: float = 0.0  # a process that needs more time can have it up to here; less than wait_s: it can't


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order; checked when made, so a Plan that exists is a plan that ends."""

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        """Raise UsageError unless the steps ask first, kill last, and wait for bounded times."""
        if not 1 <= len(self.steps) <= STEPS_MAX:
            raise UsageError(f"a plan has 1 to {STEPS_MAX} steps, not {len(self.steps)}")
        *asking, last = self.steps
        if last.signal != KILL or any(step.signal not in ASKING for step in asking):
            raise UsageError("a plan asks first and ends with SIGKILL", f"It may ask with {', '.join(ASKING)}")
        if any(not 0 <= wait_s <= WAIT_MAX_S for step in self.steps for wait_s in (step.wait_s, step.wait_max_s)):
            raise UsageError(f"a wait is 0 to {format_duration(WAIT_MAX_S)}")
        if last.wait_s < KILL_WAIT_MIN_S:
            raise UsageError(
                f"the wait after SIGKILL is at least {format_duration(KILL_WAIT_MIN_S)}",
                "The kernel needs a moment to take a process away",
            )

    @classmethod
    def of(cls, grace_s: float = GRACE_S, kill_wait_s: float = KILL_WAIT_S, grace_max_s: float = 0.0) -> Self:
        """Make the usual plan: SIGTERM and `grace_s`, up to `grace_max_s` on demand; SIGKILL and `kill_wait_s`."""
        return cls((Step("SIGTERM", grace_s, grace_max_s if grace_max_s > grace_s else 0.0), Step(KILL, kill_wait_s)))

    @classmethod
    def now(cls, kill_wait_s: float = KILL_WAIT_S) -> Self:
        """Make the plan that does not ask: SIGKILL at once."""
        return cls((Step(KILL, kill_wait_s),))

    @property
    def kill_at_s(self) -> float:
        """Seconds from the plan's start to SIGKILL."""
        return sum(step.wait_s for step in self.steps[:-1])

    @property
    def kill_max_s(self) -> float:
        """Seconds from the plan's start to SIGKILL, if a process asked for as much time as it may have."""
        last = self.steps[-2] if len(self.steps) > 1 else None
        return self.kill_at_s + (max(0.0, last.wait_max_s - last.wait_s) if last else 0.0)

    @property
    def kill_wait_s(self) -> float:
        """Seconds that the killed may take to go."""
        return self.steps[-1].wait_s

    @property
    def total_s(self) -> float:
        """Seconds from the plan's start to its end, whatever the processes do."""
        return self.kill_max_s + self.kill_wait_s

    def since(self, elapsed_s: float) -> Plan:
        """Give what is left of this plan `elapsed_s` after its start, as one wait."""
        return Plan.of(max(0.0, self.kill_at_s - elapsed_s), self.kill_wait_s, max(0.0, self.kill_max_s - elapsed_s))

    def extended(self, kill_at_s: float) -> Plan:
        """Give this plan with its last wait made longer, up to `kill_at_s` from the start or what it allows."""
        *asking, last, kill = self.steps
        start_s = sum(step.wait_s for step in asking)
        wait_s = max(last.wait_s, min(kill_at_s - start_s, last.wait_max_s))
        return Plan((*asking, replace(last, wait_s=wait_s), kill))

    def asked_again(self, after_s: float) -> Plan:
        """Give this plan with its first signal sent once more after `after_s`; unchanged when it waits no longer."""
        first = self.steps[0]
        if first.signal == KILL or not 0 < after_s < first.wait_s:
            return self
        rest = Step(first.signal, first.wait_s - after_s, max(0.0, first.wait_max_s - after_s))
        return Plan((Step(first.signal, after_s), rest, *self.steps[1:])) if len(self.steps) < STEPS_MAX else self

    def shortened(self, by: Plan, elapsed_s: float) -> Plan:
        """Give this plan, `elapsed_s` after its start, made at least as urgent as `by` started now.

        Never longer than this plan in any wait: a request can only get more urgent.
        """
        asking = _with_max(self._asking_until(elapsed_s + by.kill_at_s), elapsed_s + by.kill_max_s)
        return Plan((*asking, Step(KILL, min(self.kill_wait_s, by.kill_wait_s))))

    def _asking_until(self, kill_at_s: float) -> tuple[Step, ...]:
        if kill_at_s >= self.kill_at_s:
            return self.steps[:-1]
        steps: list[Step] = []
        start_s = 0.0
        for step in self.steps[:-1]:
            if steps and start_s >= kill_at_s:
                break
            steps.append(Step(step.signal, min(step.wait_s, kill_at_s - start_s)))
            start_s += step.wait_s
        return tuple(steps)

    def to_list(self) -> list[dict[str, Any]]:
        """Give the plan as the public JSON has it: `[{"signal": "SIGTERM", "wait_s": 10.0}, ...]`.

        With `wait_max_s` where a process may ask for more time.
        """
        return [
            {"signal": step.signal, "wait_s": step.wait_s}
            | ({"wait_max_s": step.wait_max_s} if step.wait_max_s > step.wait_s else {})
            for step in self.steps
        ]

    @classmethod
    def from_list(cls, steps: Any) -> Self:
        """Read what `to_list` gave; raises UsageError or ValueError when it is something else."""
        try:
            return cls(
                tuple(
                    Step(str(step["signal"]), float(step["wait_s"]), float(step.get("wait_max_s", 0.0)))
                    for step in steps[: STEPS_MAX + 1]
                )
            )
        except (AttributeError, TypeError, KeyError, ValueError, OverflowError) as error:
            raise ValueError("not a plan") from error


def _with_max(asking: tuple[Step, ...], kill_max_s: float) -> tuple[Step, ...]:
    """Give these steps with the last one's longest wait cut at `kill_max_s` from the start."""
    if not asking or asking[-1].wait_max_s <= 0.0:
        return asking
    *before, last = asking
    wait_max_s = min(last.wait_max_s, kill_max_s - sum(step.wait_s for step in before))
    return (*before, replace(last, wait_max_s=wait_max_s if wait_max_s > last.wait_s else 0.0))


def wished(
    grace_s: float | None, kill_wait_s: float | None, grace_max_s: float | None = None, *, now: bool = False
) -> Plan | None:
    """Give the plan that somebody asks for; None when they say nothing of it. Raises UsageError.

    `now`: SIGKILL at once, without asking.
    """
    if now and (grace_s or grace_max_s):
        raise UsageError("`now` and a grace say different things", "Give one of them")
    if grace_s is None and kill_wait_s is None and grace_max_s is None and not now:
        return None
    grace_s = GRACE_S if grace_s is None else grace_s
    kill_wait_s = KILL_WAIT_S if kill_wait_s is None else kill_wait_s
    if grace_max_s is not None and grace_max_s < grace_s:
        raise UsageError("the longest grace is shorter than the grace", "Give a longer one, or leave it out")
    return Plan.now(kill_wait_s) if now else Plan.of(grace_s, kill_wait_s, grace_max_s or 0.0)
