"""No SIGTERM is swallowed between Python and a blocking call: `coord.child` against a plain handler, in processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import WAIT_S, Started, surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator

STOPS = str(Path(__file__).parent.parent / "stops.py")
HANGS_S = 2.0  # longer than any guard takes (`sigterm.LOOK_MS`); what each negative control costs
COUNT = int(os.environ.get("COORD_TEST_STOPS", "300"))
NEWBORN = "100"
SEED = 20261122

C_SOURCE = """
#include <signal.h>
#include <unistd.h>
void raise_and_pause(void) { raise(SIGTERM); pause(); }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """C code that gets SIGTERM and then blocks, with no Python in between."""
    gcc = shutil.which("gcc")
    if not gcc:
        pytest.skip("needs gcc to have SIGTERM come just before a system call for certain")
    folder = tmp_path_factory.mktemp("c")
    (folder / "pause.c").write_text(C_SOURCE)
    subprocess.run([gcc, "-shared", "-fPIC", "-o", folder / "pause.so", folder / "pause.c"], check=True)
    return str(folder / "pause.so")


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[Started]:
    """Run one of the programs; gone afterwards."""
    argv = [sys.executable, STOPS, *arguments]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=surroundings()) as popen:
        try:
            yield Started(popen)
        finally:
            popen.kill()


def ends(*arguments: str) -> None:
    """See a program say that it is ready, and end by itself as SIGTERM ends it."""
    with started(*arguments) as program:
        ended = program.end()
        assert (ended.out, ended.code) == ("ready\n", 143), ended.err


def hangs(*arguments: str) -> None:
    """See a program not end although it got SIGTERM, and end when it gets a second one."""
    with started(*arguments) as program:
        assert program.popen.stdout
        assert program.popen.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            program.popen.wait(HANGS_S)
        program.signal(signal.SIGTERM)
        assert program.popen.wait(WAIT_S) == 143


def test_sigterm_just_before_a_system_call_ends_the_program(library: str) -> None:
    """The call that was about to block when SIGTERM came is interrupted."""
    ends("in_c", "coord", library)


def test_a_plain_handler_misses_sigterm_just_before_a_system_call(library: str) -> None:
    """The negative control: the handler runs only when something else ends the call."""
    hangs("in_c", "plain", library)


def test_sigterm_that_went_to_another_thread_ends_the_program() -> None:
    """The kernel may give a process's signal to any thread; the main thread is woken all the same."""
    ends("elsewhere", "coord")


def test_a_plain_handler_misses_sigterm_that_went_to_another_thread() -> None:
    """The negative control: the main thread goes on sleeping."""
    hangs("elsewhere", "plain")


def test_sigterm_in_a_finalizer_ends_the_program() -> None:
    """What SIGTERM raises in `__del__`, Python drops; it is raised again outside."""
    ends("finalizer", "coord")


def test_without_raising_again_a_finalizer_eats_sigterm() -> None:
    """The negative control: the same, with Python's own hook."""
    hangs("finalizer", "drops")


def test_asyncio_may_take_the_wakeup_fd(library: str) -> None:
    """After a loop that had signal handlers has closed, and left no wakeup fd at all, it is taken back."""
    ends("after_asyncio", "coord", library)


def test_without_looking_the_wakeup_fd_stays_lost(library: str) -> None:
    """The negative control: nobody looks who has the wakeup fd, and SIGTERM is swallowed again."""
    hangs("after_asyncio", "blind", library)


def test_asyncio_still_hears_its_signals() -> None:
    """Taking the wakeup fd from a running loop takes nothing from the loop."""
    ends("in_asyncio", "coord")


def test_without_passing_on_asyncio_is_deaf() -> None:
    """The negative control: the loop sleeps on although its signal came."""
    hangs("in_asyncio", "rude")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "inherited"])
def test_children_of_multiprocessing_are_safe_too(method: str) -> None:
    """However a process was started, and whether it armed itself or was forked from one that had: SIGTERM ends it."""
    ends("relative", "coord", method)


def test_a_child_that_is_just_being_forked_hears_sigterm() -> None:
    """Signals that come while Python forks are neither dropped with the parent's notes nor lost in a fork hook."""
    with started("newborn", "coord", NEWBORN) as program:
        assert program.end(2 * WAIT_S).out == f"{NEWBORN}\n"


def test_a_plain_handler_misses_sigterm_during_a_fork() -> None:
    """The negative control: of children that are hit at once, hardly one notices."""
    with started("newborn", "plain", NEWBORN) as program:
        assert int(program.end(2 * WAIT_S).out) < int(NEWBORN)


@pytest.mark.parametrize("guard", ["coord", "inherited"])
@pytest.mark.timeout(120 + COUNT)
def test_one_sigterm_is_always_enough(guard: str) -> None:
    """Programs that block in all sorts of ways, each hit once at a random instant: none needs a second SIGTERM."""
    half = str((COUNT + 1) // 2)
    with started("many", guard, half, str(SEED)) as one, started("many", guard, half, str(SEED + 1)) as other:
        stops = [stop for program in (one, other) for stop in json.loads(program.end(WAIT_S + COUNT).out)]
    assert len(stops) >= COUNT
    assert [stop for stop in stops if not stop[1] or stop[3] != 143] == []
