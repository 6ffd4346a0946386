"""Commands that the tests of the command line need more than once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import Lab, Started

DEAF = """trap '' TERM; touch "$0"; while :; do sleep 60; done"""


@pytest.fixture
def hold_out(lab: Lab, job: str, tmp_path: Path) -> Started:
    """A command of the job that takes no notice of SIGTERM, and has come so far that it doesn't."""
    ready = tmp_path / "ready"
    started = lab.run(job, "sh", "-c", DEAF, str(ready))
    until(ready.exists, "the command to be deaf")
    return started
