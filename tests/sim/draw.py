"""Draws a history: who runs what, who stops it when, what goes wrong meanwhile. Pure, but for the chance numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coord.plan import Plan
from tests.sim.hosts import Child, Order
from tests.sim.invariants import BESIDE
from tests.sim.processes import Nature

if TYPE_CHECKING:
    from random import Random

JOB = "train"
HOSTS_MAX = 6
CALM_SHARE = 0.1  # of histories in which nothing goes wrong

# what can go wrong; each history has some of them
TROUBLES = (
    "reset",  # a host's connections break
    "loss",  # each request breaks the connection with some chance, before or after it is carried out
    "stall",  # what is sent arrives late
    "cut",  # nothing arrives for a while; what was open never works again
    "deaf",  # a host's subscription is half-open: nobody is told
    "push",  # published messages are lost, late, come twice
    "agent",  # an agent is killed, its guardian takes over
    "pair",  # an agent is killed with its guardian
    "power",  # a host is gone
    "person",  # who follows is killed
    "restart",  # the server restarts with its data
    "amnesia",  # the server restarts without what it last heard
    "flush",  # SCRIPT FLUSH
    "freeze",  # an agent's process stands still
)
ALONE_AFTER_S = (None, None, None, None, 4.0, 8.0)
LOSSES = ("power", "pair", "agent", "cut", "freeze")


@dataclass(frozen=True)
class Trouble:
    """One thing that goes wrong."""

    at_s: float
    kind: str
    host: str
    lasts_s: float


@dataclass(frozen=True)
class Script:
    """A whole history, before it is played."""

    starts: tuple[tuple[float, str, Order], ...]  # when, on which host, what
    by_itself: bool  # nobody stops it: only a failure or a lost host does, before all is healed and somebody does
    stops: tuple[tuple[float, str, Plan | None, bool], ...]  # when, from which host, by which plan, `--fence`
    troubles: tuple[Trouble, ...]
    slow: dict[str, float]
    secrets: tuple[bytes, ...]  # none: nothing is signed
    forger: bool  # somebody without a secret is at the server
    heal_s: float


def draw(rng: Random) -> Script:
    """Draw one."""
    hosts = [f"h{number}" for number in range(rng.choices(range(1, HOSTS_MAX + 1), (3, 6, 6, 3, 2, 1))[0])]
    first_stop_s = rng.uniform(0.3, 5.0)
    by_itself = rng.random() < 0.2
    stops = () if by_itself else _stops(rng, hosts, first_stop_s)
    policies = rng.choices(((True,), (False,), (True, False)), (14, 3, 3))[0]
    starts = [(_start_s(rng, first_stop_s), host, _order(rng, policies)) for host in hosts]
    if rng.random() < 0.4:  # late, at the very instant, or a second one on a host
        late_s = first_stop_s + rng.choice((0.0, 0.0005, 0.001, 0.002, rng.uniform(0.0, 4.0)))
        starts.append((late_s, rng.choice([*hosts, "h9"]), _order(rng, policies)))
    if rng.random() < 0.5:
        forever = Child(0.0, Nature(leaves_after_s=0.1))
        starts += [
            (rng.uniform(0.0, 0.5), f"b{number}", Order(BESIDE, Plan.of(1.0, 1.0), (forever,)))
            for number in range(rng.choice((1, 2)))
        ]
    heal_s = first_stop_s + (rng.uniform(1.0, 9.0) if rng.random() < 0.85 else rng.uniform(9.0, 30.0))
    troubles = () if rng.random() < CALM_SHARE else _troubles(rng, hosts, heal_s)
    if by_itself and rng.random() < 0.7:  # somebody is not heard for longer than a lease
        at_s, kind, lasts_s = rng.uniform(0.3, 6.0), rng.choice(LOSSES), rng.uniform(9.0, 25.0)
        lost = rng.sample(hosts, min(len(hosts), rng.choice((1, 1, 2))))  # a rack has several hosts
        losses = [Trouble(at_s + rng.choice((0.0, 1.0)), kind, host, lasts_s) for host in lost]
        troubles, heal_s = (*troubles, *losses), max(heal_s, at_s + lasts_s)
    slow = {host: rng.choice((0.0002, 0.0005, 0.002, 0.02)) for host in [*hosts, "h9", "person"]}
    secrets = rng.choice(((), (), (b"s" * 16,), (b"s" * 16, b"older secret 16 b")))
    forger = bool(secrets) and rng.random() < 0.6
    return Script(tuple(starts), by_itself, stops, troubles, slow, secrets, forger, heal_s)


def _start_s(rng: Random, stop_s: float) -> float:
    return rng.uniform(0.0, min(0.3, stop_s)) if rng.random() < 0.8 else rng.uniform(0.0, stop_s + 0.2)


def _stops(rng: Random, hosts: list[str], first_s: float) -> tuple[tuple[float, str, Plan | None, bool], ...]:
    found = []
    for number in range(rng.choices((1, 2, 3), (6, 3, 1))[0]):
        at_s = first_s if number == 0 else first_s + rng.choice((0.0, 0.001, rng.uniform(0.0, 5.0)))
        plan = rng.choice((None, None, Plan.now(0.5), Plan.of(rng.uniform(0.1, 1.5), 0.5)))
        found.append((at_s, rng.choice(["person", "person", *hosts]), plan, rng.random() < 0.1))
    return tuple(found)


def _order(rng: Random, policies: tuple[bool, ...]) -> Order:
    children = [Child(0.0, _nature(rng))]
    while len(children) < 4 and rng.random() < 0.3:
        children.append(Child(rng.uniform(0.0, 2.0), _nature(rng)))
    plan = Plan.of(rng.choice((0.2, 0.5, 1.0, 2.0)), rng.choice((0.3, 0.5, 1.0)))
    return Order(
        JOB,
        plan,
        tuple(children),
        stop_on_failure=rng.choice(policies),
        ask_all=rng.random() < 0.8,
        alone_after_s=rng.choice(ALONE_AFTER_S),
    )


def _nature(rng: Random) -> Nature:
    ends_after_s = rng.uniform(0.2, 8.0) if rng.random() < 0.15 else None
    return Nature(
        ends_after_s=ends_after_s,
        exit_code=rng.choice((0, 1)),
        leaves_after_s=rng.choice((0.0, 0.01, 0.1, 0.4, 1.5, None)),
        stuck_s=rng.choice((0.2, 3.0, 1e6)) if rng.random() < 0.04 else 0.0,
        young=tuple(rng.uniform(0.0, 3.0) for _ in range(rng.choice((0, 0, 0, 1, 2)))),
        lone=rng.random() < 0.5,
        foreign=rng.random() < 0.01,
    )


def _troubles(rng: Random, hosts: list[str], heal_s: float) -> tuple[Trouble, ...]:
    kinds = rng.sample(TROUBLES, rng.choice((1, 2, 3, 4)))
    found = []
    for _ in range(rng.choice((1, 2, 3, 4, 6, 8))):
        at_s = rng.uniform(0.0, heal_s)
        host = rng.choice([*hosts, "person"])
        lasts_s = rng.choice((0.05, 0.5, rng.uniform(0.5, 4.0), rng.uniform(0.5, 20.0)))
        found.append(Trouble(at_s, rng.choice(kinds), host, min(lasts_s, heal_s - at_s)))
    return tuple(sorted(found, key=lambda each: each.at_s))
