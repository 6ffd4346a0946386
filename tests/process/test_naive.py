"""The negative controls of the bad days: the same programs under what everybody writes, and without coord's guards.

Each shows what is left, or what is said wrongly; and takes it away again, by handle.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.harness import until
from tests.process.days import SHORT, Witness, nasty, process_state, unguarded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.process.days import Day

GRACE_S = 0.5
END_S = 10.0
BRIEF = ("--grace", "300ms", "--kill-wait", "500ms")
ROUNDS = 5


@pytest.fixture
def wild(plain_day: Day) -> Iterator[Day]:
    """A day that may leave something behind; what it left is ended by handle."""
    yield plain_day
    plain_day.close()
    plain_day.lab.close()


def begin_naively(day: Day, *command: str) -> subprocess.Popen[bytes]:
    """Start a program as everybody does, in a session of its own."""
    program, *words = command
    day.follow(day.lab.start(*words, program=program))
    return day.run.popen


def stop_child(popen: subprocess.Popen[bytes]) -> None:
    """The loop that everybody writes: terminate, wait, kill, wait."""
    popen.terminate()
    try:
        popen.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait(END_S)


def stop_group(popen: subprocess.Popen[bytes]) -> None:
    """The better one, as honcho and timeout(1) do it: the same, for the process group."""
    os.killpg(popen.pid, signal.SIGTERM)  # not waited for yet: its number is nobody else's
    try:
        popen.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(popen.pid, signal.SIGKILL)
        popen.wait(END_S)


GET_AWAY = {
    "own-group": nasty("own_group"),
    "own-session": nasty("own_session"),
    "double-fork": nasty("double_fork"),
    "double-fork-without-environment": nasty("without_environment"),
    "daemon": nasty("leaves", "deaf"),
    "below-a-subreaper": nasty("subreaper", "3"),
    "main-thread-of-a-grandchild-gone": nasty("parent", "headless"),
    "helper-born-on-sigterm": nasty("daemonizes"),
    "siblings": nasty("siblings"),
    "200-deep": nasty("deep", "200"),
}


@pytest.mark.parametrize("command", GET_AWAY.values(), ids=GET_AWAY)
def test_signals_to_the_group_leave_something_behind(wild: Day, command: tuple[str, ...]) -> None:
    """Signal the group and wait for the child: the child is gone, and a part of its tree lives on."""
    popen = begin_naively(wild, *command)
    stop_group(popen)
    assert popen.returncode is not None
    assert until(lambda: wild.left, "what was left behind to be seen")


def test_signals_to_the_child_leave_its_children_behind(wild: Day) -> None:
    """terminate() and wait() for the child: the child is gone, and all others live on."""
    stop_child(begin_naively(wild, *nasty("wide", "20")))
    assert len(wild.left) == 20


def test_a_chain_in_new_sessions_outruns_signals_to_the_group(wild: Day, built: Path) -> None:
    """A signal to the group does not reach the chain: it goes on until it ends by itself."""
    stop_group(begin_naively(wild, "sh", "-c", f"{built}/chain 2 setsid & exec sleep 600"))
    assert wild.run.end().out == "old\n"


def test_asking_alone_leaves_the_deaf(wild: Day) -> None:
    """SIGTERM and a wait without SIGKILL after it: it is still there."""
    popen = begin_naively(wild, *nasty("deaf"))
    popen.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        popen.wait(GRACE_S)
    assert wild.left


def test_siblings_outlive_whoever_stops_one_after_the_other(wild: Day) -> None:
    """Kill, wait for its end, then the next: the one that is left starts the other again, each time."""
    stop_child(begin_naively(wild, *nasty("siblings")))
    for _ in range(ROUNDS):
        first = Witness.of(both_of(wild)[0])
        first.kill()
        until_dead(first)
    assert both_of(wild)


def both_of(day: Day) -> list[int]:
    """Give the pids of the two, once they are there."""
    pids: list[int] = until(lambda: len(left := list(day.lab.left())) >= 2 and left, "the two")
    return pids


def until_dead(witness: Witness) -> None:
    until(lambda: not witness.alive, "its end")


def test_waiting_for_the_end_of_output_is_held_up_by_a_grandchild(wild: Day) -> None:
    """The child is gone; who waits for the end of its output waits for the grandchild that holds it."""
    popen = begin_naively(wild, *nasty("parent", "deaf"))
    stop_group(popen)
    with pytest.raises(subprocess.TimeoutExpired):
        popen.communicate(timeout=1)


def test_the_end_of_output_is_no_end(wild: Day) -> None:
    """Who takes the end of its output for the end of a program is told so while it runs."""
    popen = begin_naively(wild, *nasty("closes_all"))
    assert popen.stdout
    assert popen.stdout.read() == b""
    assert popen.poll() is None
    assert wild.left


def test_the_child_alone_leaves_its_pid_namespace_behind(wild: Day) -> None:
    """The program that made it ends when it is killed; the first process in there does not, and nor do the others."""
    unshare = ("unshare", "--pid", "--fork")
    if os.geteuid() or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a pid namespace needs root, and a kernel or container that permits it")
    stop_child(begin_naively(wild, *unshare, *nasty("family", "2")))
    assert len(wild.left) == 5


# -- coord without one of its guards -----------------------------------------------------------------------------------


def test_without_a_subreaper_an_orphan_is_lost_and_the_proof_is_false(wild: Day) -> None:
    """An orphan that falls to PID 1 is nobody's child: the agent sees none, says clean, and the orphan lives on."""
    wild.begin(*nasty("without_environment"), through=unguarded("no-subreaper"))
    stopped = wild.shut_down()
    assert (stopped.shutdown.code, stopped.verdict) == (0, "clean")
    assert wild.left == wild.witnesses
    assert wild.lab.left() == {}, "and a search of environments does not find it"


def test_without_sigcont_who_was_stopped_can_not_clean_up(wild: Day, tmp_path: Path) -> None:
    """SIGTERM alone waits behind SIGSTOP until SIGKILL comes: nothing is cleaned up."""
    note = tmp_path / "note"
    wild.begin(*nasty("stops_itself", str(note)), through=unguarded("no-wake-up"))
    until(lambda: process_state(wild.child_pid) == "T", "it to be stopped")
    assert wild.stop(*SHORT).outcomes == {"killed": 1}
    assert not note.exists()


def test_without_sigkill_the_deaf_stay_and_are_told_of(wild: Day) -> None:
    """Even so nothing is called gone that is not: survived, incomplete, exit code 5."""
    wild.begin(*nasty("deaf"), through=unguarded("no-kill"))
    stopped = wild.shut_down(*BRIEF)
    assert (stopped.shutdown.code, stopped.outcomes) == (5, {"survived": 1})
    assert list(wild.lab.left()) == [stopped.processes[0]["pid"]]


def test_without_a_second_look_who_was_born_meanwhile_stays(wild: Day) -> None:
    """Who takes those it asked for all there are says clean, and the helper lives on."""
    wild.begin(*nasty("daemonizes"), through=unguarded("no-second-look"))
    stopped = wild.shut_down()
    assert (stopped.shutdown.code, stopped.verdict) == (0, "clean")
    assert until(lambda: [command for command in wild.lab.left().values() if "sleep" in command], "the helper")


def test_on_the_word_of_proc_a_chain_is_called_gone(wild: Day, built: Path) -> None:
    """A list that ran empty is no proof: the chain was between two looks, and goes on after the verdict."""
    wild.begin("sh", "-c", f"{built}/chain 4 deaf & exec sleep 600", through=unguarded("word-of-proc"))
    stopped = wild.shut_down(*SHORT)
    assert (stopped.shutdown.code, stopped.agent["proof"]) == (0, wild.proof)
    assert wild.run.end().out == "old\n", "it ended by itself"


def test_without_its_threads_a_process_is_overlooked(wild: Day) -> None:
    """Whose main thread is gone looks like a zombie: who goes by that never asks it, and can't prove its end."""
    wild.begin(*nasty("parent", "headless"), through=unguarded("leaders-alone"))
    stopped = wild.shut_down(*BRIEF)
    assert (stopped.shutdown.code, stopped.verdict) == (5, "incomplete")
    assert wild.left == wild.witnesses
