"""The index of jobs: listed by page, whatever is in it, and bounded. Promises: truthful, bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from coord import index
from coord.coordinator import new_request
from coord.errors import CoordError
from coord.keys import JOBS_INDEX, job_keys
from coord.ledger import AsyncLedger, Ledger
from coord.messages import Cause
from coord.record import Record
from coord.render.document import jobs_document
from coord.snapshot import JobState, Verdict
from tests.harness import until
from tests.record.desk import BY, PLAN, Desk, agent_id, info, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.snapshot import Snapshot
    from tests.record.conftest import Unguard

MANY = 10_000
BATCH = 500
SHORT_S = 2  # retention of a job that is over
PICKS = "local picked, old = redis.call('ZRANDMEMBER', INDEX, count, 'WITHSCORES'), {}"
NEW = "if joined_us and tonumber(joined_us) < NOW_US - new_us then"


def jobs_come_and_go(desk: Desk, count: int) -> int:
    """Scenario: so many jobs are joined, shut down, stopped, and gone after SHORT_S; gives how many are indexed."""
    others: Any = desk.raw.dbsize()
    desk.raw.delete(JOBS_INDEX)
    for first in range(0, count, BATCH):
        records = [Record(f"{desk.job_id}-{number}", SHORT_S) for number in range(first, first + BATCH)]
        wishes = [new_request(record.job_id, Cause.OPERATOR, BY, "") for record in records]
        for record in records:
            desk.ledger.remember(record.job_id, new_s=0.0)
        desk.ledger.run_all([record.join(info("a"), PLAN) for record in records])
        desk.ledger.run_all([record.request(wish, None) for record, wish in zip(records, wishes, strict=True)])
        desk.ledger.run_all([record.report(info("a"), report(), "agent.stopped") for record in records])
        if first == 0:
            read = desk.ledger.run_all([record.snapshot() for record in records])
            assert {getattr(snapshot, "verdict", snapshot) for snapshot in read} == {Verdict.CLEAN}
    until(lambda: desk.raw.dbsize() <= others + 1, "all jobs to expire")
    desk.ledger.remember(desk.job_id)
    size: Any = desk.raw.zcard(JOBS_INDEX)
    return int(size)


def test_record_is_bounded_after_10_000_jobs(desk: Desk) -> None:
    """However many jobs there were, what is left is the index of the last ones, and listing them empties that."""
    before: Any = desk.raw.info("memory")
    indexed = jobs_come_and_go(desk, MANY)
    assert indexed < MANY / 2
    desk.age(*desk.raw.zrange(JOBS_INDEX, 0, -1))
    assert [name for name in desk.jobs(0, MANY) if name.startswith(desk.job_id)] == []
    assert desk.raw.zcard(JOBS_INDEX) == 0
    after: Any = desk.raw.info("memory")
    assert after["used_memory"] - before["used_memory"] < 200 * MANY  # a job takes some 5,000 bytes


def test_control_when_nobody_is_picked_the_index_grows(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with the picking taken out, every job that ever was stays in the index."""
    unguard(PICKS, "local picked, old = {}, {}", script="remember")
    assert jobs_come_and_go(desk, 1000) == 1001


def looked_for_before_its_first_join(desk: Desk) -> bool:
    """Scenario: a job is in the index, is not joined yet, and others list and look; tells whether it is found later."""
    desk.ledger.remember(desk.job_id)
    desk.jobs()
    for number in range(20):
        desk.ledger.remember(f"{desk.job_id}-{number}")
    desk.join("a")
    return desk.job_id in desk.jobs(0, 10)


def test_job_that_is_about_to_be_joined_stays(desk: Desk) -> None:
    """A job is put into the index before it is joined: nobody drops it in between."""
    desk.raw.delete(JOBS_INDEX)
    assert looked_for_before_its_first_join(desk)


def test_control_without_patience_a_job_is_never_listed(desk: Desk, unguard: Unguard) -> None:
    """Negative control: when new ones are dropped as well, the job runs and no list has it."""
    desk.raw.delete(JOBS_INDEX)
    unguard(NEW, "if joined_us then", script="forget")
    assert not looked_for_before_its_first_join(desk)


async def test_index_lives_as_long_as_somebody_renews_it(desk: Desk, server: str) -> None:
    """The index has a lifetime that outlasts each job's; an agent of a long job renews it, at its old place."""
    ledger = AsyncLedger(server)
    await ledger.remember(desk.job_id)
    assert desk.raw.ttl(JOBS_INDEX) > 7 * 24 * 3600
    desk.raw.expire(JOBS_INDEX, 100)
    joined = desk.raw.zscore(JOBS_INDEX, desk.job_id)
    await ledger.remember(desk.job_id, again=True)
    await ledger.close()
    assert desk.raw.ttl(JOBS_INDEX) > 7 * 24 * 3600
    assert desk.raw.zscore(JOBS_INDEX, desk.job_id) == joined


def test_page_is_full_where_others_have_expired(desk: Desk) -> None:
    """A page has as many jobs as were asked for, however many expired ones stand between them."""
    desk.raw.delete(JOBS_INDEX)
    names = [f"{desk.job_id}-{number}" for number in range(300)]
    living = names[::30]
    for name in names:
        desk.raw.zadd(JOBS_INDEX, {name: names.index(name)})
    for name in living:
        Desk(desk.ledger, name, desk.raw).join("a")
    assert desk.jobs(0, 4) == living[:-5:-1]
    assert desk.jobs(4, 100) == living[-5::-1]
    assert desk.raw.zcard(JOBS_INDEX) == len(living)


def commands(desk: Desk, do: Callable[[], object]) -> int:
    """Count the commands that the server is sent, those of scripts left out."""

    def sent() -> int:
        stats: Any = desk.raw.info("commandstats")
        return sum(found["calls"] for name, found in stats.items() if name.startswith("cmdstat_eval"))

    before = sent()
    do()
    return sent() - before


def test_page_reads_no_more_than_it_shows(desk: Desk) -> None:
    """Of thousands of jobs, a page of ten reads ten records."""
    names = [f"{desk.job_id}-{number}" for number in range(1000)]
    desk.ledger.run_all([Record(name, 100).join(info("a"), PLAN) for name in names])
    desk.raw.zadd(JOBS_INDEX, {name: 1e18 + number for number, name in enumerate(names)})
    assert 10 <= commands(desk, lambda: desk.jobs(500, 10)) <= 12
    assert desk.jobs(500, 3) == [names[499], names[498], names[497]]
    desk.raw.zrem(JOBS_INDEX, *names)


def set_field(key: int, field: str, value: str) -> Callable[[Desk], object]:
    return lambda desk: desk.raw.hset(job_keys(desk.job_id)[key], field, value)


def replaced(key: int) -> Callable[[Desk], object]:
    """Another program wrote something of another type there."""
    return lambda desk: (desk.raw.delete(job_keys(desk.job_id)[key]), desk.raw.set(job_keys(desk.job_id)[key], "x"))


BREAKS: dict[str, Callable[[Desk], object]] = {
    "job is no hash": replaced(0),
    "agents is no hash": replaced(1),
    "leases is no zset": replaced(3),
    "created_us": set_field(0, "created_us", "yesterday"),
    "created_us is no time": set_field(0, "created_us", "9" * 20),
    "requested_us is no time": set_field(0, "requested_us", "-" + "9" * 20),
    "no created_us": lambda desk: desk.raw.hdel(job_keys(desk.job_id)[0], "created_us"),
    "request": set_field(0, "request", "[]"),
    "host": set_field(1, "x", '{"agent_id":"x","host":5,"label":"l","pid":1,"command":"c"}'),
    "report": set_field(2, agent_id("a"), '{"report":{"state":"dancing"}}'),
    "report's pid": set_field(
        2,
        agent_id("a"),
        '{"report":{"state":"stopped","processes":[{"pid":"1","label":"","command":"","outcome":"exited"}]}}',
    ),
    "first_failure": set_field(0, "first_failure", '{"host":{}}'),
}


@pytest.fixture(params=BREAKS)
def broken(request: pytest.FixtureRequest, desk: Desk) -> Desk:
    """A job whose record is broken, between two that are not."""
    for name in (f"{desk.job_id}-before", desk.job_id, f"{desk.job_id}-after"):
        desk.ledger.remember(name)
        Desk(desk.ledger, name, desk.raw).join("a")
    desk.request()
    BREAKS[request.param](desk)
    return desk


def newest(found: list[Snapshot]) -> list[tuple[str, str]]:
    return [(snapshot.job_id, snapshot.state) for snapshot in found[:3]]


def test_broken_record_is_listed_as_broken(broken: Desk) -> None:
    """One record that can't be read does not keep the others from being listed, and is not left out."""
    with broken.coordinator() as coordinator:
        found = coordinator.jobs(0, 3)
        with pytest.raises(CoordError):
            coordinator.status(broken.job_id)
    assert newest(found) == [
        (f"{broken.job_id}-after", JobState.RUNNING),
        (broken.job_id, JobState.BROKEN),
        (f"{broken.job_id}-before", JobState.RUNNING),
    ]
    assert found[1].broken
    listed = jobs_document(found)["jobs"][1]
    assert (listed["state"], listed["broken"], listed["created_at"]) == ("broken", found[1].broken, None)


@pytest.mark.parametrize("together", [True, False])
def test_many_calls_at_once_survive_a_flush_of_scripts(desk: Desk, server: str, *, together: bool) -> None:
    """A server that has forgotten our scripts is told them again, and each call is made once; one by one, too."""
    names = [f"{desk.job_id}-{number}" for number in range(50)]
    desk.raw.script_flush()
    ledger = Ledger(server)
    ledger._together = together
    answers = ledger.run_all([Record(name, 100).join(info("a"), PLAN) for name in names])
    desk.raw.script_flush()
    read = ledger.run_all([Record(name, 100).snapshot() for name in names])
    ledger.close()
    assert [getattr(answer, "word", answer) for answer in answers] == ["joined"] * 50
    assert [getattr(snapshot, "job_id", snapshot) for snapshot in read] == names
    assert desk.raw.xlen(Record(names[0]).events_key) == 1
    assert index.PICKED < 50
