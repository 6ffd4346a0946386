"""Following a job of thousands of agents: all is told, once, and the server has its time for reports."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from coord import following
from coord.blocking import Blocking, each
from coord.control import follow
from coord.coordinator import new_request
from coord.door import EVENTS_PER_READ
from coord.ledger import Ledger
from coord.messages import Cause
from coord.record import Record
from coord.snapshot import Verdict
from tests.record.desk import BY, PLAN, info, report

if TYPE_CHECKING:
    from coord.record import Call

AGENTS = 2500
READ_S = 0.03  # what the snapshot of a large job takes


class NoRq:
    """There is none."""

    who = unknown = ""

    async def has(self, _name: str) -> bool:
        return False

    def beside(self, _record: Record) -> NoRq:
        return self

    def see(self, _snapshot: object) -> None:
        pass

    def close(self) -> None:
        pass


class Slow(Blocking):
    """A way to a job that takes long to read; knows how much of its time that took."""

    reading_s = 0.0

    async def run(self, call: Call[Any]) -> Any:
        if call.script != "snapshot":
            return await super().run(call)
        began_s = time.monotonic()
        time.sleep(READ_S)  # noqa: ASYNC251  # as a large answer would
        found = await super().run(call)
        self.reading_s += time.monotonic() - began_s
        return found


@pytest.fixture
def record(job: str) -> Record:
    return Record(job, 100)


def joined(ledger: Ledger, record: Record, count: int) -> list[str]:
    """Let agents join, and have them all stopped; gives their names."""
    hosts = [f"h{number}" for number in range(count)]
    ledger.run_all([record.join(info(host), PLAN) for host in hosts])
    ledger.run(record.request(new_request(record.job_id, Cause.OPERATOR, BY, ""), None))
    return hosts


def test_every_event_is_told_once(ledger: Ledger, record: Record) -> None:
    """More events than one read takes are told together, each once, and none of before the request."""
    hosts = joined(ledger, record, AGENTS)
    ledger.run_all([record.report(info(host), report(), "agent.stopped") for host in hosts])
    rounds = list(each(follow(Blocking(ledger), record, 60.0, NoRq())))
    told = Counter(event.kind for _, events in rounds for event in events)
    assert told == {"shutdown.requested": 1, "agent.stopped": AGENTS, "job.verdict": 1}
    assert rounds[-1][0].verdict is Verdict.CLEAN
    assert {len(snapshot.agents) for snapshot, _ in rounds} == {AGENTS}  # nobody is left out, first or last
    again = list(each(follow(Blocking(ledger), record, 60.0, NoRq())))
    assert {len(snapshot.agents) for snapshot, _ in again} == {AGENTS}
    assert EVENTS_PER_READ < AGENTS
    assert len(rounds) == 2  # not one for each read


def share_of_reading(server: str, record: Record) -> float:
    """Scenario: agents answer one by one; gives the share of the follower's time in which it read the job."""
    ledger, other = Ledger(server), Ledger(server)
    hosts = joined(ledger, record, 400)
    door = Slow(ledger)
    with ThreadPoolExecutor(1) as thread:
        began_s = time.monotonic()
        followed = thread.submit(lambda: list(each(follow(door, record, 60.0, NoRq()))))
        for host in hosts:
            other.run(record.report(info(host), report(), "agent.stopped"))
            time.sleep(0.001)  # as if they came from as many hosts
        snapshot, _ = followed.result()[-1]
        took_s = time.monotonic() - began_s
    assert snapshot.verdict is Verdict.CLEAN
    ledger.close()
    other.close()
    return door.reading_s / took_s


def test_large_job_is_not_read_all_the_time(server: str, record: Record) -> None:
    """While agents answer, who follows leaves the server most of its time for that."""
    assert share_of_reading(server, record) < 0.5


def test_control_without_rests_it_is(server: str, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: read again at each event, a large job is read nearly all the time."""
    monkeypatch.setattr(following, "RESTS", 0)
    assert share_of_reading(server, record) > 0.5
