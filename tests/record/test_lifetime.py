"""How long the record lives, what is told of it, and that it stays bounded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from coord.keys import JOBS_INDEX, job_keys
from coord.ledger import Ledger
from coord.messages import Outcome
from coord.plan import Plan
from coord.record import Record
from tests.harness import until
from tests.record.desk import EXPIRED_S, RETAIN_S, Desk, agent_id, asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.record import Answer
    from tests.record.conftest import Unguard

WAITING = "xread"


def ends_lease(desk: Desk, host: str) -> Answer:
    """A host joins and is heard no more; gives what a survivor learns of it."""
    desk.join(host, fail_fast=False)
    desk.vanish(host)
    desk.beat("b", EXPIRED_S)  # later than that of the host
    return desk.beat("a")


# One job's life, with each script at least once in each of its branches that write.
LIFE: tuple[tuple[str, Callable[[Desk], object]], ...] = (
    ("join", lambda desk: desk.join("a")),
    ("join b", lambda desk: desk.join("b", lease_s=EXPIRED_S)),
    ("join c", lambda desk: desk.join("c")),
    ("beat", lambda desk: desk.beat("a")),
    ("report: running", lambda desk: desk.report("a", Outcome.RUNNING, kind="agent.running", proof=None)),
    ("host_lost", lambda desk: desk.host_lost(ends_lease(desk, "lost"))),
    ("join: back", lambda desk: desk.join("lost", fail_fast=False)),
    ("report: back, and left", lambda desk: desk.report("lost", Outcome.EXITED)),
    ("report: left before", lambda desk: desk.report("c", Outcome.EXITED)),
    ("settle: nothing was asked", lambda desk: desk.settle()),
    ("fail", lambda desk: desk.fail("a")),
    ("fail: a consequence", lambda desk: desk.fail("b")),
    ("request: exists", lambda desk: desk.request()),
    ("shorten", lambda desk: desk.shorten(asked(desk.look()), Plan.of(1, 1))),
    ("restore", lambda desk: desk.remember(desk.look())),
    ("join: refused", lambda desk: desk.join("d")),
    ("report: stopping", lambda desk: desk.report("a", Outcome.RUNNING, kind="agent.stopping", proof=None)),
    ("settle", lambda desk: desk.settle()),
    ("report: stopped", lambda desk: desk.report("a", Outcome.KILLED)),
    ("report: late", lambda desk: desk.report("b", Outcome.TERMINATED)),
    ("join: refused after the end", lambda desk: desk.join("a")),
    ("beat after the end", lambda desk: desk.beat("a")),
    ("snapshot", lambda desk: desk.look()),
    ("fence", lambda desk: desk.fence()),
    ("enlist: refused", lambda desk: desk.enlist("q1")),
    ("enrol", lambda desk: desk.enrol("e")),
    ("request: exists, and there is RQ", lambda desk: desk.request(rq=True)),
    ("claim", lambda desk: desk.claim("e", EXPIRED_S)),
    ("settle: nobody swept", lambda desk: desk.settle()),
    ("claim again", lambda desk: desk.claim("f", again=True)),
    ("swept", lambda desk: desk.swept("f", 3)),
    ("tally", lambda desk: desk.tally("requeued")),
    ("report: an enrolled one", lambda desk: desk.report("e", Outcome.TERMINATED)),
    ("report: one that the server forgot", lambda desk: desk.report("x", Outcome.TERMINATED)),
)


def immortal(desk: Desk) -> list[str]:
    """Scenario: a whole life; gives the first step after which a key of the job would stay for ever."""
    for name, do in LIFE:
        do(desk)
        if left := [key for key, ttl_s in desk.ttls().items() if not 0 < ttl_s <= RETAIN_S]:
            return [name, *left]
    return []


def test_every_key_expires_after_every_script(desk: Desk) -> None:
    """Whenever we die, what we wrote goes by itself: no script leaves a key without an end."""
    assert immortal(desk) == []
    assert desk.all_keys() <= set(job_keys(desk.job_id))
    assert len(desk.all_keys()) >= 5


def test_control_without_touch_keys_stay_for_ever(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with `touch` taken out of join alone, its first step is found to leave keys for ever."""
    unguard("touch()\nreturn request('joined')", "return request('joined')", script="join")
    step, *keys = immortal(desk)
    assert step == "join"
    assert job_keys(desk.job_id)[0] in keys


@pytest.mark.parametrize(
    "does",
    ["beat", "join", "report", "request", "fail", "settle", "shorten", "enlist", "enrol", "claim", "swept", "tally"],
)
def test_every_write_renews_all_keys(desk: Desk, does: str) -> None:
    """All keys of a job go together, `--retain` after the last thing that happened: none leaves a half record."""
    desk.join("a")
    desk.report("gone", Outcome.EXITED)
    desk.enlist("q1")
    if does in {"settle", "shorten", "enrol", "claim", "swept"}:
        desk.request(Plan.of(100, 5))
    if does == "swept":
        desk.claim("a")
    for key in desk.all_keys():
        desk.raw.expire(key, 5)
    calls: dict[str, Callable[[], object]] = {
        "beat": lambda: desk.beat("a"),
        "join": lambda: desk.join("b"),
        "report": lambda: desk.report("a", Outcome.EXITED),
        "request": desk.request,
        "fail": lambda: desk.fail("a"),
        "settle": desk.settle,
        "shorten": lambda: desk.shorten(asked(desk.look()), Plan.now(1)),
        "enlist": lambda: desk.enlist("q2"),
        "enrol": lambda: desk.enrol("c"),
        "claim": lambda: desk.claim("a"),
        "swept": lambda: desk.swept("a"),
        "tally": lambda: desk.tally("stopped"),
    }
    calls[does]()
    assert min(desk.ttls().values()) > RETAIN_S / 2


def test_record_expires_as_a_whole(desk: Desk) -> None:
    """After `--retain` the job is unknown again, with all its keys, and the list of jobs drops its name."""
    desk.record = Record(desk.job_id, 1)
    desk.ledger.remember(desk.job_id)
    desk.join("a")
    desk.request()
    desk.report("a", Outcome.TERMINATED)
    until(lambda: desk.all_keys() == set(), "all keys to expire")
    assert desk.request().word == "unknown"
    assert desk.raw.zscore(JOBS_INDEX, desk.job_id) is not None
    assert desk.job_id not in desk.jobs()
    assert desk.raw.zscore(JOBS_INDEX, desk.job_id) is not None  # it may be about to be joined
    desk.age(desk.job_id)
    assert desk.job_id not in desk.jobs()
    assert desk.raw.zscore(JOBS_INDEX, desk.job_id) is None


@pytest.mark.parametrize("protocol", ["", "?protocol=2", "?protocol=3"])
def test_events_tell_the_story_in_order(desk: Desk, server: str, protocol: str) -> None:
    """The stream has each thing that happened, once, in its order, with Redis' time, on either wire protocol."""
    ledger = Ledger(server + protocol)
    desk.ledger = ledger
    for _, do in LIFE:
        do(desk)
    events = desk.events()
    ledger.close()
    assert [event.kind for event in events] == [
        *("agent.joined", "agent.joined", "agent.joined", "agent.running"),
        *("agent.joined", "agent.lost", "agent.back", "agent.stopped", "agent.stopped"),
        *("child.failed", "shutdown.requested", "shutdown.shortened", "agent.stopping", "agent.lost"),
        *("agent.stopped", "job.verdict", "agent.stopped", "job.verdict"),
        *("agent.joined", "rq.sweeping", "rq.lost", "rq.sweeping", "rq.swept", "agent.stopped", "job.verdict"),
    ]
    assert [event.detail["verdict"] for event in events if event.kind == "job.verdict"] == [
        "incomplete",
        "forced",
        "forced",
    ]
    assert [event.at_us for event in events] == sorted(event.at_us for event in events)
    assert [event.detail.get("agent_id") for event in events[:3]] == [agent_id("a"), agent_id("b"), agent_id("c")]


def test_events_can_be_read_from_any_place(desk: Desk) -> None:
    """A follower that was away reads on from the last event that it knows; at the end there is nothing new."""
    desk.join("a")
    desk.join("b")
    first, second = desk.events()
    assert desk.ledger.events(desk.record, first.id, 0.001) == [second]
    assert desk.ledger.events(desk.record, second.id, 0.001) == []


def test_follower_is_woken_by_an_event(desk: Desk, server: str) -> None:
    """Who waits for the next event gets it when it happens."""
    desk.join("a")
    seen = desk.events()[-1].id
    ledger = Ledger(server)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(lambda: _next_event(ledger, desk.record, seen))
        until(lambda: WAITING in [client["cmd"] for client in desk.raw.client_list()], "the follower to wait")
        desk.join("b")
        assert waiting.result() == desk.events()[-1:]
    ledger.close()


def _next_event(ledger: Ledger, record: Record, seen: str) -> list[object]:
    """One wait is bounded, so ask again."""
    found: list[object] = []
    return until(lambda: found or ledger.events(record, seen, 2.0), "the next event")  # type: ignore[no-any-return]


def test_events_stay_bounded(desk: Desk) -> None:
    """However much happens to a job, its stream keeps about the last 10,000 events."""
    desk.join("a")
    stream = desk.record.events_key
    with desk.raw.pipeline(transaction=False) as pipe:
        for _ in range(12_000):
            pipe.xadd(stream, {"kind": "old", "at_us": "1", "detail": "{}"})
        pipe.execute()
    desk.join("b")
    assert 10_000 <= desk.raw.xlen(stream) <= 10_500
    newest: Any = desk.raw.xrevrange(stream, count=1)
    assert newest[0][1]["kind"] == "agent.joined"


def test_jobs_are_listed_by_page_newest_first(desk: Desk) -> None:
    """The list of jobs is read in pages, the newest first, so that it stays readable with thousands of them."""
    names = [f"{desk.job_id}-{number}" for number in range(5)]
    for name in names:
        desk.ledger.remember(name)
        Desk(desk.ledger, name, desk.raw).join("a")
    assert desk.jobs(0, 3) == names[:1:-1]
    assert desk.jobs(3, 2) == names[1::-1]
