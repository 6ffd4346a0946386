"""A bad day begins while something is under way: a child fails, or the job is being stopped."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from coord.record import BEAT_S
from tests.faults.days import on_days
from tests.faults.stage import now_s, told
from tests.harness import NASTY, until
from tests.process.days import Witness

if TYPE_CHECKING:
    from tests.faults.days import Day
    from tests.faults.stage import Stage

STOPPED = 143
KILLED = 137
FAILED = 7


@on_days()
def test_a_failure_on_a_bad_day_is_told_after_it(stage: Stage, day: Day) -> None:
    """What has to be told waits for the server: the other host runs on meanwhile, and then is stopped by it."""
    other = stage.begin("b")
    gate = stage.folder / "gate"
    failing = stage.lab.run(stage.job, "sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done; exit {FAILED}", host="a")
    with day.lasts(stage.outage):
        gate.touch()
        time.sleep(BEAT_S)  # it tries in vain
        assert failing.running, "it has something to tell"
        assert other.asked_s is None
        back_s = now_s()
    stage.tell("obeyed_s", other.obeyed(back_s))
    assert told(failing).code == FAILED
    assert other.end().code == STOPPED
    document = until(lambda: (found := stage.lab.status(stage.job))["verdict"] and found, "the verdict")
    assert (document["verdict"], document["request"]["cause"]) == ("clean", "failure")
    assert (document["first_failure"]["host"], document["first_failure"]["exit_code"]) == ("a", FAILED)


@on_days(1)
def test_a_bad_day_in_the_middle_of_a_shutdown(stage: Stage, day: Day) -> None:
    """Processes end in time, server or no server; the report waits for it, and the verdict is the same as ever."""
    run = stage.lab.run(stage.job, sys.executable, NASTY, "deaf", host="a")
    assert run.popen.stdout
    run.popen.stdout.readline()
    child = Witness.of(stage.agent("a")["processes"][0]["pid"])
    assert stage.shutdown("--grace", "1s", "--no-wait").code == 0
    until(lambda: stage.agent("a")["state"] == "stopping", "it to be asked")
    with day.lasts(stage.outage):
        until(lambda: not child.alive, "it to be killed")
    ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"]) == (0, "forced")
    assert told(run).code == KILLED
