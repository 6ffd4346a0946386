"""Programs that use a scope can be checked: it is typed, strictly."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness import WAIT_S

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import subprocess
from multiprocessing.process import BaseProcess
from workers import JobScope, JobStopped

def train(rank: int, *, steps: int) -> None: ...

def main() -> int:
    try:
        with JobScope("typed", local=True, grace_s=5) as scope:
            process: BaseProcess = scope.spawn(train, 0, steps=3, label="rank0")
            program: subprocess.Popen[bytes] = scope.popen(["true"], stdout=subprocess.PIPE)
            scope.adopt(subprocess.Popen(["true"]))
            done: bool = scope.join(timeout_s=10)
    except JobStopped as stopped:
        host: str = stopped.failure.host if stopped.failure else ""
        return stopped.exit_code
    return 0
"""


@pytest.mark.parametrize(
    ("more", "says"),
    [("", "Success"), ('scope: int = JobScope("x")', "Incompatible types"), ("JobScope(7)", "incompatible type")],
)
def test_a_users_program_is_checked(tmp_path: Path, more: str, says: str) -> None:
    """A right one passes mypy --strict; wrong ones, the negative controls, don't."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM + more)
    argv = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path), str(path)]
    ended = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=4 * WAIT_S, cwd=tmp_path)
    assert says in ended.stdout, ended.stdout
