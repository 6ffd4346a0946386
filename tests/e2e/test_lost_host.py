"""A host that is heard no more, with real agents and no follower; and a server that is away for longer than a lease."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coord.record import BEAT_S, LEASE_S, Record
from tests.harness import COORD, until
from tests.strait import Strait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Lab, Started

UNGUARDED = str(Path(__file__).with_name("unguarded.py"))
LOST_WITHIN_S = LEASE_S + 10 * BEAT_S  # on a loaded machine
AWAY_S = LEASE_S + 1


def freeze(run: Started) -> None:
    """Nothing of the host's coord is heard any more; what it runs goes on."""
    run.signal(signal.SIGSTOP)
    os.kill(run.agent_pid, signal.SIGSTOP)


def thaw(run: Started) -> None:
    os.kill(run.agent_pid, signal.SIGCONT)
    run.signal(signal.SIGCONT)


def states(lab: Lab, job: str) -> dict[str, str]:
    return {agent["host"]: agent["state"] for agent in lab.status(job)["agents"]}


def test_a_lost_host_stops_the_job_and_obeys_when_it_is_back(lab: Lab, job: str) -> None:
    """Any survivor finds a lost host, and the job stops. The lost one obeys the fence when it comes back."""
    here, gone = lab.run(job, "sleep", "600", host="a"), lab.run(job, "sleep", "600", host="b")
    freeze(gone)
    ended = here.end(LOST_WITHIN_S)
    assert ended.code == 143
    assert any("since a host was lost: host b is lost" in line for line in ended.said)
    status = lab.status(job)
    assert (status["request"]["cause"], status["verdict"]) == ("host-lost", "incomplete")
    assert (status["first_failure"]["host"], status["first_failure"]["lost"]) == ("b", True)
    assert states(lab, job) == {"a": "stopped", "b": "lost"}
    assert lab.call("shutdown", "--job-id", job).code == 5
    thaw(gone)
    assert gone.end().code == 143
    assert (lab.status(job)["verdict"], lab.call("shutdown", "--job-id", job).code) == ("clean", 0)


def test_a_job_that_ignores_failures_goes_on_without_a_lost_host(lab: Lab, job: str) -> None:
    """Without fail-fast the loss is only said; the host that comes back joins again, and is stopped with the others."""
    ignore = ("--on-failure", "ignore")
    here, gone = (lab.run(job, "sleep", "600", host=host, options=ignore) for host in ("a", "b"))
    freeze(gone)
    until(
        lambda: states(lab, job)["b"] == "lost" and len(lab.status(job)["agents"]) == 2, "b to be lost", LOST_WITHIN_S
    )
    until(lambda: gave_up(lab, job), "a to say so", LOST_WITHIN_S)
    assert here.running
    thaw(gone)
    until(lambda: states(lab, job) == {"a": "running", "b": "running"}, "b to be back")
    assert lab.call("shutdown", "--job-id", job).code == 0
    assert (here.end().code, gone.end().code) == (143, 143)


def gave_up(lab: Lab, job: str) -> bool:
    return "agent.lost" in [event.kind for event in lab.ledger.events(Record(job), "0", 0.001)]


@pytest.fixture
def straits(server: str, tmp_path: Path) -> Iterator[dict[str, Strait]]:
    """Each host's own way to the server."""
    with ExitStack() as stack:
        ways = {}
        for host in "ab":
            (tmp_path / host).mkdir()
            ways[host] = Strait(server, tmp_path / host)
            stack.callback(ways[host].close)
        yield ways


def redis_is_away(lab: Lab, straits: dict[str, Strait], job: str, *through: str) -> list[Started]:
    """Scenario: nobody reaches the server for longer than a lease; then one host does, a moment before the other."""
    runs = []
    for host, strait in straits.items():
        command = (*through[1:], "run", "--job-id", job, "--redis-url", strait.url, "--", "sleep", "600")
        runs.append(lab.start(*command, host=host, program=through[0]))
    until(lambda: (lab.status(job) or {"agents": ()})["agents"], "one to join")
    until(lambda: states(lab, job) == {"a": "running", "b": "running"}, "both to run")
    for strait in straits.values():
        strait.cut()
    with pytest.raises(AssertionError):
        until(lambda: not all(run.running for run in runs), "somebody to end", AWAY_S)
    before = heard(lab, job)
    straits["a"].open()
    until(lambda: heard(lab, job)["a"] > before["a"], "a to be heard again")
    return runs


def heard(lab: Lab, job: str) -> dict[str, float]:
    """Give each host's Redis time of its last word, in seconds."""
    snapshot = lab.ledger.run(Record(job).snapshot())
    assert snapshot
    return {each.info.host: round(snapshot.now_us / 1e6 - (each.last_heard_s or 0.0), 3) for each in snapshot.agents}


def test_a_server_that_was_away_loses_nobody(lab: Lab, straits: dict[str, Strait], job: str) -> None:
    """Every lease has ended, and whoever is back first gives nobody up: all get time, and all go on."""
    runs = redis_is_away(lab, straits, job, COORD)
    before = heard(lab, job)
    until(lambda: heard(lab, job)["a"] >= before["a"] + BEAT_S, "a to beat again")
    straits["b"].open()
    until(lambda: heard(lab, job)["b"] > before["b"], "b to be heard again")
    with pytest.raises(AssertionError):
        until(lambda: lab.status(job)["request"], "somebody to be given up", 4 * BEAT_S)
    assert states(lab, job) == {"a": "running", "b": "running"}
    assert lab.call("shutdown", "--job-id", job).code == 0
    assert [run.end().code for run in runs] == [143, 143]


def test_control_without_patience_everybody_is_stopped(lab: Lab, straits: dict[str, Strait], job: str) -> None:
    """Negative control: with patience ignored, a server that was away costs the job: one who lives is given up."""
    runs = redis_is_away(lab, straits, job, sys.executable, UNGUARDED, "impatient")
    assert runs[0].end(LOST_WITHIN_S).code == 143
    assert lab.status(job)["request"]["cause"] == "host-lost"
    straits["b"].open()
    assert runs[1].end().code == 143
