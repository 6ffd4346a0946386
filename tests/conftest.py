"""Fixtures that all tests share: a private server, and a lab that cleans up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coord.ledger import Ledger
from tests.harness import Lab, private_server
from workers.prctl import stop_being_subreaper

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _orphans_are_nobodys() -> Iterator[None]:
    """A test that made its own process a subreaper is the only one that gets orphans."""
    yield
    stop_being_subreaper()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of an embedded server of these tests alone; it goes by itself after its last client."""
    with private_server() as url:
        yield url


@pytest.fixture
def ledger(server: str) -> Iterator[Ledger]:
    """A blocking connection to the record."""
    ledger = Ledger(server)
    yield ledger
    ledger.close()


@pytest.fixture
def lab(server: str, ledger: Ledger) -> Iterator[Lab]:
    """The real command on a real server. Whatever a test started must be gone when it ends."""
    folder = str(Path(server.removeprefix("unix://")).parent)
    lab = Lab({"COORD_REDIS_URL": server, "COORD_RUNTIME_DIR": folder}, ledger)
    yield lab
    left = lab.left_behind()
    lab.close()
    assert not left, f"the test left processes behind: {left}"


@pytest.fixture
def job(request: pytest.FixtureRequest) -> str:
    """A job id of this test alone: an id is never used twice."""
    return f"{request.node.name[:80]}-{id(request):x}".replace("{", "(").replace("}", ")")
