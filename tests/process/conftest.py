"""What tests of belongings share: real processes that have something, and names that nobody else uses."""

from __future__ import annotations

import ctypes
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.holding import start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.process.holding import Holder

SHM = Path("/dev/shm")  # noqa: S108


@pytest.fixture
def hold() -> Iterator[Callable[..., Holder]]:
    """Start one of the holders: `hold(program, argument)`. All of them are gone when the test ends."""
    started: list[Holder] = []

    def remember(program: str, argument: object = "") -> Holder:
        started.append(start(program, argument))
        return started[-1]

    yield remember
    for holder in started:
        holder.close()


@pytest.fixture
def shm() -> Iterator[Path]:
    """A path in /dev/shm of this test alone."""
    path = SHM / f"coord-test-{secrets.token_hex(6)}"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def semaphore() -> Iterator[str]:
    """The name of a semaphore of this test alone."""
    name = f"coord-test-{secrets.token_hex(6)}"
    yield name
    (SHM / f"sem.{name}").unlink(missing_ok=True)


@pytest.fixture
def forget_segment() -> Iterator[Callable[[str], None]]:
    """Tell a System V segment that must go when the test ends."""
    found: list[int] = []
    yield lambda shmid: found.append(int(shmid))
    for shmid in found:
        ctypes.CDLL(None).shmctl(shmid, 0, None)
