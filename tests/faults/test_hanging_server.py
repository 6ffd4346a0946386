"""A server that hangs: connections stay, new ones are taken, and nobody gets an answer. One that forgets scripts."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coord.errors import UNREACHABLE
from coord.ledger import script_text
from coord.record import BEAT_S
from tests.faults.kinds import on_kind
from tests.faults.stage import now_s, told
from tests.record.servers import raw
from tests.strait import DOWN, scripts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.stage import Stage

STOPPED = 143
HANGS_S = 6.0  # longer than one answer is waited for, shorter than a lease


@on_kind()
def test_a_request_made_while_the_server_hangs_holds(stage: Stage) -> None:
    """It is asked for once, and recorded once, though it was sent more than once; nobody is called lost."""
    ranks = [stage.begin(host) for host in "ab"]
    stage.outage.pause()
    follower = stage.follow()
    time.sleep(HANGS_S)  # a bad day is a length of time
    assert all(rank.run.running and rank.asked_s is None for rank in ranks)
    assert follower.running
    back_s = now_s()
    stage.outage.resume()
    stage.tell("obeyed_s", [rank.obeyed(back_s) for rank in ranks])
    ended = told(follower)
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    assert " requested (plan: " in ended.said[0], "it is its own request that it found there"
    assert [rank.end().code for rank in ranks] == [STOPPED, STOPPED]


def test_a_caller_without_an_answer_is_told_that_it_may_hold(stage: Stage) -> None:
    """The request gets there, no answer comes back: the caller was told 4, and what it can't know; the job stops."""
    rank = stage.begin("a")
    stage.redis.script_load(script_text("request"))
    strait = stage.strait()
    strait.freeze(scripts, (DOWN,))
    follower = stage.follow("--redis-url", strait.url)
    rank.obeyed(now_s())
    ended = told(follower)
    assert ended.code == UNREACHABLE
    (line,) = ended.said
    assert "is not reachable (Timeout" in line
    assert "If the request got there before, it holds: see `coord status`, or call again" in line
    again = stage.shutdown()
    assert (again.code, again.json["verdict"]) == (0, "clean")
    assert rank.end().code == STOPPED


@contextmanager
def flushing(stage: Stage) -> Iterator[None]:
    """Forget all scripts, again and again."""
    over = threading.Event()

    def flush() -> None:
        with raw(stage.outage.url) as client:
            while not over.wait(0.001):
                client.script_flush()

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@on_kind(1)
def test_scripts_that_are_flushed_all_the_time_are_sent_again(stage: Stage) -> None:
    """NOSCRIPT is nobody's trouble: joins, heartbeats, requests, reports and a failure get through."""
    with flushing(stage):
        rank = stage.begin("a")
        failing = stage.lab.start("run", "--job-id", stage.job, "--", "sh", "-c", f"sleep {BEAT_S}; exit 7", host="b")
        assert told(failing).code == 7
        end = rank.end()
        assert end.code == STOPPED
        ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"], ended.json["request"]["cause"]) == (0, "clean", "failure")
    assert "report.delayed" not in end.err
