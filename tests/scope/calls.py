"""Bodies that check what a scope's calls do: each asserts, and what fails shows in how its block was left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coord.errors import UsageError
from tests.scope.facts import tell, told, wait_for
from tests.scope.ranks import RANKS, brief, deaf, failing, killed, leaving, nothing, sleeper
from workers import JobScope, JobStopped

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 200
PHASES = 3
SETTLE_S = 20.0


def raised(kind: type[BaseException], call: Callable[[], object]) -> str:
    """Give the text of what a call raises."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__} was raised")


def popen_options(scope: JobScope, _options: dict[str, Any]) -> None:
    """What subprocess.Popen takes goes through; a child has the variables of the job, whatever environment it gets."""
    there = Path("/").resolve()
    told_by = scope.popen(["pwd"], cwd=there, stdout=subprocess.PIPE, text=True)
    assert told_by.communicate() == (f"{there}\n", None)
    both = scope.popen("echo $X; exit 0", shell=True, env={"X": "y"}, stdout=subprocess.PIPE)  # noqa: S604
    assert both.communicate() == (b"y\n", None)
    bare = scope.popen(["/usr/bin/env"], env={}, stdout=subprocess.PIPE, text=True, label="bare")
    names = {line.partition("=")[0] for line in bare.communicate()[0].splitlines()}
    assert {"COORD_JOB_ID", "COORD_AGENT_ID", "COORD_LABEL", "COORD_STOP_FILE"} <= names
    assert {name for name in names if not name.startswith("COORD_")} == set()
    early = scope.popen(["true"], preexec_fn=lambda: tell("prepared"))
    assert early.wait() == 0
    assert told("prepared")[0]["pid"] == early.pid
    in_group = scope.popen(["sleep", "0.2"], process_group=0)
    assert os.getpgid(in_group.pid) == in_group.pid != os.getsid(in_group.pid)
    here = scope.popen(["sleep", "0.2"], start_new_session=False)
    assert os.getsid(here.pid) == os.getsid(0)
    assert "no-such" in raised(FileNotFoundError, lambda: scope.popen(["no-such-program"]))
    assert scope.join(), "what could not be started is not waited for"


def waits(scope: JobScope, _options: dict[str, Any]) -> None:
    """The program itself waits for its children, at the same time as the agent: no exit is lost, none is invented."""
    for _ in range(MANY):
        assert scope.popen(["true"]).wait() == 0
    for _ in range(20):
        rank = scope.spawn(nothing)
        rank.join()
        assert rank.exitcode == 0
        rank.close()
    assert scope.join(60)
    tell("no failure")
    scope.popen(["sh", "-c", "exit 3"]).wait()
    assert "sh on host here" in raised(JobStopped, scope.join)


def adopting(scope: JobScope, options: dict[str, Any]) -> None:
    """What other code has started is the job's, with what it has started since."""
    script = "sleep 300 & setsid sleep 300 & echo; wait"
    program = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert program.stdout
    program.stdout.readline()
    context: Any = get_context(options.get("context", "fork"))
    rank = context.Process(target=sleeper, name="mine")
    rank.start()
    wait_for("ready")
    scope.adopt(program, label="script")
    scope.adopt(rank)
    scope.adopt(rank)
    labels = sorted(each.found.label for each in scope._opened.state.processes.values() if each.found.child)
    assert labels == ["mine", "script"], labels
    with subprocess.Popen(["true"]) as done:
        done.wait()
        assert "does not run" in raised(UsageError, lambda: scope.adopt(done))
    assert "does not run" in raised(UsageError, lambda: scope.adopt(context.Process(target=nothing)))
    assert not scope.join(0.2)
    tell("adopted")
    program.stdout.close()
    sys.exit(0)


def ignoring(scope: JobScope, _options: dict[str, Any]) -> None:
    """Failures are the program's affair."""
    ranks = [scope.spawn(failing), scope.spawn(killed), scope.spawn(leaving, 4), scope.spawn(leaving, "word")]
    last = scope.spawn(brief, 0.5)
    assert scope.join()
    assert [rank.exitcode for rank in ranks] == [1, -signal.SIGKILL, 4, 1]
    assert last.exitcode == 0
    assert not scope.stopping


def phases(scope: JobScope, _options: dict[str, Any]) -> None:
    """Join, then start again; what is over leaves nothing behind in the program."""
    assert scope.join()
    before: dict[str, str] = {}
    for _ in range(PHASES):
        scope.spawn(brief, 0.3)
        assert not scope.join(0.01)
        scope.popen(["true"])
        assert scope.join(60)
        end_s = time.monotonic() + SETTLE_S
        while before and len(descriptors()) > len(before) and time.monotonic() < end_s:
            assert scope.join()  # a server of forks may be late in saying how its ranks ended
        after = descriptors()
        assert not before or len(after) <= len(before), f"descriptors grow: {before}, {after}"
        before = after
    assert not list(_cgroups(scope)), "cgroups of children that are gone"


def descriptors() -> dict[str, str]:
    return {path.name: str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


def _cgroups(scope: JobScope) -> list[Path]:
    facts = scope._opened._containment.facts()
    return [path for path in Path(facts["cgroup"]).iterdir() if path.is_dir()] if facts["cgroup"] else []


def nested(scope: JobScope, options: dict[str, Any]) -> None:
    """A scope in a scope: what stops the inner one leaves the outer one alone, until it is told."""
    outer = scope.spawn(sleeper, label="outer")
    wait_for("ready")
    with suppress(JobStopped), JobScope("inner", local=True) as inner:
        inner.spawn(failing)
        inner.join()
    assert outer.is_alive()
    assert not scope.stopping
    with JobScope("inner", local=True, grace_s=1) as inner:
        inner.spawn(deaf, label="inner")
        wait_for("ready", 2)
        tell("blocked")
        if options["where"] == "join":
            inner.join()
        threading.Event().wait()


def threads(scope: JobScope, _options: dict[str, Any]) -> None:
    """Two more scopes, in threads: each has its own ranks, and its own end."""

    def work(name: str, rank: str) -> None:
        try:
            with JobScope(name, local=True, grace_s=1) as mine:
                mine.spawn(RANKS[rank])
        except JobStopped as error:
            tell("stopped", name=name, text=str(error))
        else:
            tell("stopped", name=name, text=None)

    kept = scope.spawn(sleeper)
    workers = [threading.Thread(target=work, args=pair) for pair in (("a", "failing"), ("b", "brief"))]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    texts = {each["name"]: each["text"] for each in told("stopped")}
    assert "BadBatchError" in texts["a"]
    assert texts["b"] is None
    assert kept.is_alive()
    sys.exit(0)


def many(scope: JobScope, _options: dict[str, Any]) -> None:
    """Hundreds of programs."""
    for _ in range(MANY):
        scope.popen(["sleep", "300"])
    tell("started")
    sys.exit(0)


def misuse(scope: JobScope, _options: dict[str, Any]) -> None:
    """What can't be is said in words."""
    assert "used once" in raised(UsageError, scope.__enter__)
    closed = JobScope("closed", local=True)
    assert "not open" in raised(UsageError, lambda: closed.spawn(nothing))
    with closed:
        pass
    assert "not open" in raised(UsageError, lambda: closed.spawn(nothing))
    assert "none of stop, ignore" in raised(UsageError, lambda: JobScope("x", on_failure="warn"))
    assert "none of auto, cgroup, subreaper" in raised(UsageError, lambda: JobScope("x", containment="docker"))
    assert "none of debug" in raised(UsageError, lambda: JobScope("x", log_level="loud"))
    assert "wait" in raised(UsageError, lambda: JobScope("x", grace_s=-1))
    assert "no Redis" in raised(UsageError, lambda: JobScope("x", local=True, redis_url="redis://there"))
    assert raised(UsageError, lambda: JobScope(""))
    if os.fork() == 0:  # a fork of the program: the block is not its own
        try:
            assert "another process" in raised(UsageError, lambda: scope.spawn(nothing))
            tell("refused")
        finally:
            scope.__exit__(None, None, None)
            os._exit(0)
    os.wait()
    assert told("refused")
    assert scope.spawn(nothing).pid


CALLS: dict[str, Callable[[JobScope, dict[str, Any]], None]] = {
    each.__name__: each for each in (popen_options, waits, adopting, ignoring, phases, nested, threads, many, misuse)
}
