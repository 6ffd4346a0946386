"""Every test of the record runs on every kind of server."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import HealthCheck, settings

from coord import ledger as ledger_module
from coord.ledger import script_text
from tests.record.desk import Desk
from tests.record.servers import KINDS, raw, serving
from tests.rings import ring

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from coord.ledger import Ledger


# A loaded machine is slow, and that is no defect: the bound on a test's time is pytest's.
settings.register_profile("coord", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("coord")


class Unguard(Protocol):
    """Takes a guard off the scripts."""

    def __call__(self, guard: str, instead: str = "", *, script: str) -> None:
        """Replace `guard` in the text of `script` (`*`: of each); it must stand there exactly once."""


@pytest.fixture(scope="session", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server of each kind."""
    with TemporaryDirectory(prefix="coord-") as folder, serving(request.param, Path(folder)) as url:
        yield url


@pytest.fixture
def raw_redis(server: str) -> Iterator[redis.Redis]:
    """A connection that knows nothing of coord."""
    with raw(server) as client:
        yield client


@pytest.fixture
def desk(ledger: Ledger, job: str, raw_redis: redis.Redis) -> Desk:
    """A job that nobody has joined yet."""
    return Desk(ledger, job, raw_redis)


@pytest.fixture
def sealed(desk: Desk) -> Desk:
    """A job whose hosts and operator have a secret."""
    return desk.holding(ring())


@pytest.fixture
def unguard(monkeypatch: pytest.MonkeyPatch) -> Unguard:
    """For negative controls: the same scenario with the guard off must be seen to go wrong."""
    changed: dict[str, str] = {}

    def loaded(name: str) -> tuple[str, str]:
        text = changed.get(name) or changed.get("*", "") + script_text(name).removeprefix(prelude)
        return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def take_off(guard: str, instead: str = "", *, script: str) -> None:
        text = prelude if script == "*" else script_text(script)
        assert text.count(guard) == 1, f"the guard does not stand once in {script}: {guard}"
        changed[script] = text.replace(guard, instead)
        monkeypatch.setattr(ledger_module, "_script", loaded)

    prelude = (Path(ledger_module.__file__).parent / "lua" / "prelude.lua").read_text()
    changed["*"] = prelude
    return take_off
