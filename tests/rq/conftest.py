"""A fleet of a server of its own for each test: what RQ knows of workers and queues is one for all of a server."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import redis

from coord.ledger import Ledger
from tests.harness import Lab
from tests.record.servers import raw, serving
from tests.rq.fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def kind_of_server() -> str:
    """The server that most tests run on; parametrized by those that run on Debian's Redis, too."""
    return "valkey"


@pytest.fixture
def rq_url(kind_of_server: str) -> Iterator[str]:
    """The URL of a server of this test alone."""
    with TemporaryDirectory(prefix="coord-rq-") as folder, serving(kind_of_server, Path(folder)) as url:
        yield url


@pytest.fixture
def fleet(rq_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """Hosts on that server. Whatever a test started must be gone when it ends."""
    with TemporaryDirectory(prefix="coord-run-") as runtime, raw(rq_url) as connection:
        ledger = Ledger(rq_url)
        lab = Lab({"COORD_REDIS_URL": rq_url, "COORD_RUNTIME_DIR": runtime}, ledger)
        fleet = Fleet(lab, rq_url, connection, redis.Redis.from_url(rq_url), tmp_path)
        try:
            yield fleet
            left = fleet.left()
        finally:
            fleet.close()
            fleet.rq.close()
            lab.close()
            ledger.close()
        assert not left, f"the test left processes behind: {left}"
