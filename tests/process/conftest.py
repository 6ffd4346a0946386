"""What tests with processes share: the two ways of keeping them together; bad days; processes that have something."""

from __future__ import annotations

import ctypes
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.days import Day
from tests.process.holding import start
from workers.cgroups import Cgroup, NoCgroupError, home, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness import Lab
    from tests.process.holding import Holder

MODES = ("cgroup", "subreaper")
SOURCES = Path(__file__).parent / "c"


def why_no_cgroup() -> str | None:
    """Say why this machine can't have a cgroup per child; None: it can."""
    try:
        trial = Cgroup.make(home(), f"coord-trial-{secrets.token_hex(4)}")
        usable(trial)
        trial.remove()
    except NoCgroupError as error:
        return f"cgroups can't be used here: {error}"
    return None


NO_CGROUP = why_no_cgroup()


@pytest.fixture(params=MODES)
def containment(request: pytest.FixtureRequest, lab: Lab) -> str:
    """Have the lab's commands keep their processes together in one of the two ways."""
    if request.param == "cgroup" and NO_CGROUP:
        pytest.skip(NO_CGROUP)
    lab.environment["COORD_CONTAINMENT"] = request.param
    return str(request.param)


@pytest.fixture
def day(lab: Lab, job: str, containment: str) -> Iterator[Day]:
    """One program, from its start to its end; kept together in the one way and in the other."""
    day = Day(lab, job, containment)
    yield day
    day.close()


@pytest.fixture
def plain_day(lab: Lab, job: str) -> Iterator[Day]:
    """The same, kept together by a subreaper alone."""
    lab.environment["COORD_CONTAINMENT"] = "subreaper"
    day = Day(lab, job, "subreaper")
    yield day
    day.close()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs in C, compiled."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not on PATH: some programs here are too quick for Python")
    folder = tmp_path_factory.mktemp("built")
    for source in SOURCES.glob("*.c"):
        subprocess.run([compiler, "-O2", "-Wall", "-Werror", "-o", str(folder / source.stem), str(source)], check=True)
    return folder


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
