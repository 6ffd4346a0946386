"""`stop.deferred()`: a block that SIGTERM waits for, and what it does afterwards."""

from __future__ import annotations

import signal

import pytest

from coord import sigterm
from coord.child import stop
from tests.harness import WAIT_S
from tests.script import outcome


def test_deferred_blocks_may_be_nested() -> None:
    """SIGTERM in an inner block waits for the end of the outermost one, and comes once."""
    script = """
stop.raises_exit()
try:
    with stop.deferred():
        with stop.deferred():
            term()
            say("inner")
        say("outer")
        term()
        say("still outer")
    say("not reached")
finally:
    say("finally")
"""
    assert outcome(script) == (["inner", "outer", "still outer", "finally"], 143)


def test_without_deferring_the_block_is_cut_off() -> None:
    """The negative control: the same SIGTERM, and the rest of the block is missing."""
    script = """
stop.raises_exit()
try:
    term()
    say("inner")
finally:
    say("finally")
"""
    assert outcome(script) == (["finally"], 143)


@pytest.mark.parametrize(
    ("before", "lines", "code"),
    [
        ("signal.SIG_DFL", [], -15),
        ("signal.SIG_IGN", ["after"], 0),
        ("lambda *_: say('handled')", ["handled", "after"], 0),
    ],
)
def test_deferred_gives_back_what_was_there(before: str, lines: list[str], code: int) -> None:
    """After the block, SIGTERM does what it did before: kill, nothing, or the program's own handler."""
    script = f"""
signal.signal(signal.SIGTERM, {before})
with stop.deferred():
    term()
    say("inside")
say("after")
"""
    assert outcome(script) == (["inside", *lines], code)


def test_an_exception_leaves_a_deferred_block_with_sigterm_behind_it() -> None:
    """A block that fails loses neither its error nor SIGTERM."""
    script = """
stop.raises_exit()
try:
    with stop.deferred():
        term()
        raise KeyError("checkpoint")
except SystemExit as left:
    say(f"{left.code} {left.__context__!r}")
"""
    assert outcome(script) == (["143 KeyError('checkpoint')"], 0)


def nudged(inside: str, wait_s: float) -> str:
    """Give a program that says whether it was nudged, within a time, while SIGTERM waited."""
    return f"""
nudges = []
signal.signal(signal.SIGURG, lambda *_: nudges.append(1))
sigterm.LOOK_MS = 600_000  # a look at the wakeup fd would be counted too
stop.raises_exit()
try:
    with stop.deferred():
        {inside}
        from_outside().join()
        end_s = time.monotonic() + {wait_s}
        while not nudges and time.monotonic() < end_s:
            time.sleep(0.01)
        count = len(nudges)
        sigterm.bell.muted = 1
finally:
    say(count > 0)
"""


def test_nobody_is_nudged_in_a_deferred_block() -> None:
    """System calls of a critical section are not interrupted for a signal that waits anyway."""
    assert outcome(nudged("", 0.5)) == (["False"], 143)


def test_without_muting_a_deferred_block_is_nudged() -> None:
    """The negative control: the bell rings, and a handler of SIGURG that was there before is still called."""
    assert outcome(nudged("sigterm.bell.muted = 0", WAIT_S / 2)) == (["True"], 143)


def test_an_interrupted_end_of_a_block_leaves_no_program_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C just when a deferred block ends: the handler of before is back all the same."""
    block, real, missed = stop.deferred(), sigterm.Deferred._restore, [True]

    def interrupted(self: sigterm.Deferred) -> None:
        if missed and missed.pop():
            raise KeyboardInterrupt
        real(self)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sigterm.Deferred, "_restore", interrupted)
    with pytest.raises(KeyboardInterrupt), block:
        pass
    assert signal.getsignal(signal.SIGTERM) == before
    assert sigterm.bell.muted == 0
