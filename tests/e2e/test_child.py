"""`coord.child` in a real child: it knows before the signal that it is being stopped, why, and how long it has got."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness import surroundings, until

if TYPE_CHECKING:
    from tests.harness import Lab

TELLS = """
import json, signal, sys, time
from coord.child import stop
def told(*_):
    print(json.dumps([stop.requested, stop.cause, stop.by, stop.reason, stop.remaining_s]), flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
print(json.dumps([stop.requested, stop.reason, stop.remaining_s]), flush=True)
time.sleep(600)
"""

COUNTS = """
import itertools, signal, time
from coord.child import stop
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
for number in stop.until_requested(itertools.count()):
    time.sleep(0.01)
print("left the loop", flush=True)
"""

SAVES = """
import sys, time
from pathlib import Path
from coord.child import stop
with stop.deferred():
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    time.sleep(0.2)  # the rest of a checkpoint, which SIGTERM must not cut off
    Path(sys.argv[1]).write_text("whole")
time.sleep(600)
"""


def test_a_child_is_told_before_it_is_signalled(lab: Lab, job: str) -> None:
    """In its SIGTERM handler, a child already knows who, why, and how long it has got."""
    run = lab.run(job, sys.executable, "-c", TELLS, options=("--grace", "30s"))
    assert run.popen.stdout
    assert json.loads(run.popen.stdout.readline()) == [False, None, None]
    assert lab.call("shutdown", "--job-id", job, "--reason", "new release", host="desk").code == 0
    requested, cause, by, reason, remaining_s = json.loads(run.end().out)
    assert (requested, cause, reason) == (True, "operator", "new release")
    assert by.endswith("@desk")
    assert 0 < remaining_s <= 30


def test_a_loop_ends_by_itself(lab: Lab, job: str) -> None:
    """`until_requested` ends a loop between two items, even of a child that ignores SIGTERM."""
    run = lab.run(job, sys.executable, "-c", COUNTS, options=("--grace", "60s"))
    assert run.popen.stdout
    assert run.popen.stdout.readline() == b"ready\n"
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    assert run.end().out == "left the loop\n"


def test_a_critical_section_is_finished(lab: Lab, job: str, tmp_path: Path) -> None:
    """`deferred` keeps SIGTERM away from a checkpoint that is half written, and lets it come afterwards."""
    run = lab.run(job, sys.executable, "-c", SAVES, str(tmp_path / "checkpoint"), options=("--grace", "60s"))
    assert run.popen.stdout
    assert run.popen.stdout.readline() == b"ready\n"
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert ended.json["verdict"] == "clean"
    assert ended.json["agents"][0]["processes"][0]["signal"] == "SIGTERM"
    assert (tmp_path / "checkpoint").read_text() == "whole"
    assert run.end().code == 143


def test_outside_of_coord_nothing_is_ever_requested() -> None:
    """The same code runs without coord: nothing is requested, nobody says why, and loops run to their end."""
    script = "from coord.child import stop; print(stop.requested, stop.remaining_s, list(stop.until_requested('ab')))"
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=surroundings(), timeout=30
    )
    assert told.stdout == "False None ['a', 'b']\n"


def test_it_loads_nothing_slow() -> None:
    """A child pays next to nothing for it: no Redis, no asyncio, only a few modules of the standard library."""
    script = "import sys, coord.child; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    slow = {"redis", "asyncio", "click", "rich", "structlog", "pathlib", "dataclasses", "typing"}
    assert not slow & set(loaded.stdout.split())


def test_the_file_is_gone_afterwards(lab: Lab, job: str) -> None:
    """A stop leaves nothing in the runtime directory."""
    run = lab.run(job, "sh", "-c", "echo $COORD_STOP_FILE; exec sleep 600")
    assert run.popen.stdout
    path = run.popen.stdout.readline().decode().strip()
    assert path
    assert lab.call("shutdown", "--job-id", job).code == 0
    assert run.end().code == 143
    until(lambda: not Path(path).exists(), "the file to be gone")
