"""Programs that won't go, and programs that got away: stopped within their plan, seen gone, and told as it was."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.harness import until
from tests.process.days import SHORT, nasty, process_state

if TYPE_CHECKING:
    from pathlib import Path

    from tests.process.days import Day

NOBODY = "65534"

DEAF = {
    "ignores-sigterm": nasty("deaf"),
    "handler-hangs": nasty("hangs"),
    "all-signals-blocked": nasty("blocks_all"),
    "closes-all-files": nasty("closes_all"),
}

GOT_AWAY = {
    "own-group": (nasty("own_group"), 2),
    "own-session": (nasty("own_session"), 2),
    "double-fork": (nasty("double_fork"), 2),
    "double-fork-without-environment": (nasty("without_environment"), 2),
    "below-a-subreaper": (nasty("subreaper", "3"), 4),
    "main-thread-gone": (nasty("headless"), 1),
    "main-thread-of-a-grandchild-gone": (nasty("parent", "headless"), 2),
}


@pytest.mark.parametrize("command", DEAF.values(), ids=DEAF)
def test_who_does_not_listen_is_killed(day: Day, command: tuple[str, ...]) -> None:
    """SIGTERM ignored, blocked, heeded without an end; no output left to judge by: killed at the deadline, and gone."""
    day.begin(*command)
    stopped = day.stop(*SHORT)
    assert stopped.outcomes == {"killed": 1}
    assert stopped.processes[0]["took_s"] >= 0.5
    assert stopped.code == 137


@pytest.mark.parametrize(("command", "count"), GOT_AWAY.values(), ids=GOT_AWAY)
def test_who_got_away_is_asked_too(day: Day, command: tuple[str, ...], count: int) -> None:
    """Out of the group, the session, its parent's sight, its environment or its main thread: asked, and seen gone."""
    day.begin(*command)
    stopped = day.stop()
    assert stopped.outcomes == {"terminated": count}
    assert stopped.code == 143


def test_who_cleans_up_is_waited_for(day: Day, tmp_path: Path) -> None:
    """A handler that takes 0.2 s has them: it ends by itself, with its own exit code, and is not hurried."""
    note = tmp_path / "note"
    day.begin(*nasty("cleans_up_slowly", str(note)))
    stopped = day.stop()
    assert note.read_text() == "cleaned up\n"
    (process,) = stopped.processes
    assert (process["outcome"], process["exit_code"]) == ("terminated", 0)
    assert process["took_s"] >= 0.2
    assert stopped.code == 143


@pytest.mark.parametrize("handler", [False, True], ids=["without-a-handler", "with-a-handler"])
def test_who_was_stopped_is_woken_to_leave(day: Day, tmp_path: Path, handler: bool) -> None:
    """A process under SIGSTOP is woken to act on SIGTERM: it cleans up, or dies of it, long before SIGKILL."""
    note = tmp_path / "note"
    day.begin(*nasty("stops_itself" if handler else "stopped", str(note)), ready=handler)
    until(lambda: process_state(day.child_pid) == "T", "it to be stopped")
    stopped = day.stop()
    (process,) = stopped.processes
    ended = ("terminated", 0, None) if handler else ("terminated", None, "SIGTERM")
    assert (process["outcome"], process["exit_code"], process["signal"]) == ended
    assert note.exists() == handler


def test_what_a_command_left_behind_can_be_hurried(day: Day) -> None:
    """The command exited 0 and left a deaf daemon, which has a minute: a shutdown shortens that, and tells of both."""
    day.begin(*nasty("leaves", "deaf"))
    stopped = day.stop(*SHORT)
    assert [process["outcome"] for process in stopped.processes] == ["exited", "killed"]
    assert stopped.code == 0, "the command's own"


def test_a_helper_that_is_born_on_sigterm_is_asked_too(day: Day) -> None:
    """A handler that daemonizes a helper and exits: nobody could ask the helper with the others, and it goes, too."""
    day.begin(*nasty("daemonizes"))
    stopped = day.stop()
    assert set(stopped.outcomes) == {"terminated"}
    assert (stopped.processes[0]["exit_code"], stopped.processes[0]["signal"]) == (0, None)
    assert any("sleep" in process["command"] for process in stopped.processes), "the helper is told of"


def test_a_deaf_helper_that_is_born_on_sigterm_is_killed(day: Day) -> None:
    """Nor does it help the helper that it is deaf from its first moment."""
    day.begin(*nasty("reborn"))
    stopped = day.stop(*SHORT)
    assert stopped.outcomes == {"terminated": 1, "killed": 1}
    assert stopped.code == 143


@pytest.mark.parametrize("deaf", ["", "deaf"], ids=["asked", "killed"])
def test_siblings_that_restart_each_other_both_go(day: Day, deaf: str) -> None:
    """Two in sessions of their own, each of which starts the other again when it dies: none is left, old or new."""
    day.begin(*nasty("siblings", deaf))
    stopped = day.stop(*(SHORT if deaf else ()))
    assert stopped.outcomes.get("killed" if deaf else "terminated", 0) >= 3
    assert (stopped.verdict, stopped.code) == (("forced", 137) if deaf else ("clean", 143))


def test_a_grandchild_that_holds_stdout_holds_up_nobody(day: Day) -> None:
    """The child goes, a deaf grandchild keeps its stdout open: `coord run` ends, and its reader sees the end of it."""
    day.begin(*nasty("parent", "deaf"))
    stopped = day.stop(*SHORT)  # sees the end of its output
    assert [process["outcome"] for process in stopped.processes] == ["terminated", "killed"]
    assert stopped.code == 143


def test_a_pid_namespace_is_no_hiding_place(day: Day) -> None:
    """The first process of a pid namespace hears no SIGTERM: it is killed, and all that are in there are told of."""
    unshare = ("unshare", "--pid", "--fork")
    if os.geteuid() or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a pid namespace needs root, and a kernel or container that permits it")
    day.begin(*unshare, *nasty("family", "2"))
    stopped = day.stop(*SHORT)
    ends = {process["command"].split()[0]: process["outcome"] for process in stopped.processes}
    assert ends[nasty("family")[0]] == "killed"
    assert ends["sleep"] == "terminated"
    assert len(stopped.processes) == 6


def test_another_users_process_goes_where_that_is_permitted(day: Day) -> None:
    """A command that became another user: root may signal it, and does."""
    if os.geteuid():
        pytest.skip("becoming another user needs root")
    day.begin(
        "setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "sh", "-c", "sleep 600 & echo ready; wait"
    )
    stopped = day.stop()
    assert stopped.outcomes == {"terminated": 2}
