"""RQ's own side of a job: each test has a server of its own kind, whose RQ starts empty."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from coord.coordinator import Coordinator
from tests.record.servers import serving
from tests.rqjobs.yard import Yard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coord.ledger import Ledger

KINDS = ("valkey", "redis")  # RQ works on no cluster


@pytest.fixture(scope="session", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server of each kind."""
    with TemporaryDirectory(prefix="coord-") as folder, serving(request.param, Path(folder)) as url:
        yield url


@pytest.fixture
def yard(server: str, ledger: Ledger, job: str) -> Iterator[Yard]:
    """A job, a queue, and RQ with nothing in it."""
    with Coordinator(server) as coordinator:
        yard = Yard(server, ledger, coordinator, job)
        yield yard
        yard.redis.flushdb()
        yard.redis.close()
