"""Fixtures: servers that belong together, and labs whose commands keep their record there."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

import pytest

from coord.ledger import Ledger
from tests.harness import Lab
from tests.record.servers import REDIS
from tests.topology.servers import Cluster, Park, Watched, cluster, park, watched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class LabAt(Protocol):
    """Gives a lab at a URL."""

    def __call__(self, url: str) -> AbstractContextManager[Lab]:
        """All commands of the lab get the URL."""


@pytest.fixture
def kind() -> str:
    """The servers that most tests run on; parametrized by those that run on Valkey, too."""
    return REDIS


@pytest.fixture
def servers(kind: str) -> Iterator[Park]:
    """A place for servers of one test, in which they may die."""
    with TemporaryDirectory(prefix="coord-") as folder, park(Path(folder), kind) as place:
        yield place


@pytest.fixture(scope="module")
def lasting() -> Iterator[Park]:
    """A place for servers of one file's tests, in which they may not."""
    with TemporaryDirectory(prefix="coord-") as folder, park(Path(folder)) as place:
        yield place


@pytest.fixture(scope="module")
def service(lasting: Park) -> Watched:
    """A service under sentinels that nothing happens to."""
    return watched(lasting)


@pytest.fixture(scope="module")
def six(lasting: Park) -> Cluster:
    """A Cluster that nothing happens to."""
    return cluster(lasting)


@pytest.fixture
def lab_at() -> LabAt:
    """Labs at any URL; what their commands started must be gone when the test ends."""

    @contextmanager
    def at(url: str) -> Iterator[Lab]:
        ledger = Ledger(url)
        with TemporaryDirectory(prefix="coord-") as folder:
            lab = Lab({"COORD_REDIS_URL": url, "COORD_RUNTIME_DIR": folder}, ledger)
            try:
                yield lab
                left = lab.left()
            finally:
                lab.close()
                ledger.close()
            assert not left, f"the test left processes behind: {left}"

    return at
