"""The Procfile, started as a platform starts it: what it runs joins its job, and leaves when the platform says so."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness import until

if TYPE_CHECKING:
    from tests.harness import Lab

ROOT = Path(__file__).parent.parent.parent
HONCHO = str(Path(sys.executable).with_name("honcho"))


def test_a_platform_starts_and_stops_the_worker(lab: Lab, job: str, tmp_path: Path) -> None:
    """SIGTERM to the process manager ends the worker in order and leaves the job unfenced: it may be started again."""
    start = ("start", "--app-root", str(ROOT), "--procfile", str(ROOT / "Procfile"))
    for _ in range(2):
        manager = lab.start(*start, program=HONCHO, COORD_JOB_ID=job, OUT=str(tmp_path), HASHES="4096")
        until(lambda: any("rank.py" in command for command in lab.left().values()), "the worker")
        until(lambda: (lab.status(job) or {"state": ""})["state"] == "running", "it to join the job")
        manager.signal(signal.SIGTERM)
        assert manager.end().code == 143
        assert lab.left() == {}
        assert (lab.status(job)["state"], lab.status(job)["request"]) == ("stopped", None)


def test_a_job_that_was_shut_down_is_not_started_again(lab: Lab, job: str, tmp_path: Path) -> None:
    """After `coord shutdown`, the platform's next start is refused with the documented code."""
    lab.call("shutdown", "--job-id", job, "--fence")
    ended = lab.call("start", "--app-root", str(ROOT), program=HONCHO, COORD_JOB_ID=job, OUT=str(tmp_path), HASHES="16")
    assert ended.code == 7
