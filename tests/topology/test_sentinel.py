"""A record in a Sentinel's service: its primary dies, hangs, or loses the request, in the middle of a shutdown."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from coord import Coordinator
from coord.errors import INCOMPLETE, UNREACHABLE, UnreachableError
from coord.ledger import AsyncLedger
from coord.record import Record
from coord.render.document import job_document
from coord.routed import RoutedPubSub
from tests.harness import until
from tests.record.servers import REDIS, free_port
from tests.topology.servers import VALKEY, watched
from tests.topology.stops import agent, all_is_told, begin, state, stop

CALLS = 10  # the first ones fail, at the server that hangs
SOON_S = 3.0

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.topology.conftest import LabAt
    from tests.topology.servers import Node, Park, Watched


def has_request(node: Node, job: str) -> bool:
    """Tell whether a server has the job's request."""
    return bool(node.ask("HEXISTS", f"coord:{{{job}}}:job", "request"))


@pytest.mark.parametrize("kind", [REDIS, VALKEY])
def test_the_primary_is_killed_after_the_request(servers: Park, lab_at: LabAt, job: str) -> None:
    """Signals go on meanwhile; the caller follows to the next primary, and is told what became of all."""
    service = watched(servers)
    with lab_at(service.url) as lab:
        stopping = stop(lab, job)
        until(lambda: has_request(service.replica, job), "the replica to have the request")
        service.primary.kill()
        ended = stopping.end()
    all_is_told(ended)
    assert service.named() == service.replica.place


def test_without_sentinels_the_caller_loses_sight(servers: Park, lab_at: LabAt, job: str) -> None:
    """The negative control: who was given the primary's own address is told that it is gone."""
    service = watched(servers)
    with lab_at(f"redis://{service.primary.place}/0") as lab:
        stopping = stop(lab, job)
        until(lambda: has_request(service.replica, job), "the replica to have the request")
        service.primary.kill()
        ended = stopping.caller.end(60)
        assert ended.code == UNREACHABLE, ended.err
        assert "goes on" in ended.err
        until(lambda: not lab._kill_left(), "those to be gone who try for long to tell a server that is gone")
        for run in stopping.runs:
            run.end()


def test_a_request_that_is_made_during_the_failover(servers: Park, lab_at: LabAt, job: str) -> None:
    """Made when there is no primary, it waits for the next one, and is obeyed."""
    service = watched(servers)
    with lab_at(service.url) as lab:
        runs = begin(lab, job)
        until(lambda: service.replica.ask("EXISTS", f"coord:{{{job}}}:job"), "the replica to have the job")
        service.primary.kill()
        ended = lab.call("shutdown", "--job-id", job, "--json")
        for run in runs:
            run.end(60)
    all_is_told(ended)


def test_the_primary_hangs_without_closing_anything(servers: Park, lab_at: LabAt, job: str) -> None:
    """Agents whose ears are on a server that hangs hear the request from the next primary, and obey it late."""
    service = watched(servers)
    with lab_at(service.url) as lab:
        runs = begin(lab, job)
        until(lambda: service.replica.ask("EXISTS", f"coord:{{{job}}}:job"), "the replica to have the job")
        service.primary.process.send_signal(signal.SIGSTOP)
        until(lambda: service.named() == service.replica.place, "the sentinels to name the replica")
        ended = lab.call("shutdown", "--job-id", job, "--json")
        for run in runs:
            run.end(60)
        service.primary.process.send_signal(signal.SIGCONT)
    assert ended.code == 0, ended.err
    assert agent(ended.json, "b")["processes"][0]["outcome"] == "killed"


async def hears_after_a_hang(service: Watched) -> bool:
    """Scenario: who listens at a primary that hangs calls, too; tell whether it hears what the next one publishes."""
    ledger = AsyncLedger(service.url)
    ear = ledger.listen()
    await anext(ear)
    await ledger.job_ids(0, 1)
    service.primary.process.send_signal(signal.SIGSTOP)
    heard = asyncio.create_task(again(ledger, ear))
    await asyncio.to_thread(until, lambda: service.named() == service.replica.place, "the next primary to be named")
    for _ in range(CALLS):
        with suppress(UnreachableError):
            await ledger.job_ids(0, 1)
            break
    await asyncio.wait([heard], timeout=SOON_S)
    service.primary.process.send_signal(signal.SIGCONT)
    done = heard.done()
    heard.cancel()
    await asyncio.wait([heard])
    await ledger.close()
    return done


async def again(ledger: AsyncLedger, ear: AsyncGenerator[bytes | None]) -> None:
    """Listen, and listen again where that fails, as a channel does; ends with the second subscription."""
    with suppress(UnreachableError):
        await anext(ear)
    await anext(ledger.listen())


async def test_who_listens_leaves_a_primary_that_hangs(servers: Park) -> None:
    """Its calls found the next primary: the ear goes there, though its own connection never ended."""
    assert await hears_after_a_hang(watched(servers))


async def test_control_it_would_stay(servers: Park, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: left to itself, the ear waits for ever at the server that hangs."""
    monkeypatch.setattr(RoutedPubSub, "leave_unless", lambda *_: None)
    assert not await hears_after_a_hang(watched(servers))


def cut_off(service: Watched, job: str) -> None:
    """Have the replica hear nothing more, once it knows that both hosts run."""
    reports = f"coord:{{{job}}}:reports"
    until(lambda: service.replica.ask("HLEN", reports) == 2, "the replica to have both hosts' word")
    # it is not stopped: what waits in its socket would be taken in when it goes on
    service.replica.ask("REPLICAOF", "127.0.0.1", free_port())


def test_a_request_that_was_not_replicated_is_written_again(servers: Park, lab_at: LabAt, job: str) -> None:
    """The next primary gets it from those who heard it, and what the caller had read of host a, from the caller."""
    service = watched(servers)
    with lab_at(service.url) as lab, Coordinator(service.url, min_replicas=1) as coordinator:
        runs = begin(lab, job, "--grace", "6s")
        cut_off(service, job)
        made = coordinator.request(job)
        assert (made.word, made.copies) == ("created", 0)
        killed, seen = False, []
        for snapshot, _ in coordinator.follow(job):
            document = job_document(snapshot)
            seen.append([str(agent(document, host)["state"]) for host in "ab"])
            if not killed and seen[-1] == ["stopped", "stopping"]:
                service.primary.kill()
                assert not has_request(service.replica, job), "it was replicated: this is no loss"
                killed = True
        for run in runs:
            run.end(60)
    assert killed, seen
    assert (document["verdict"], document["request"]["id"]) == ("forced", made.request.id)
    assert all(agent(document, host)["proof"] for host in "ab")
    assert has_request(service.replica, job)


def test_a_report_that_was_not_replicated_is_not_made_up(servers: Park, lab_at: LabAt, job: str) -> None:
    """A host that reported to the old primary, and left, while nobody read it, is lost, and named: no proof is."""
    service = watched(servers)
    with lab_at(service.url) as lab:
        runs = begin(lab, job)
        cut_off(service, job)
        caller = lab.start("shutdown", "--job-id", job, "--json", "--min-replicas", "1", host="there")
        until(lambda: state(lab, job, "a") == "stopped", "host a to have reported")
        until(lambda: state(lab, job, "b") == "stopping", "host b to have been asked")
        caller.signal(signal.SIGKILL)
        service.primary.kill()
        caller.end()
        ended = lab.call("shutdown", "--job-id", job, "--json")
        for run in runs:
            run.end(60)
    assert ended.code == INCOMPLETE, ended.err
    assert (agent(ended.json, "a")["state"], agent(ended.json, "a")["proof"]) == ("lost", None)
    assert agent(ended.json, "b")["processes"][0]["outcome"] == "killed"


def test_enough_replicas_have_the_request(service: Watched, lab_at: LabAt, job: str) -> None:
    """With `--min-replicas`, the request is known to be on the replica: nothing is said, and nothing waited for."""
    with lab_at(service.url) as lab:
        run = lab.run(job, "sleep", "600", host="a")
        ended = lab.call("shutdown", "--job-id", job, "--min-replicas", "1")
        run.end()
    assert ended.code == 0
    assert "replicas have the request" not in ended.err
    assert has_request(service.replica, job)


def test_too_few_replicas_have_the_request(servers: Park, lab_at: LabAt, job: str) -> None:
    """The caller is told how many; an agent that asks for a stop logs it; the jobs are stopped all the same."""
    service = watched(servers)
    with lab_at(service.url) as lab:
        run = lab.run(job, "sleep", "600", host="a")
        other = lab.run(f"{job}-2", "sleep", "600", host="a")
        service.replica.process.send_signal(signal.SIGSTOP)
        ended = lab.call("shutdown", "--job-id", job, "--min-replicas", "1")
        failing = lab.start("run", "--job-id", f"{job}-2", "--", "false", host="b", COORD_MIN_REPLICAS="1").end()
        service.replica.process.send_signal(signal.SIGCONT)
        for each in (run, other):
            each.end()
    assert ended.code == 0
    assert "0 of 1 replicas have the request" in ended.err
    assert "request.risky" in failing.err


def test_waiting_on_another_connection_would_prove_nothing(servers: Park, job: str) -> None:
    """The negative control of `copies`: WAIT alone, where nothing was written, finds every replica up to date."""
    from coord.coordinator import new_request
    from coord.ledger import Ledger
    from coord.messages import Cause

    service = watched(servers)
    ledger = Ledger(service.url, min_replicas=1)
    record = Record(job)
    wish = record.request(new_request(job, Cause.OPERATOR, "test", ""), None, fence_unknown=True)
    service.replica.process.send_signal(signal.SIGSTOP)
    ledger.run(wish)
    assert ledger.copies(wish) == 0
    bare = service.primary.ask("WAIT", 1, 200)
    service.replica.process.send_signal(signal.SIGCONT)
    assert until(lambda: ledger.copies(wish) == 1, "the replica to have it")
    assert ledger.copies(Record(f"{job}-unknown").snapshot()) == 0, "what is not there has no copies"
    ledger.close()
    assert bare in {0, 1}
