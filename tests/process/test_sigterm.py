"""What SIGTERM does in a program that uses `coord.child`: it raises or calls, once, and in the main thread."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from coord import sigterm
from coord.child import stop
from tests.harness import WAIT_S, until
from tests.script import outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


def test_finally_and_atexit_run() -> None:
    """`raises_exit` ends a program in order: from the inside out, then atexit, then exit code 143."""
    script = """
stop.raises_exit()
atexit.register(say, "atexit")
try:
    term()
    say("not reached")
finally:
    say("finally")
"""
    assert outcome(script) == (["finally", "atexit"], 143)


ENDS = """
import concurrent.futures

def goodbye():
    say("atexit begins")
    time.sleep(0.2)
    say("atexit ends")

atexit.register(goodbye)
never = threading.Event()
stop.raises_exit()
"""
WAITS = {
    "a thread": "threading.Thread(target=never.wait, args=(300,)).start()",
    "a pool": "concurrent.futures.ThreadPoolExecutor(1).submit(never.wait, 300)",
}
AT_THE_END = "threading.Timer(0.3, signal.raise_signal, (signal.SIGTERM,)).start(); say('at the end')"


@pytest.mark.parametrize("waits", WAITS)
def test_a_program_that_only_waits_for_its_threads_ends(waits: str) -> None:
    """After the main thread's last line SIGTERM still ends the program, and cuts off no atexit callback."""
    lines, code = outcome("\n".join((ENDS, WAITS[waits], AT_THE_END)))
    assert (lines, code) == (["at the end", "atexit begins", "atexit ends"], 0)


def test_without_knowing_the_end_atexit_is_cut_off() -> None:
    """The negative control: what was raised at the end is raised again, and hits an atexit callback."""
    lines, _ = outcome("\n".join((ENDS, "sigterm.at_exit = lambda _: False", WAITS["a pool"], AT_THE_END)))
    assert lines == ["at the end", "atexit begins"]


# `threading` has just let go of a condition's lock, and not yet begun to wait: SIGTERM comes there for certain
UNLOCKED = """
import _thread
lock = threading.Lock()
condition = threading.Condition(lock)
names = {"release": lock.release, "note": _thread.interrupt_main}
exec("def release_save(release=release, note=note): release(); note(15)", vars(threading), names)
condition._release_save = names["release_save"]
stop.raises_exit()
try:
    with condition:
        condition.wait(60)
except RuntimeError as error:
    say(error)
"""


def test_it_is_not_raised_where_threading_handles_its_locks() -> None:
    """A program that waits for a queue and logs what goes wrong with an item leaves all the same."""
    assert outcome(UNLOCKED) == ([], 143)


def test_raised_there_it_becomes_another_error() -> None:
    """The negative control: SystemExit turns into a RuntimeError about a lock, which programs catch."""
    assert outcome("sigterm.Leave._moves_on = lambda *_: False\n" + UNLOCKED) == (["release unlocked lock"], 0)


def test_a_callback_is_called_and_nothing_is_raised() -> None:
    """`on_request` calls once for each SIGTERM, however often the main thread was nudged; the program goes on."""
    script = """
reads, writes = os.pipe()
calls = []

def callback():
    calls.append(threading.current_thread() is threading.main_thread())
    os.write(writes, b"x")

stop.on_request(callback)
from_outside()
os.read(reads, 1)
time.sleep(0.2)
say(calls)
"""
    assert outcome(script) == (["[True]"], 0)


def test_the_last_word_counts() -> None:
    """`on_request` replaces `raises_exit`, and the other way round; saying it twice changes nothing."""
    script = """
stop.raises_exit()
stop.on_request(lambda: say("called"))
term()
stop.raises_exit()
stop.raises_exit()
term()
"""
    assert outcome(script) == (["called"], 143)


def test_a_forked_child_has_a_bell_of_its_own_and_nothing_else() -> None:
    """Through generations, no pipe of the parent's and no thread is left over; nor is SIGTERM still blocked."""
    script = """
def have():
    return [len(os.listdir(f"/proc/self/{each}")) for each in ("fd", "task")], signal.pthread_sigmask(0, ())

stop.raises_exit()
first = have()
for generation in range(5):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        break
    if have() != first:
        say(f"{generation}: {have()}, not {first}")
say("done")
"""
    assert outcome(script) == (["done"] * 6, 0)


CLOSED_FIRST = "os.closerange(3, 100); assert os.pipe() == ours"
PUT_OVER = "[os.dup2(mine, number) for mine, number in zip(os.pipe(), ours)]"


def closes(wait_s: float, guard: str = "", reopen: str = CLOSED_FIRST) -> str:
    """Give a program that closes all files, opens its own under our numbers, and says whether they were left alone."""
    return f"""
import select
sigterm.LOOK_MS = 50
{guard}
stop.raises_exit()
ours = sigterm.bell._ends
{reopen}
os.write(ours[1], b"data")
end_s = time.monotonic() + {wait_s}
while select.select([ours[0]], [], [], 0)[0] and time.monotonic() < end_s:
    time.sleep(0.01)
say(os.read(ours[0], 100) if select.select([ours[0]], [], [], 0)[0] else "stolen")
stop.raises_exit()
from_outside()
time.sleep(60)
"""


def test_a_program_may_close_all_files() -> None:
    """What a daemon opens under the numbers of our pipe is neither read nor written; saying it again arms again."""
    assert outcome(closes(0.5)) == (["b'data'"], 143)


def test_without_looking_whose_it_is_a_file_is_stolen_from() -> None:
    """The negative control: whoever has the number now loses what was written to it.

    The files are put over ours, since the thread would end at a number that nobody has, however short.
    """
    program = closes(WAIT_S / 2, "sigterm.Bell._whole = lambda _: True", PUT_OVER)
    lines, _ = outcome(program.partition("stop.raises_exit()\nfrom")[0])
    assert lines == ["stolen"]


@pytest.mark.parametrize("call", [stop.raises_exit, stop.deferred, lambda: stop.on_request(print)])
def test_other_threads_are_refused(call: Callable[[], object]) -> None:
    """Outside of the main thread, Python neither sets nor runs handlers: said at once, not found out at the stop."""
    told: list[str] = []

    def elsewhere() -> None:
        try:
            call()
        except RuntimeError as refusal:
            told.append(str(refusal))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert told
    assert "works in the main thread only" in told[0]


@pytest.fixture
def waits() -> Iterator[FrameType]:
    """Give a frame of `threading` in which a thread waits."""
    condition = threading.Condition()

    def wait() -> None:
        with condition:
            condition.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: inside_threading(thread), "the thread to wait")
    yield sys._current_frames()[thread.ident or 0]
    with condition:
        condition.notify()
    thread.join()


def inside_threading(thread: threading.Thread) -> bool:
    return sys._current_frames()[thread.ident or 0].f_code.co_name == "wait"


@pytest.mark.parametrize("guarded", [True, False])
def test_a_second_note_during_the_first_cuts_nothing_off(
    waits: FrameType, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """What the handler would have raised within itself would come out where it put that off. Unguarded, it does."""
    leave = sigterm.Leave()
    again: list[bool] = []

    def noted_at_once() -> bool:
        if not again:
            again.append(True)
            leave(sigterm.TERM, sys._getframe(1))  # Python runs a handler wherever the main thread is, here in itself
        return True

    monkeypatch.setattr(sigterm.bell, "again", noted_at_once)
    if not guarded:
        monkeypatch.setattr(sigterm, "OURS", set())
    with contextlib.nullcontext() if guarded else pytest.raises(SystemExit):
        leave(sigterm.TERM, waits)
    assert again
