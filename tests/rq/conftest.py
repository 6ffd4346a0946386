"""A fleet of a server of its own for each test: what RQ knows of workers and queues is one for all of a server."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import redis

from coord.ledger import Ledger
from tests.harness import Lab
from tests.outage import Outage
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
    with fleet_on(rq_url, tmp_path) as fleet:
        yield fleet


@pytest.fixture
def outage() -> Iterator[Outage]:
    """A server that can be taken away."""
    with TemporaryDirectory(prefix="coord-rq-") as folder:
        outage = Outage(Path(folder))
        outage.start()
        yield outage
        outage.close()


@pytest.fixture
def shaky(outage: Outage, tmp_path: Path) -> Iterator[Fleet]:
    """Hosts on that one."""
    with fleet_on(outage.url, tmp_path) as fleet:
        yield fleet


@contextmanager
def fleet_on(url: str, folder: Path) -> Iterator[Fleet]:
    """Give a fleet; fails when it leaves a process."""
    with TemporaryDirectory(prefix="coord-run-") as runtime, raw(url) as connection:
        ledger = Ledger(url)
        lab = Lab({"COORD_REDIS_URL": url, "COORD_RUNTIME_DIR": runtime}, ledger)
        fleet = Fleet(lab, url, connection, redis.Redis.from_url(url), folder)
        try:
            yield fleet
            left = fleet.lab.left_behind()
        finally:
            fleet.close()
            fleet.rq.close()
            lab.close()
            ledger.close()
        assert not left, f"the test left processes behind: {left}"
