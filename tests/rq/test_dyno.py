"""The platform simulator does what it says: every process at once, twice, and nobody outlives the bound."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.harness import MARK, surroundings, until
from tests.rq.dyno import platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness import Lab
    from tests.rq.dyno import Dyno

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root")

AGAIN_S, BOUND_S = 0.3, 1.5
COUNTS = """trap 'echo "$NAME term"; n=$((n+1)); [ $n -lt 2 ] || exit 0' TERM
echo "$NAME ready"
while :; do sleep 0.05; done"""  # leaves on the second SIGTERM
DEAF = "trap '' TERM; echo ready; while :; do sleep 1; done"


@pytest.fixture
def run(lab: Lab, tmp_path: Path) -> Iterator[Callable[[str], Dyno]]:
    """Start the one process type of a Procfile."""
    platforms = []

    def start(command: str) -> Dyno:
        environment = {**surroundings(), MARK: lab.token}
        context = platform(f"web: {command}\n", environment, tmp_path / "dynos", again_s=AGAIN_S, bound_s=BOUND_S)
        platforms.append(context)
        return context.__enter__().start("web")

    yield start
    for each in platforms:
        each.__exit__(None, None, None)
    until(lambda: not lab.left(), "nothing to be left of a dyno")


def script(folder: Path, text: str) -> str:
    """Put a program where a Procfile can name it."""
    path = folder / "program.sh"
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o700)
    return str(path)


def test_a_command_that_leaves_is_told_with_its_code(run: Callable[[str], Dyno], tmp_path: Path) -> None:
    """Its own exit code, no SIGKILL, nothing left, and at once."""
    dyno = run(script(tmp_path, "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"))
    until(lambda: "ready" in dyno.said, "it to be ready")
    dyno.stop()
    ended = dyno.end()
    assert (ended.code, ended.killed) == (7, {})
    assert ended.took_s is not None
    assert ended.took_s < BOUND_S


def test_a_command_that_ends_by_itself_was_not_asked(run: Callable[[str], Dyno]) -> None:
    """Nobody was asked, and its code is its own."""
    dyno = run("exit 5")
    ended = dyno.end()
    assert (ended.code, ended.took_s, ended.killed, ended.left) == (5, None, {}, {})


def test_every_process_is_asked_and_asked_again(run: Callable[[str], Dyno], tmp_path: Path) -> None:
    """A daemon in a session of its own, and a child, hear each of the two SIGTERMs, as the command does."""
    counts = script(tmp_path, COUNTS)
    others = f"NAME=daemon setsid {counts} & NAME=child {counts} &"
    dyno = run(f"trap 'echo command term' TERM; echo command ready; {others} wait; wait; wait; exit 7")
    until(lambda: dyno.said.count("ready") == 3, "all three")
    dyno.stop()
    ended = dyno.end()
    assert (ended.code, ended.killed, ended.left) == (7, {}, {})
    said = dyno.said.splitlines()
    assert [said.count(f"{name} term") for name in ("command", "child", "daemon")] == [2, 2, 2]
    assert AGAIN_S <= (ended.took_s or 0) < BOUND_S


def test_who_ignores_sigterm_is_killed_at_the_bound(run: Callable[[str], Dyno], tmp_path: Path) -> None:
    """SIGKILL comes when the time is over, not before, and the report says who needed it."""
    dyno = run(script(tmp_path, DEAF))
    until(lambda: "ready" in dyno.said, "it to be deaf")
    dyno.stop()
    ended = dyno.end()
    assert ended.code == -9
    assert any("program.sh" in command for command in ended.killed.values())
    assert (ended.took_s or 0) >= BOUND_S


def test_what_a_command_leaves_behind_is_told(run: Callable[[str], Dyno], tmp_path: Path) -> None:
    """The command leaves at once, its deaf daemon does not: that goes with the dyno, and is named."""
    deaf = script(tmp_path, DEAF)
    dyno = run(f"setsid {deaf} & trap 'exit 0' TERM; while :; do sleep 0.05; done")
    until(lambda: "ready" in dyno.said, "the daemon")
    dyno.stop()
    ended = dyno.end()
    assert (ended.code, ended.killed) == (0, {})
    assert any("program.sh" in command for command in ended.left.values())


def test_dynos_do_not_see_each_other(lab: Lab, tmp_path: Path) -> None:
    """Two of a type: stopping one leaves the other alone; all of them are stopped at once by a deploy."""
    environment = {**surroundings(), MARK: lab.token}
    deaf = script(tmp_path, DEAF)
    with platform(f"web: {deaf}\nworker: exec sleep 60\n", environment, tmp_path / "dynos", bound_s=0.5) as made:
        one, other, web = made.scale(worker=2, web=1)
        assert [each.name for each in (one, other, web)] == ["worker.1", "worker.2", "web.1"]
        one.stop()
        assert one.end().code == -15
        assert (other.popen.poll(), web.popen.poll()) == (None, None)
        until(lambda: "ready" in web.said, "it to be deaf")
        assert [ended.code for ended in made.cycle()] == [-15, -9]
    until(lambda: not lab.left(), "nothing to be left of the dynos")
