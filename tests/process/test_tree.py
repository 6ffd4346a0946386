"""Who belongs to the tree, and who is never touched: handles on real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coord.errors import CoordError
from tests.harness import NASTY, until
from workers import handles, proc, signals
from workers.containment import Subreaper
from workers.handles import open_child, open_found
from workers.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workers.handles import Handle


def nobody(_handle: Handle) -> None:
    """Nobody watches in these tests; they look for themselves."""


@pytest.fixture
def tree() -> Iterator[Tree]:
    """A tree of this test process; it makes the process a subreaper, as an agent is one."""
    others = {stat.pid for stat in proc.descendants(os.getpid())}  # of tests before
    tree = Tree(Subreaper(spare=others), nobody, nobody)
    yield tree
    until(lambda: kill_all(tree), "the tree to be empty")
    tree.close()


def kill_all(tree: Tree) -> bool:
    """Kill what is there; True once nothing is."""
    tree.collect(tree.held)
    seen = tree.look()
    tree.send("SIGKILL", tree.held)
    return seen.complete and not seen.found


def start(*argv: str) -> int:
    """Start a child as an agent does: by number, not waited for."""
    return os.posix_spawn(argv[0], argv, os.environ, setsid=True)


def nasty(name: str, argument: str = "") -> int:
    """Start one of the nasty programs and wait until it is as told."""
    read_fd, write_fd = os.pipe()
    argv = (sys.executable, NASTY, name, argument)
    pid = os.posix_spawn(
        sys.executable, argv, os.environ, setsid=True, file_actions=[(os.POSIX_SPAWN_DUP2, write_fd, 1)]
    )
    os.close(write_fd)
    with os.fdopen(read_fd) as out:
        assert out.readline() == "ready\n"
    return pid


def test_everything_below_is_found(tree: Tree) -> None:
    """Children, a setsid daemon, and a double-forked orphan that fell to us: all of the tree, all labelled."""
    tree.adopt(nasty("family", "3"), 1, "rank0", "a command")
    until(lambda: len(tree.look().found) == 6, "five descendants and their parent")
    seen = tree.look()
    assert seen.complete
    assert {found.label for found in seen.found} == {"rank0"}


def test_an_empty_tree_is_said_to_be_empty_only_after_two_looks(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof is two looks that see nothing: one alone can miss what moves while it looks."""
    pid = start("/bin/sleep", "60")
    real, missed = proc.descendants, [True]
    monkeypatch.setattr(
        "workers.containment.descendants", lambda root, spare: [] if missed and missed.pop() else real(root, spare)
    )
    assert [found.key[0] for found in tree.look().found] == [pid], "the second look finds what the first one missed"


def test_exits_are_told_with_code_and_signal(tree: Tree) -> None:
    """What the kernel tells a parent reaches the report: the exit code, or the signal."""
    pids = [start("/bin/sh", "-c", "exit 7"), start("/bin/sh", "-c", "kill -9 $$")]
    keys = [tree.adopt(pid, 1, "x", "a command").found[0].key for pid in pids]
    exits = {}

    def all_told() -> bool:
        exits.update({each.key: (each.exit_code, each.signal) for each in tree.collect(keys).exits})
        return len(exits) == 2

    until(all_told, "both exits")
    assert [exits[key] for key in keys] == [(7, None), (None, "SIGKILL")]


def test_an_end_between_two_looks_is_told_with_its_code(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> None:
    """A child that ends just after exits were taken is told the next time, with its code, and not now without."""
    pid = start("/bin/sh", "-c", "kill -STOP $$; exit 7")
    key = tree.adopt(pid, 1, "x", "a command").found[0].key
    until(lambda: (stat := proc.read_stat(pid)) and stat.state == "T", "it has stopped")
    real = handles.reap

    def reap_then_end() -> dict[int, handles.Status]:
        taken = real()
        signals.send(pid, None, signal.SIGCONT)
        until(lambda: (stat := proc.read_stat(pid)) is None or not stat.alive, "its end")
        return taken

    monkeypatch.setattr("workers.containment.reap", reap_then_end)
    told = tree.collect([key]).exits
    monkeypatch.undo()
    told += tree.collect([key]).exits
    assert [(each.exit_code, each.signal) for each in told] == [(7, None)]


@pytest.mark.parametrize("pid", [-1, 0, 1])
def test_nobody_can_hold_pid_one_or_less(pid: int) -> None:
    """0 and -1 mean groups and everybody, 1 is init: refused before the kernel is asked."""
    with pytest.raises(CoordError, match="refused"):
        open_child(pid)


def test_nobody_can_hold_itself() -> None:
    """An agent never signals itself."""
    with pytest.raises(CoordError, match="refused"):
        open_child(os.getpid())


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that must never be signalled."""
    with subprocess.Popen(["/bin/sleep", "60"]) as popen:
        yield popen
        popen.kill()


def test_a_pid_that_went_to_a_stranger_is_not_held(stranger: subprocess.Popen[bytes]) -> None:
    """Right target only: what was found under a pid is compared with what is there once the handle is open."""
    now = proc.read_stat(stranger.pid)
    assert now
    earlier = proc.Stat(now.pid, now.ppid, now.name, now.state, now.threads, now.start_ticks - 1)
    assert open_found(earlier, lambda _: True) is None, "same pid, other start time: another process"
    assert open_found(now, lambda again: again.ppid == -5) is None, "same process, but not of the tree"


def test_without_that_comparison_a_stranger_would_be_hit(
    stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of `right target`: with the second look off, the stranger is held and can be killed."""
    now = proc.read_stat(stranger.pid)
    assert now
    earlier = proc.Stat(now.pid, now.ppid, now.name, now.state, now.threads, now.start_ticks - 1)
    monkeypatch.setattr(handles, "read_stat", lambda _pid: earlier)
    handle = open_found(earlier, lambda _: True)
    assert handle
    handle.send("SIGKILL")
    handle.close()
    assert stranger.wait(10) == -signal.SIGKILL


def test_a_handle_outlives_its_process_and_never_means_another(tree: Tree) -> None:
    """A signal to a process that is gone goes nowhere, even while its pid is not yet free."""
    pid = start("/bin/true")
    tree.adopt(pid, 1, "x", "a command")
    handle = next(iter(tree._handles.values()))
    until(handle.gone, "its end")
    assert handle.gone()
    with contextlib.suppress(ProcessLookupError):
        os.waitpid(pid, 0)
    assert handle.send("SIGKILL") is False


def test_another_users_process_is_reported_not_ignored(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may not be signalled is given back by name, so that the log and the verdict can say so."""
    key = tree.adopt(start("/bin/sleep", "60"), 1, "x", "a command").found[0].key
    with monkeypatch.context() as patch:
        patch.setattr(handles.Handle, "send", lambda _self, _name: (_ for _ in ()).throw(PermissionError))
        assert tree.send("SIGTERM", [key]) == [key]
    assert tree.send("SIGTERM", [key]) == []


def test_no_handle_leaks(tree: Tree) -> None:
    """A hundred children come and go; as many files are open afterwards as before."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(100):
        tree.adopt(start("/bin/true"), 1, "x", "a command")
    until(lambda: not (tree.collect(tree.held), tree.held)[1], "all to be collected")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_names_with_brackets_and_spaces_are_read_right(tree: Tree, tmp_path: os.PathLike[str]) -> None:
    """/proc/PID/stat holds the name in brackets, and a name may hold brackets: the fields after it are found."""
    program = os.path.join(tmp_path, ") Z (x")  # noqa: PTH118
    os.symlink("/bin/sleep", program)  # noqa: PTH211
    pid = start(program, "60")
    tree.adopt(pid, 1, "x", "a command")
    stat = proc.read_stat(pid)
    assert stat
    assert (stat.name, stat.ppid, stat.alive) == (") Z (x", os.getpid(), True)


def test_the_tree_is_found_without_the_kernels_children_file(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without CONFIG_PROC_CHILDREN: the same tree, from all of /proc."""
    tree.adopt(nasty("family", "2"), 1, "rank0", "a command")
    until(lambda: len(tree.look().found) == 5, "the tree to be there")
    with_file = {stat.key for stat in proc.descendants(os.getpid())}
    monkeypatch.setattr(proc, "_has_children_file", lambda: False)
    assert {stat.key for stat in proc.descendants(os.getpid())} == with_file


def test_what_proc_hides_is_not_called_gone(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof is the kernel's word that there is no child, not that /proc showed none: it can hide some (hidepid)."""
    tree.adopt(start("/bin/sleep", "60"), 1, "x", "a command")
    with monkeypatch.context() as patch:
        patch.setattr("workers.containment.descendants", lambda *_: [])
        seen = tree.look()
        assert (seen.found, seen.complete) == ((), False)
        # the negative control: with /proc's word alone, the same look would prove that nobody is left
        patch.setattr("workers.containment.childless", lambda _spare: True)
        assert tree.look().complete


def test_helpers_of_ours_do_not_count(tree: Tree) -> None:
    """A process that tells the record, while a guardian takes over, is none of the job's; everybody else counts."""
    assert isinstance(tree._containment, Subreaper)
    helper = start("/bin/sleep", "60")
    others = tree._containment._spare
    tree._containment._spare = {*others, helper}
    assert tree.look().complete
    job = start("/bin/sleep", "60")
    assert [found.key[0] for found in tree.look().found] == [job]
    tree._containment._spare = others
