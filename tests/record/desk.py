"""One job's record as its hosts and an operator use it, through `coord.ledger` on a real server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from coord import memory
from coord.coordinator import Coordinator, new_request
from coord.keys import JOB_KEYS, JOBS_INDEX, job_keys
from coord.messages import (
    AgentInfo,
    AgentReport,
    AgentState,
    Cause,
    FirstFailure,
    Outcome,
    ProcessReport,
    ShutdownRequest,
    Unproved,
)
from coord.plan import Plan
from coord.record import CLAIM_S, LEASE_S, Answer, Record

if TYPE_CHECKING:
    import redis

    from coord.control import Requested
    from coord.ledger import Ledger
    from coord.messages import Event
    from coord.seal import Keyring
    from coord.snapshot import Snapshot

RETAIN_S = 100
EXPIRED_S = -1.0  # a lease that ended a second ago
PLAN = Plan.of(10, 5)
BY = "op@desk"


class Desk:
    """Each host has one agent, which goes by the host's name."""

    def __init__(self, ledger: Ledger, job_id: str, raw: redis.Redis) -> None:
        self.ledger = ledger
        self.job_id = job_id
        self.record = Record(job_id, RETAIN_S)
        self.raw = raw

    def holding(self, keyring: Keyring | None) -> Desk:
        """Give the hand of somebody with these secrets on the same record."""
        other = Desk(self.ledger, self.job_id, self.raw)
        other.record = Record(self.job_id, RETAIN_S, keyring)
        return other

    # -- what a host does ----------------------------------------------------------------------------------------------

    def join(self, host: str, plan: Plan = PLAN, lease_s: float = LEASE_S, *, fail_fast: bool = True) -> Answer:
        return self.ledger.run(self.record.join(info(host, fail_fast=fail_fast), plan, lease_s))

    def beat(self, host: str, lease_s: float = LEASE_S) -> Answer:
        return self.ledger.run(self.record.beat(agent_id(host), lease_s))

    def fail(self, host: str, exit_code: int = 1) -> Answer:
        wish = new_request(self.job_id, Cause.FAILURE, BY, f"rank on host {host} failed")
        return self.ledger.run(self.record.fail(failure(host, exit_code), wish))

    def report(self, host: str, *outcomes: Outcome, kind: str = "agent.stopped", proof: str | None = "cgroup") -> None:
        self.ledger.run(self.record.report(info(host), report(*outcomes, kind=kind, proof=proof), kind))

    def host_lost(self, answer: Answer) -> Answer:
        """What a survivor does when a beat has told it of a lost agent."""
        assert answer.lost
        wish = new_request(self.job_id, Cause.HOST_LOST, BY, f"host {answer.lost.info.host} is lost")
        return self.ledger.run(self.record.host_lost(answer.lost, wish))

    # -- what those do who run RQ jobs ---------------------------------------------------------------------------------

    def enlist(self, *rq_jobs: str, queue: str = "high") -> Answer:
        return self.ledger.run(self.record.enlist(dict.fromkeys(rq_jobs, queue)))

    def fence(self) -> Answer:
        return self.ledger.run(self.record.fence())

    def enrol(self, host: str, lease_s: float = LEASE_S) -> Answer:
        return self.ledger.run(self.record.enrol(info(host), lease_s))

    def claim(self, who: str, claim_s: float = CLAIM_S, *, again: bool = False) -> str:
        return self.ledger.run(self.record.claim(who, claim_s, again=again))

    def swept(self, who: str, canceled: int = 0, stopped: int = 0, unproved: tuple[Unproved, ...] = ()) -> str:
        return self.ledger.run(self.record.swept(who, unproved, canceled=canceled, stopped=stopped))

    def tally(self, field: str, count: int = 1) -> str:
        return self.ledger.run(self.record.tally(field, count))

    # -- what an operator does -----------------------------------------------------------------------------------------

    def request(
        self, plan: Plan | None = None, reason: str = "", *, fence_unknown: bool = False, rq: bool = False
    ) -> Answer:
        wish = replace(new_request(self.job_id, Cause.OPERATOR, BY, ""), reason=reason)  # as it is, not as one line
        return self.ledger.run(self.record.request(wish, plan, fence_unknown=fence_unknown, rq=rq))

    def shorten(self, existing: ShutdownRequest, plan: Plan) -> Answer:
        return self.ledger.run(self.record.shorten(existing, plan, BY, "hurry"))

    def settle(self, bound_s: float = 60.0, patience_s: float = 0.0, *, was_away: bool = False) -> None:
        self.ledger.run(self.record.settle(bound_s, patience_s, was_away=was_away))

    def coordinator(self) -> Coordinator:
        """Another client, with a connection of its own."""
        return Coordinator(self.ledger._url, by=BY, retain_s=RETAIN_S)

    # -- what a server that forgets does ------------------------------------------------------------------------------

    def forget(self) -> None:
        """The server starts again without what it knew."""
        self.raw.delete(*self.all_keys())

    def remember(self, before: Snapshot, since_s: float = 0.0) -> Answer:
        """What a follower does that read the job `since_s` ago."""
        return self.ledger.run(memory.restored(self.record, before, since_s))

    def say_again(self, host: str, request: ShutdownRequest, cause: FirstFailure | None = None) -> Answer:
        """What an agent does that has heard the request."""
        return self.ledger.run(memory.restored_by_agent(self.record, request, info(host), cause))

    # -- what time does -----------------------------------------------------------------------------------------------

    def pass_in_silence(self, seconds: float) -> None:
        """So long nobody reached the server: all that it knows is that much older."""
        for name in ("leases", "heard", "lost"):
            key = self._key(name)
            for member in self.raw.zrange(key, 0, -1):
                self.raw.zincrby(key, -seconds * 1e6, str(member))
        for field in ("patience_us", "requested_us"):
            if self.field(field) is not None:
                self.raw.hincrby(self._key("job"), field, round(-seconds * 1e6))

    def vanish(self, host: str) -> None:
        """The host's lease has ended, while others were heard all the time."""
        now_us = self.look().now_us
        self.raw.zadd(self._key("leases"), {agent_id(host): now_us - 1e6})
        self.raw.zadd(self._key("heard"), {agent_id(host): now_us - (LEASE_S + 1) * 1e6})

    def _key(self, name: str) -> str:
        return job_keys(self.job_id)[JOB_KEYS.index(name)]

    # -- what anybody sees ---------------------------------------------------------------------------------------------

    def look(self) -> Snapshot:
        snapshot = self.ledger.run(self.record.snapshot())
        assert snapshot is not None
        return snapshot

    def jobs(self, first: int = 0, count: int = 500) -> list[str]:
        with self.coordinator() as coordinator:
            return [snapshot.job_id for snapshot in coordinator.jobs(first, count)]

    @property
    def verdict(self) -> str | None:
        return self.look().verdict

    @property
    def plan(self) -> Plan:
        return asked(self.look()).plan

    def events(self) -> list[Event]:
        return self.ledger.events(self.record, "0", 0.001)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events()]

    def field(self, name: str) -> str | None:
        value = self.raw.hget(job_keys(self.job_id)[0], name)
        return None if value is None else str(value)

    def age(self, *job_ids: str, by_s: float = 3600.0) -> None:
        """Have jobs been put into the index that long ago."""
        for job_id in job_ids:
            self.raw.zincrby(JOBS_INDEX, -by_s * 1e6, job_id)

    def all_keys(self) -> set[str]:
        """Find every key that has to do with the job, whoever wrote it."""
        return {key for key in map(str, self.raw.keys("*")) if self.job_id in key}

    def ttls(self) -> dict[str, int]:
        """Give each key's time to live; -1: for ever."""
        return {key: int(self.raw.ttl(key)) for key in self.all_keys()}


def agent_id(host: str) -> str:
    return f"{host}-4240-x7"


def info(host: str, *, fail_fast: bool = True) -> AgentInfo:
    return AgentInfo(agent_id(host), host, "rank", 4240, "python train.py", fail_fast)


def failure(host: str, exit_code: int = 1) -> FirstFailure:
    return FirstFailure(agent_id(host), host, "rank", 4242, exit_code, None, ("it broke",))


def report(*outcomes: Outcome, kind: str = "agent.stopped", proof: str | None = "cgroup") -> AgentReport:
    processes = tuple(
        ProcessReport(5000 + number, "rank", "python train.py", outcome) for number, outcome in enumerate(outcomes)
    )
    state = AgentState.STOPPED if kind == "agent.stopped" else AgentState.STOPPING
    return AgentReport(state, proof, processes)


def asked(found: Answer | Requested | Snapshot) -> ShutdownRequest:
    """Give the request in it."""
    assert found.request is not None
    return found.request
