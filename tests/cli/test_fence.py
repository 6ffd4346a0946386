"""Jobs that nobody knows, and jobs that may not start any more: exit codes 3 and 7."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coord.errors import NO_SUCH_JOB, REFUSED
from coord.keys import JOBS_INDEX, job_keys
from tests.cli.words import complaint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import Lab

UNKNOWN = (
    ("shutdown", "--job-id", "JOB"),
    ("shutdown", "--job-id", "JOB", "--now", "--reason", "typing error"),
    ("shutdown", "--job-id", "JOB", "--no-wait", "--json"),
    ("shutdown", "--job-id", "JOB", "--dry-run"),
    ("shutdown", "--job-id", "JOB", "--dry-run", "--fence"),
    ("status", "--job-id", "JOB"),
    ("status", "--job-id", "JOB", "--json"),
    ("agents", "--job-id", "JOB"),
)


@pytest.mark.parametrize("args", UNKNOWN, ids=" ".join)
def test_unknown_job(lab: Lab, job: str, args: tuple[str, ...]) -> None:
    """A job that nobody ever joined is 3, named, and writes no key: a typing error must not look like success."""
    line = complaint(lab.call(*(job if word == "JOB" else word for word in args)), NO_SUCH_JOB)
    assert job in line
    assert "nothing was changed" in line
    assert lab.ledger._redis.exists(*job_keys(job)) == 0
    assert lab.ledger._redis.zscore(JOBS_INDEX, job) is None


def test_job_that_was_shut_down_starts_nothing(lab: Lab, job: str, tmp_path: Path) -> None:
    """A second `coord run` of a job that was shut down is 7; it names who, when and why, and starts nothing."""
    lab.call("run", "--job-id", job, "--", "true")
    asked = lab.call("shutdown", "--job-id", job, "--reason", "wrong data", "--json").json["request"]
    line = complaint(lab.call("run", "--job-id", job, "--", "touch", str(tmp_path / "started")), REFUSED)
    for fact in (job, asked["by"], asked["requested_at"], "wrong data"):
        assert fact in line
    assert not (tmp_path / "started").exists()


def test_control_another_job_starts(lab: Lab, job: str, tmp_path: Path) -> None:
    """Negative control: the same command under another job id does start, so its file would have been seen."""
    assert lab.call("run", "--job-id", job, "--", "touch", str(tmp_path / "started")).code == 0
    assert (tmp_path / "started").exists()


def test_job_that_failed_starts_nothing(lab: Lab, job: str, tmp_path: Path) -> None:
    """A job that was stopped by a failure may not start again either: the host that comes late is refused."""
    assert lab.call("run", "--job-id", job, "--", "false").code == 1
    line = complaint(lab.call("run", "--job-id", job, "--", "touch", str(tmp_path / "started")), REFUSED)
    assert "exited with code 1" in line
    assert not (tmp_path / "started").exists()


def test_job_that_was_forbidden_in_advance_starts_nothing(lab: Lab, job: str, tmp_path: Path) -> None:
    """`shutdown --fence` on a job that nobody has started yet succeeds at once, and forbids it."""
    fenced = lab.call("shutdown", "--job-id", job, "--fence")
    assert fenced.code == 0, fenced.err
    complaint(lab.call("run", "--job-id", job, "--", "touch", str(tmp_path / "started")), REFUSED)
    assert not (tmp_path / "started").exists()


def test_job_that_ended_well_may_run_again(lab: Lab, job: str) -> None:
    """A job that nobody shut down is not fenced: its id may be used for the next command."""
    assert [lab.call("run", "--job-id", job, "--", "true").code for _ in range(2)] == [0, 0]


def test_failure_that_is_ignored_fences_nothing(lab: Lab, job: str) -> None:
    """With `--on-failure ignore` a failed command stops nobody, so the job may go on."""
    assert lab.call("run", "--job-id", job, "--on-failure", "ignore", "--", "false").code == 1
    assert lab.call("run", "--job-id", job, "--", "true").code == 0


def test_dry_run_changes_nothing(lab: Lab, job: str) -> None:
    """`--dry-run` shows the job and leaves it as it is: it may still start."""
    lab.call("run", "--job-id", job, "--", "true")
    before = lab.status(job)
    ended = lab.call("shutdown", "--job-id", job, "--dry-run", "--json")
    assert (ended.code, ended.json) == (0, before)
    assert ended.said == ["coord: dry run: nothing was changed"]
    assert lab.call("run", "--job-id", job, "--", "true").code == 0


def test_shutdown_twice_is_one_shutdown(lab: Lab, job: str) -> None:
    """Stopping what is stopped succeeds again, and names the first request."""
    lab.call("run", "--job-id", job, "--", "true")
    first = lab.call("shutdown", "--job-id", job, "--json")
    second = lab.call("shutdown", "--job-id", job, "--json")
    assert (first.code, second.code) == (0, 0)
    assert first.json["request"]["id"] == second.json["request"]["id"]
    assert "already requested" in second.err
