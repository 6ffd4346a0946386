"""A Python program in a fleet with a secret: it signs what it says, and its ranks do not find the secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rings import OURS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness import Lab
    from tests.scope.conftest import Program


@pytest.mark.parametrize("given", ["argument", "variable"])
def test_a_program_of_a_fleet_with_a_secret(
    program: Callable[..., Program], lab: Lab, job: str, tmp_path: Path, given: str
) -> None:
    """A rank that fails stops the program on the other host; the verdict is clean to who has the secret."""
    path = tmp_path / "secret"
    path.write_text(f"{OURS}\n")
    path.chmod(0o600)
    if given == "variable":
        lab.environment["COORD_SECRET"] = OURS
    scope = {"job_id": job, "grace_s": 1, **({"secret_file": str(path)} if given == "argument" else {})}
    other = program("blocked", host="b", where="join", scope=scope, ranks=[["sleeper"], ["sleeper"]])
    other.until("blocked")
    failing = program("ranks", host="a", scope=scope, ranks=[["sleeper"], ["failing", 1]])
    assert [run.ended["error"] for run in (failing, other)] == ["JobStopped", "JobStopped"]
    assert [run.end().code for run in (failing, other)] == [0, 0]
    ended = lab.call("shutdown", "--job-id", job, "--json", "--secret-file", str(path))
    assert (ended.code, ended.json["verdict"], ended.json["request"]["cause"]) == (0, "clean", "failure")
