"""What RQ's workers run; on its own, since a worker imports it by name."""

from __future__ import annotations

import os
import subprocess

from tests.bench.onlooker import MARK
from tests.bench.program import sleeps


def run(count: int, mark: str) -> None:
    """Start the children in the work-horse's process group, which is what RQ kills, and wait."""
    argv = ("sleep", "1000") if count == 1 else sleeps(count)
    subprocess.run(argv, env={**os.environ, MARK: mark}, check=False)
