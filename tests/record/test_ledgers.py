"""Both doors to the record, and what a snapshot says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coord.errors import CoordError
from coord.keys import job_keys
from coord.ledger import AsyncLedger, Ledger
from coord.messages import Outcome, ProcessReport
from coord.plan import Plan
from tests.record.desk import EXPIRED_S, PLAN, Desk, agent_id, info

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def async_ledger(server: str) -> AsyncIterator[AsyncLedger]:
    """An agent's connection to the record."""
    ledger = AsyncLedger(server)
    yield ledger
    await ledger.close()


def test_blocking_ledger_survives_a_flush_of_scripts(desk: Desk) -> None:
    """A server that restarted or whose script cache was flushed does not know our scripts: it is told them again."""
    desk.join("a")
    desk.raw.script_flush()
    assert desk.join("b").word == "joined"
    desk.raw.script_flush()
    assert [agent.info.host for agent in desk.look().agents] == ["a", "b"]


async def test_async_ledger_survives_a_flush_of_scripts(desk: Desk, async_ledger: AsyncLedger) -> None:
    """An agent goes on after the server's script cache was flushed, and the script runs once, not twice."""
    await async_ledger.run(desk.record.join(info("a"), PLAN))
    desk.raw.script_flush()
    assert (await async_ledger.run(desk.record.join(info("b"), PLAN))).word == "joined"
    assert desk.kinds() == ["agent.joined", "agent.joined"]


async def test_both_ledgers_read_the_same(desk: Desk, async_ledger: AsyncLedger) -> None:
    """What an agent reads is what an operator reads."""
    desk.join("a")
    desk.request(Plan.of(3, 2), "enough")
    desk.report("a", Outcome.RUNNING, kind="agent.stopping", proof=None)
    mine, theirs = desk.look(), await async_ledger.run(desk.record.snapshot())
    assert theirs is not None
    assert (theirs.agents[0].info, theirs.agents[0].report) == (mine.agents[0].info, mine.agents[0].report)
    assert (theirs.created_us, theirs.state, theirs.verdict) == (mine.created_us, mine.state, mine.verdict)


async def test_async_ledger_puts_jobs_into_the_index(desk: Desk, async_ledger: AsyncLedger) -> None:
    """A job that an agent joined is found in the list of jobs."""
    await async_ledger.remember(desk.job_id)
    desk.join("a")
    assert desk.job_id in desk.jobs()


@pytest.mark.parametrize("protocol", ["?protocol=2", "?protocol=3"])
def test_snapshot_is_the_whole_record(desk: Desk, server: str, protocol: str) -> None:
    """One snapshot has everything that was recorded, each agent with its own word, sorted by host."""
    desk.join("b", lease_s=EXPIRED_S)
    desk.join("a")
    desk.join("c")
    desk.fail("a", 7)
    desk.report("a", Outcome.EXITED, Outcome.KILLED)
    desk.report("c", Outcome.RUNNING, kind="agent.stopping", proof=None)
    ledger = Ledger(server + protocol)
    snapshot = ledger.run(desk.record.snapshot())
    ledger.close()
    assert snapshot is not None
    assert [agent.info for agent in snapshot.agents] == [info("a"), info("b"), info("c")]
    assert [agent.state for agent in snapshot.agents] == ["stopped", "lost", "stopping"]
    assert [agent.report.proof for agent in snapshot.agents] == ["cgroup", None, None]
    assert snapshot.agents[0].report.processes[1] == ProcessReport(5001, "rank", "python train.py", Outcome.KILLED)
    assert (snapshot.count(Outcome.KILLED), snapshot.count(Outcome.RUNNING)) == (1, 1)
    assert snapshot.first_failure is not None
    assert (snapshot.first_failure.exit_code, snapshot.first_failure.stderr_tail) == (7, ("it broke",))
    assert snapshot.created_us <= snapshot.first_failure.at_us <= snapshot.now_us
    assert (snapshot.verdict, snapshot.verdict_us, snapshot.took_s) == (None, None, None)


def test_states_of_a_job(desk: Desk) -> None:
    """A job runs while somebody holds a lease, stops once it was asked to, and has stopped when all are gone."""
    desk.join("a")
    states = [desk.look().state]
    desk.request()
    states.append(desk.look().state)
    desk.report("a", Outcome.TERMINATED)
    states.append(desk.look().state)
    assert states == ["running", "stopping", "stopped"]
    ended = Desk(desk.ledger, f"{desk.job_id}-2", desk.raw)
    ended.join("a")
    ended.report("a", Outcome.EXITED)
    assert ended.look().state == "stopped"


def test_unknown_job_has_no_snapshot(desk: Desk) -> None:
    """A job that nobody joined has no record, and looking for it makes none."""
    assert desk.ledger.run(desk.record.snapshot()) is None
    assert desk.all_keys() == set()


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        (0, "request", "no JSON"),
        (0, "request", "[]"),
        (0, "request", '{"id":1}'),
        (0, "plan", '[{"signal":"SIGTERM","wait_s":1}]'),
        (0, "plan", "null"),
        (0, "rev", "many"),
        (0, "requested_us", ""),
        (0, "first_failure", "{}"),
        (0, "verdict", "perfect"),
        (0, "created_us", "yesterday"),
        (1, agent_id("a"), "{}"),
        (1, agent_id("a"), "\ufffd{"),
        (2, agent_id("a"), '{"report":[]}'),
        (2, agent_id("a"), '{"report":{"state":"dancing"}}'),
        (2, agent_id("a"), '{"report":{"state":"stopped","processes":[1]}}'),
        (2, agent_id("a"), '{"report":{"state":"stopped","processes":[{"outcome":"eaten"}]}}'),
    ],
)
def test_broken_record_is_said_to_be_broken(desk: Desk, key: int, field: str, value: str) -> None:
    """When somebody else wrote into our keys, reading them says so, and nothing is guessed."""
    desk.join("a")
    desk.fail("a")
    desk.report("a", Outcome.TERMINATED)
    desk.raw.hset(job_keys(desk.job_id)[key], field, value)
    with pytest.raises(CoordError, match="record"):
        desk.look()


def test_broken_lifetime_is_said_to_be_broken(desk: Desk) -> None:
    """A job's hash that lacks the time of its making was not written by us."""
    desk.raw.hset(job_keys(desk.job_id)[0], "grace_s", "1")
    with pytest.raises(CoordError, match="record"):
        desk.look()
