"""Words that are off: exit code 2, one line that says what is wrong, and nothing done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coord.errors import USAGE
from coord.keys import job_keys
from tests.cli.words import complaint

if TYPE_CHECKING:
    from tests.harness import Lab

# command line, and a part of the line that a person must be told
BAD_JOB_IDS = [
    ("", "empty"),
    ("x" * 129, "129 characters"),
    ("a\nb", "can't be printed"),
    ("a\x1b[31mb", "can't be printed"),
    ("a\u202eb", "can't be printed"),
    ("a\udcffb", "can't be printed"),
    (" a", "spaces"),
    ("a ", "spaces"),
    (" ", "spaces"),
    ("a{b", "brace"),
    ("a}b", "brace"),
    ("{a}", "brace"),
]
BAD_DURATIONS = [
    "",
    " ",
    "x",
    "10x",
    "-1",
    "+1",
    "1s1m",
    "1m1m",
    "1,5",
    "inf",
    "nan",
    "1e3",
    "0x10",
    "10 s",
    "8d",
    "9" * 400,
]
BAD_CALLS = [
    (("shutdown", "--job-id", "J", "--now", "--grace", "1s"), "--now"),
    (("shutdown", "--job-id", "J", "--kill-wait", "0"), "SIGKILL"),
    (("run", "--job-id", "J", "--kill-wait", "50ms", "--", "true"), "SIGKILL"),
    (("shutdown", "--job-id", "J", "--timeout", "soon"), "--timeout"),
    (("shutdown", "--job-id", "J", "--retain", "59s"), "--retain"),
    (("shutdown", "--job-id", "J", "--retain", "1y"), "--retain"),
    (("shutdown", "--job-id"), "--job-id"),
    (("shutdown",), "--job-id"),
    (("shutdown", "--job-id", "J", "--fast"), "--fast"),
    (("shutdown", "--job-id", "J", "now"), "now"),
    (("shutdown", "J"), "--job-id"),
    (("run", "--job-id", "J"), "COMMAND"),
    (("run", "--job-id", "J", "--"), "COMMAND"),
    (("run", "true"), "--job-id"),
    (("run", "--job-id", "J", "--label", "x" * 65, "--", "true"), "--label"),
    (("run", "--job-id", "J", "--label", "a\nb", "--", "true"), "--label"),
    (("run", "--job-id", "J", "--label", "a\x1bb", "--", "true"), "--label"),
    (("run", "--job-id", "J", "--on-failure", "panic", "--", "true"), "panic"),
    (("run", "--job-id", "J", "--host", "", "--", "true"), "--host"),
    (("run", "--job-id", "J", "--host", "a b", "--", "true"), "--host"),
    (("run", "--job-id", "J", "--host", "x" * 65, "--", "true"), "--host"),
    (("run", "--job-id", "J", "--log-level", "loud", "--", "true"), "loud"),
    (("doctor", "--containment", "hope"), "hope"),
    (("jobs", "--count", "0"), "--count"),
    (("jobs", "--count", "many"), "--count"),
    (("jobs", "--first", "-1"), "--first"),
    (("jobs", "all"), "all"),
    (("stop", "--job-id", "J"), "stop"),
    (("",), "command"),
    (("--no-such-option",), "--no-such-option"),
]


@pytest.mark.parametrize(("job_id", "says"), BAD_JOB_IDS, ids=repr)
def test_bad_job_ids(lab: Lab, job_id: str, says: str) -> None:
    """A job id that can't name a job is refused before Redis is asked, and the line names the option and the reason."""
    line = complaint(lab.call("shutdown", "--job-id", job_id, COORD_REDIS_URL="unix:///nowhere"), USAGE)
    assert "--job-id" in line
    assert says in line


@pytest.mark.parametrize(
    "command", [("run", "--job-id", "a{b", "--", "true"), ("status", "--job-id", "a{b"), ("agents",)]
)
def test_bad_job_ids_everywhere(lab: Lab, command: tuple[str, ...]) -> None:
    """Each command that takes a job refuses a bad name, also when it comes from the environment."""
    assert "brace" in complaint(lab.call(*command, COORD_JOB_ID="a{b"), USAGE)


@pytest.mark.parametrize("duration", BAD_DURATIONS)
def test_bad_durations(lab: Lab, duration: str) -> None:
    """What is no duration is refused, and the line names the option."""
    line = complaint(lab.call("shutdown", "--job-id", "J", f"--grace={duration}"), USAGE)
    assert "--grace" in line


def test_bad_duration_in_the_environment(lab: Lab) -> None:
    """A bad value in the environment is refused as one on the command line is, and the line names the option."""
    assert "--grace" in complaint(lab.call("shutdown", "--job-id", "J", COORD_GRACE="soon"), USAGE)


@pytest.mark.parametrize(
    ("args", "says"), BAD_CALLS, ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else ""
)
def test_bad_calls(lab: Lab, args: tuple[str, ...], says: str) -> None:
    """A call whose words are off ends with one line that says which word, and with nothing done."""
    assert says in complaint(lab.call(*args), USAGE)


def test_nothing_is_written_by_a_bad_call(lab: Lab, job: str) -> None:
    """A bad call leaves the record as it was, also when only its last word was off."""
    lab.call("run", "--job-id", job, "--label", "x" * 65, "--", "true")
    lab.call("shutdown", "--job-id", job, "--fence", "--now", "--grace", "1s")
    assert lab.status(job) is None
    assert job not in lab.call("jobs").out


@pytest.mark.parametrize("grace", ["0", "0s", "0ms"])
def test_now_may_say_no_grace(lab: Lab, job: str, grace: str) -> None:
    """`--now --grace 0` says one thing twice, and is no contradiction."""
    ended = lab.call("shutdown", "--job-id", job, "--fence", "--now", "--grace", grace)
    assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    "reason", ["a\nb", "a\x1b[2Jb", "a\udcffb", "x" * 100_000, "\u202egnp"], ids=lambda text: repr(text)[:20]
)
def test_any_reason_is_told_in_one_line(lab: Lab, job: str, reason: str) -> None:
    """Whatever stands in a reason, who is told of it reads one line: it moves no cursor and forges no line."""
    lab.call("run", "--job-id", job, "--", "true")
    first = lab.call("shutdown", "--job-id", job, "--reason", reason)
    again = lab.call("shutdown", "--job-id", job)
    assert (first.code, again.code) == (0, 0), first.err + again.err
    told = [line for line in again.err.splitlines() if "already requested" in line]
    assert len(told) == len(again.said) == 1
    for text in (*first.err.splitlines(), *again.err.splitlines(), *again.out.splitlines()):
        assert text.isprintable()
        assert len(text) < 1000
    complaint(lab.call("run", "--job-id", job, "--", "true"), 7)


def test_help_without_a_word(lab: Lab) -> None:
    """`coord` alone shows what there is, in lines that a person can read."""
    ended = lab.call()
    shown = ended.out + ended.err
    assert ended.code in {0, USAGE}
    for command in ("run", "shutdown", "status", "jobs", "agents", "doctor"):
        assert any(line.split()[:1] == [command] for line in shown.splitlines())
    assert max(len(line) for line in shown.splitlines()) <= 120


@pytest.mark.parametrize("command", ["", "run", "shutdown", "status", "jobs", "agents", "doctor"])
def test_help_is_readable(lab: Lab, command: str) -> None:
    """Each command explains itself on stdout, without asking Redis, and ends well."""
    ended = lab.call(*command.split(), "--help", COORD_REDIS_URL="unix:///nowhere")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("Usage: coord")
    assert max(len(line) for line in ended.out.splitlines()) <= 120


def test_bad_calls_make_no_key(lab: Lab) -> None:
    """The job that all the bad calls above were about is still unknown."""
    assert lab.status("J") is None
    assert lab.ledger._redis.exists(*job_keys("J")) == 0
