"""`coord jobs`, `agents` and `status` without a job: what a list shows when the record holds something strange."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from coord.keys import job_keys

if TYPE_CHECKING:
    from tests.harness import Lab


@pytest.mark.parametrize("command", ["jobs", "agents", "status"])
def test_broken_record_fails_no_list(lab: Lab, job: str, command: str) -> None:
    """Who lists jobs sees those that can be read, and is told on stderr which can't and why; the exit code is 0."""
    started = lab.run(job, "sleep", "60")
    with redis.Redis.from_url(lab.environment["COORD_REDIS_URL"]) as raw:
        lab.ledger.remember(f"{job}-broken")
        raw.hset(job_keys(f"{job}-broken")[0], "created_us", "yesterday")
        raw.expire(job_keys(f"{job}-broken")[0], 100)
    for ended in (lab.call(command), lab.call(command, "--json")):
        assert ended.code == 0
        assert job in ended.out
        (said,) = [line for line in ended.said if "there may be more" not in line]  # other tests have jobs here, too
        assert said.startswith(f"coord: job {job}-broken is broken: ")
        assert "yesterday" in said
    if command != "agents":
        assert [each["state"] for each in ended.json["jobs"][:2]] == ["broken", "running"]
        assert f"{job}-broken" in lab.call(command).out
    assert lab.call("status", "--job-id", f"{job}-broken").code == 1
    lab.call("shutdown", "--job-id", job)
    started.end()
    with redis.Redis.from_url(lab.environment["COORD_REDIS_URL"]) as raw:
        raw.delete(job_keys(f"{job}-broken")[0])


def test_list_says_that_there_is_more(lab: Lab, job: str) -> None:
    """A list that ends where its page ends does not look like the whole."""
    for number in range(3):
        lab.call("shutdown", "--fence", "--job-id", f"{job}-{number}")
    ended = lab.call("jobs", "--count", "2", "--json")
    assert [each["job_id"] for each in ended.json["jobs"]] == [f"{job}-2", f"{job}-1"]
    assert ended.said == ["coord: there may be more: --first 2"]
    assert lab.call("jobs", "--count", "2", "--first", "2", "--json").json["jobs"][0]["job_id"] == f"{job}-0"
