"""`stop.need`: how a child asks for more time, and what it is told; real files, the real clock, no agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from coord.child import Stop
from tests.harness import WAIT_S, surroundings

SLOW_S = 20.0  # a loaded machine may take that long from one line to the next; figures below are further apart


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The place of an agent's stop file."""
    return tmp_path / "agent-1.json"


def request(path: Path, kill_in_s: float, max_in_s: float | None = None) -> float:
    """Write the file as an agent does; give `kill_at_s`."""
    now_s = time.monotonic()
    facts: dict[str, Any] = {"id": "r-1", "cause": "operator", "by": "ada@desk", "reason": "new release"}
    facts["kill_at_s"] = now_s + kill_in_s
    if max_in_s is not None:
        facts["kill_max_s"] = now_s + max_in_s
    path.with_suffix(".draft").write_text(json.dumps(facts))
    path.with_suffix(".draft").rename(path)
    return now_s + kill_in_s


def asked(path: Path) -> dict[str, Any] | None:
    """Give what this process asked for; nothing else may lie beside the stop file."""
    need = path.with_name(f"{path.name}.need-{os.getpid()}")
    assert {each.name for each in path.parent.iterdir()} <= {path.name, need.name}
    return json.loads(need.read_text()) if need.exists() else None


def near(seconds: float | None, wanted_s: float) -> bool:
    """Tell whether a figure is what it should be, but for the time that has gone by."""
    return seconds is not None and wanted_s - SLOW_S < seconds <= wanted_s


def test_a_need_is_granted_and_written(path: Path) -> None:
    """Within the plan's limit, a child gets what it asks for, and the agent finds until when, and who asked."""
    stop = Stop(str(path))
    request(path, 100, 1000)
    before_s = time.monotonic()
    assert near(stop.need(500), 500)
    need = asked(path)
    assert need
    assert set(need) == {"until_s", "pid"}
    assert need["pid"] == os.getpid()
    assert before_s + 500 <= need["until_s"] <= time.monotonic() + 500
    assert near(stop.remaining_s, 500)


def test_nothing_is_granted_beyond_the_limit(path: Path) -> None:
    """The most is `kill_max_s`, for the file and for the answer."""
    stop = Stop(str(path))
    kill_at_s = request(path, 100, 1000)
    assert near(stop.need(1e9), 1000)
    need = asked(path)
    assert need
    assert need["until_s"] == pytest.approx(kill_at_s + 900)


@pytest.mark.parametrize("max_in_s", [None, 100, 50])
def test_a_plan_without_a_limit_of_its_own_can_not_be_put_off(path: Path, max_in_s: float | None) -> None:
    """Without `kill_max_s`, or when it is no later than the kill, nothing is asked and what is left is what is left."""
    stop = Stop(str(path))
    request(path, 100, max_in_s)
    assert near(stop.need(500), 100)
    assert asked(path) is None
    assert near(stop.remaining_s, 100)


def test_enough_time_is_not_asked_for(path: Path) -> None:
    """Who needs less than the plan gives anyway writes nothing, and hears what the plan gives."""
    stop = Stop(str(path))
    request(path, 500, 1000)
    assert near(stop.need(100), 500)
    assert near(stop.need(-1), 500)
    assert asked(path) is None


def test_before_a_stop_nothing_is_asked(path: Path) -> None:
    """A need is for a stop that has begun: before it, and outside of coord, 0.0 and no file."""
    stop = Stop(str(path))
    assert (stop.need(60), stop.remaining_s, stop.request_id) == (0.0, None, None)
    assert asked(path) is None
    assert Stop(None).need(60) == 0.0


def test_after_the_time_is_over_nothing_is_granted(path: Path) -> None:
    """Once hold-outs are being killed, nobody is promised anything."""
    stop = Stop(str(path))
    request(path, -1, 1000)
    assert (stop.need(500), stop.remaining_s) == (0.0, 0.0)
    assert asked(path) is None


def test_a_need_can_be_raised_and_not_lowered(path: Path) -> None:
    """A second, longer need replaces the first one; a shorter one leaves it."""
    stop = Stop(str(path))
    request(path, 100, 1000)
    assert near(stop.need(300), 300)
    assert near(stop.need(600), 600)
    assert near(stop.need(300), 600)
    need = asked(path)
    assert need
    assert near(need["until_s"] - time.monotonic(), 600)


def test_the_plan_has_the_last_word(path: Path) -> None:
    """A plan that gets shorter cuts what was granted; one that gives more than was asked gives it."""
    stop = Stop(str(path))
    request(path, 100, 1000)
    assert near(stop.need(500), 500)
    request(path, 50, 200)
    assert near(stop.remaining_s, 200)
    request(path, 50)
    assert near(stop.remaining_s, 50)
    request(path, 800, 1000)
    assert near(stop.remaining_s, 800)


def test_the_request_is_named(path: Path) -> None:
    """`request_id` is the id that the record has, so that logs of a job and of coord can be joined."""
    stop = Stop(str(path))
    request(path, 10)
    assert (stop.request_id, stop.by) == ("r-1", "ada@desk")


def test_a_fork_has_needs_of_its_own(path: Path) -> None:
    """What a parent was granted is not promised to its child: the agent knows who asked."""
    stop = Stop(str(path))
    request(path, 100, 1000)
    assert near(stop.need(500), 500)
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writes, json.dumps([stop.remaining_s, stop.need(300), stop.remaining_s]).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    left_s, granted_s, then_s = json.loads(os.read(reads, 1000))
    os.close(reads)
    os.close(writes)
    assert near(left_s, 100)
    assert near(granted_s, 300)
    assert near(then_s, 300)
    written = json.loads(path.with_name(f"{path.name}.need-{pid}").read_text())
    assert written["pid"] == pid


AS_NOBODY = """
import os, sys
from coord.child import stop
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
print(stop.need(500), stop.remaining_s)
"""


def test_who_may_not_write_gets_what_is_left() -> None:
    """A child that runs as somebody else can't ask; it is told the truth, and no error."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "agent-1.json"
        request(path, 100, 1000)
        Path(folder).chmod(0o555)
        ended = subprocess.run(
            [sys.executable, "-c", AS_NOBODY],
            check=False,
            env={**surroundings(), "COORD_STOP_FILE": str(path)},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        assert asked(path) is None
        Path(folder).chmod(0o755)
    granted_s, remaining_s = ended.stdout.split()
    assert near(float(granted_s), 100), ended.stderr
    assert near(float(remaining_s), 100)


def test_who_asks_while_another_thread_does_is_promised_nothing(path: Path) -> None:
    """Nobody waits for a lock in a signal handler: the answer is what is left, and can be asked for again."""
    stop = Stop(str(path))
    request(path, 100, 1000)
    assert near(stop.need(200), 200)
    assert stop._need
    with stop._need._asking:
        assert near(stop.need(500), 200)
    assert near(stop.need(500), 500)


def test_the_file_is_always_whole(path: Path) -> None:
    """Whoever reads while many threads ask sees a whole need, and the last one is what the process counts on."""
    stop = Stop(str(path))
    request(path, 100, 100_000)
    need = path.with_name(f"{path.name}.need-{os.getpid()}")
    threads = [threading.Thread(target=lambda: [stop.need(n * 100) for n in range(2, 100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if need.exists():
            assert json.loads(need.read_text())["pid"] == os.getpid()
    assert stop._need
    assert json.loads(need.read_text())["until_s"] == stop._need.until_s
    asked(path)
