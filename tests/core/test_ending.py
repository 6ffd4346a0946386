"""What `coord run` says at its end, and with which code: every way of ending, without a process."""

from __future__ import annotations

import signal

import pytest

from coord.messages import Cause, Outcome, ShutdownRequest
from coord.plan import Plan
from workers.ending import Ending
from workers.events import Found
from workers.state import Phase, Process, State

KEY = (4242, 1)
REQUEST = ShutdownRequest("r", "j", Cause.OPERATOR, "ada@desk", "new release", Plan.of())


def ending(
    outcome: Outcome | None, exit_code: int | None = None, died_of: str | None = None, **known: object
) -> tuple[int, str]:
    """Give code and text of the end of a command that ended so."""
    process = Process(Found(KEY, "rank0", "work", child=True), outcome or Outcome.RUNNING, exit_code, died_of, 0.0011)
    state = State(Plan.of(), Phase.OVER, proved=True, processes={KEY: process} if outcome else {})
    facts = {"request": None, "drained_by": None, "stop_on_failure": True, "told": True, **known}
    made = Ending(
        job_id="j",
        label="rank0",
        state=state,
        signal_number=lambda name: signal.Signals[name].value,
        **facts,  # type: ignore[arg-type]
    )
    return made.code(), "\n".join(made.lines())


@pytest.mark.parametrize(
    ("outcome", "exit_code", "died_of", "known", "code", "text"),
    [
        (Outcome.EXITED, 0, None, {}, 0, ""),
        (Outcome.EXITED, 7, None, {}, 7, "rank0 exited with code 7; job j is stopped on all hosts"),
        (Outcome.EXITED, 7, None, {"stop_on_failure": False}, 7, ""),
        (Outcome.EXITED, None, "SIGSEGV", {}, 139, "rank0 was killed by SIGSEGV; job j is stopped on all hosts"),
        (
            Outcome.TERMINATED,
            0,
            None,
            {"request": REQUEST},
            143,
            "job j was shut down by ada@desk: new release; rank0 left when asked, after 1.1 ms",
        ),
        (
            Outcome.KILLED,
            None,
            "SIGKILL",
            {"request": REQUEST},
            137,
            "job j was shut down by ada@desk: new release; rank0 had to be killed, after 1.1 ms",
        ),
        (
            Outcome.TERMINATED,
            None,
            "SIGTERM",
            {"drained_by": "SIGHUP", "stop_on_failure": False},
            143,
            "SIGHUP received; rank0 left when asked, after 1.1 ms",
        ),
        (
            None,
            None,
            None,
            {"request": REQUEST},
            143,
            "job j was shut down by ada@desk: new release; rank0 was not started",
        ),
    ],
)
def test_code_and_words(  # a row of a table
    outcome: Outcome | None, exit_code: int | None, died_of: str | None, known: dict[str, object], code: int, text: str
) -> None:
    """The code is the command's own, or 143, or 137; one line says why, where there is something to say."""
    assert ending(outcome, exit_code, died_of, **known) == (code, text)


def test_it_does_not_claim_what_the_record_was_not_told() -> None:
    """When Redis could not be told of a failure, nobody says that the other hosts are stopped."""
    code, text = ending(Outcome.EXITED, 7, told=False)
    assert code == 7
    assert "is stopped on all hosts" not in text
    assert "other hosts may still run" in text


def test_a_survivor_is_named_and_not_called_killed() -> None:
    """A process that outlived SIGKILL is said to be still there."""
    code, text = ending(Outcome.SURVIVED, request=REQUEST)
    assert code == 137
    assert "process 4242 (work) survived SIGKILL and is still there" in text
    assert "had to be killed" not in text
