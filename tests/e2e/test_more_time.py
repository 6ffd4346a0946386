"""A process that needs more time asks for it; one that missed SIGTERM is asked once more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.harness import Lab, Started

NEEDS = """
import signal, sys, time
from coord.child import stop
def leave(*_):
    granted_s = stop.need(float(sys.argv[1]))
    print(round(granted_s, 1), flush=True)
    time.sleep(float(sys.argv[2]))
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
time.sleep(600)
"""

# misses the first SIGTERM, as a Python process can that is just about to wait
MISSES = """
import signal, sys, time
def first(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGTERM, first)
print("ready", flush=True)
while True:
    time.sleep(600)
"""


def ready(run: Started) -> None:
    assert run.popen.stdout
    assert run.popen.stdout.readline() == b"ready\n"


def stopped(lab: Lab, job: str, run: Started, *options: str) -> tuple[dict[str, Any], list[str]]:
    """Shut the job down; give its one process, and what it said."""
    ended = lab.call("shutdown", "--job-id", job, "--json", *options)
    return ended.json["agents"][0]["processes"][0], run.end().out.splitlines()


@pytest.mark.parametrize(
    ("options", "outcome", "granted_s"),
    [
        (("--grace", "500ms", "--grace-max", "30s"), "terminated", 20.0),
        (("--grace", "500ms"), "killed", 0.5),
        (("--grace", "500ms", "--grace-max", "1s"), "killed", 1.0),
    ],
    ids=["granted", "nothing to grant", "up to the cap"],
)
def test_a_process_gets_the_time_that_it_asks_for_up_to_the_cap(
    lab: Lab, job: str, options: tuple[str, ...], outcome: str, granted_s: float
) -> None:
    """What saves its work for 3 s is waited for when the plan allows it, and killed at the plan's end when not."""
    run = lab.run(job, sys.executable, "-c", NEEDS, "20", "3", options=options)
    ready(run)
    process, said = stopped(lab, job, run)
    assert process["outcome"] == outcome
    assert float(said[0]) <= granted_s
    assert ("saved" in said) == (outcome == "terminated")


def test_the_person_can_allow_more_than_the_command_declared(lab: Lab, job: str) -> None:
    """`coord shutdown --grace-max` has its own cap, and the follower's bound counts it in."""
    run = lab.run(job, sys.executable, "-c", NEEDS, "20", "2", options=("--grace", "500ms"))
    ready(run)
    ended = lab.call("shutdown", "--job-id", job, "--grace", "500ms", "--grace-max", "30s", "--json")
    assert ended.json["verdict"] == "clean"
    assert ended.json["request"]["plan"][0] == {"signal": "SIGTERM", "wait_s": 0.5, "wait_max_s": 30.0}
    assert run.end().out.splitlines()[-1] == "saved"


def test_hurrying_takes_the_extra_time_away(lab: Lab, job: str) -> None:
    """A second, sharper request counts for what was granted, too."""
    run = lab.run(job, sys.executable, "-c", NEEDS, "500", "500", options=("--grace", "500ms", "--grace-max", "600s"))
    ready(run)
    lab.call("shutdown", "--job-id", job, "--no-wait")
    assert run.popen.stdout
    assert float(run.popen.stdout.readline()) > 100
    ended = lab.call("shutdown", "--job-id", job, "--grace", "100ms", "--json")
    assert ended.json["verdict"] == "forced"
    run.end()


@pytest.mark.parametrize(("options", "outcome"), [(("--term-again", "300ms"), "terminated"), ((), "killed")])
def test_sigterm_is_sent_once_more_where_that_is_wanted(
    lab: Lab, job: str, options: tuple[str, ...], outcome: str
) -> None:
    """A command that missed the first SIGTERM goes on the second; the control: without the option it is killed."""
    run = lab.run(job, sys.executable, "-c", MISSES, options=("--grace", "3s", *options))
    ready(run)
    process, _ = stopped(lab, job, run)
    assert process["outcome"] == outcome


def test_a_cap_below_the_grace_is_refused(lab: Lab, job: str) -> None:
    """One clear line instead of a plan that nobody can have meant."""
    ended = lab.call("run", "--job-id", job, "--grace", "10s", "--grace-max", "5s", "--", "true")
    assert (ended.code, len(ended.said)) == (2, 1)
    assert "the longest grace is shorter than the grace" in ended.said[0]


CLEANS_UP = """
trap 'sleep 0.2 && echo saved; exit 0' TERM
echo ready
while :; do sleep 600 & wait $!; done
"""


@pytest.mark.parametrize("number", range(8))
def test_a_command_that_a_handler_starts_is_not_cut_off(lab: Lab, job: str, number: int) -> None:
    """What a SIGTERM handler starts to clean up gets no SIGTERM of its own, however early it is seen."""
    assert number >= 0  # again and again: it is a race
    run = lab.run(job, "sh", "-c", CLEANS_UP)
    ready(run)
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert ended.json["verdict"] == "clean"
    assert run.end().out == "saved\n"
