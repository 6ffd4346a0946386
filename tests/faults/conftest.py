"""A server of its own for each test: what is done to it is done to all who use it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.faults.stage import stage_on
from tests.outage import FORGETFUL, Outage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.faults.stage import Stage


@pytest.fixture
def kind() -> str:
    """The server that most tests run on; parametrized by those that run on Debian's Redis, too."""
    return "valkey"


@pytest.fixture
def config() -> Mapping[str, str]:
    """What it is told at its start; parametrized by those that want it to keep something."""
    return FORGETFUL


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder that sockets can be in: their paths must be short."""
    with TemporaryDirectory(prefix="coord-faults-") as folder:
        yield Path(folder)


@pytest.fixture
def outage(kind: str, config: Mapping[str, str], short_path: Path) -> Iterator[Outage]:
    """A server that can be taken away."""
    outage = Outage(short_path, kind, config)
    try:
        outage.start()
        yield outage
    finally:
        outage.close()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Keep a figure: one JSON line in the file that COORD_TEST_FIGURES names, if it names one."""

    def write(name: str, value: object) -> None:
        if path := os.environ.get("COORD_TEST_FIGURES"):
            with Path(path).open("a") as file:
                file.write(json.dumps([request.node.name, name, value]) + "\n")

    return write


@pytest.fixture
def stage(outage: Outage, job: str, tmp_path: Path, tell: Callable[[str, object], None]) -> Iterator[Stage]:
    """A job on that server. Whatever a test started must be gone when it ends."""
    with TemporaryDirectory(prefix="coord-run-") as runtime:
        stage, ledger = stage_on(outage, job, tmp_path, Path(runtime), tell)
        try:
            yield stage
            left = stage.lab.left_behind()
        finally:
            stage.lab.close()
            stage.close()
            ledger.close()
        assert not left, f"the test left processes behind: {left}"
