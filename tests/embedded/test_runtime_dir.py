"""Which runtime directories are refused: in one line, at once, with nothing started in them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from coord.errors import USAGE
from tests.embedded.conftest import Runtime
from tests.harness import COORD

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
PATH_MAX = 107  # of a Unix socket, in bytes
AT_ONCE_S = 10.0  # a loaded machine included; START_S, the wait for a server, is longer


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory as a person may have made it."""
    with TemporaryDirectory(prefix="coord-") as name:
        yield Path(name)


def refusal(folder: Path, **environment: str) -> str:
    """Ask for the jobs with this runtime directory; gives the one line that it is refused with."""
    before = sorted(folder.iterdir()) if folder.is_dir() else []
    start_s = time.monotonic()
    ended = use(folder, **environment)
    assert (ended.returncode, ended.stdout) == (USAGE, ""), ended.stderr
    assert time.monotonic() - start_s < AT_ONCE_S
    (line,) = ended.stderr.splitlines()
    assert line.startswith("coord: ")
    assert (sorted(folder.iterdir()) if folder.is_dir() else []) == before
    return line


def without_url() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "COORD_REDIS_URL"}


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o710, 0o704, 0o1777], ids=oct)
def test_directory_that_others_can_enter_is_refused(folder: Path, mode: int) -> None:
    """A runtime directory that is open to anybody else, even only to read, is not used: somebody could listen in."""
    folder.chmod(mode)
    line = refusal(folder)
    assert str(folder) in line
    assert "not this user's alone" in line
    assert "chmod 700" in line


def test_directory_of_somebody_else_is_refused(folder: Path) -> None:
    """A runtime directory that belongs to another user is not used, whatever its mode."""
    if os.getuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        assert "not this user's alone" in refusal(folder)
    else:
        assert "not this user's alone" in refusal(Path("/"))


def test_link_is_refused(folder: Path) -> None:
    """A link in the place of the directory could be turned to somewhere else at any time, so it is not followed."""
    (folder / "real").mkdir(mode=0o700)
    (folder / "link").symlink_to(folder / "real")
    assert "not this user's alone" in refusal(folder / "link")
    assert list((folder / "real").iterdir()) == []


def test_file_is_refused(folder: Path) -> None:
    """A file in the place of the directory is said to be unusable."""
    (folder / "file").write_text("")
    assert str(folder / "file") in refusal(folder / "file")


def test_directory_below_a_file_is_refused(folder: Path) -> None:
    """A directory that can't be made is said to be unusable."""
    (folder / "file").write_text("")
    assert str(folder / "file" / "below") in refusal(folder / "file" / "below")


@pytest.mark.parametrize("letter", ["x", "ü"])
def test_path_that_is_too_long_for_a_socket_is_refused(folder: Path, letter: str) -> None:
    """A Unix socket's path is limited to about 107 bytes: a longer directory is refused at once, not after a wait."""
    name = letter * ((PATH_MAX + 20 - len(str(folder))) // len(letter.encode()))
    line = refusal(folder / name)
    assert "long" in line
    assert "COORD_RUNTIME_DIR" in line


def test_longest_path_works(runtime: Runtime, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory whose socket's path just fits is used."""
    del runtime  # it ends what is started below
    longest = folder / ("x" * (PATH_MAX - len(str(folder)) - len("/" + "/valkey.sock")))
    monkeypatch.setenv("COORD_RUNTIME_DIR", str(longest))
    assert use(longest).returncode == 0


@pytest.mark.parametrize("name", ["ünï", "#hash", "back\\slash", "{brace}", "per%cent", "what?", "a&b;c", "@:80"])
def test_any_name_works(folder: Path, name: str) -> None:
    """A directory may have any name that its user gave it: none of its signs is taken for a part of a URL."""
    ended = use(folder / name)
    assert ended.returncode == 0, ended.stderr
    starting, empty = ended.stderr.splitlines()
    assert "valkey.sock" in starting
    assert empty == "coord: no jobs yet: start one with `coord run --job-id NAME -- COMMAND`"


@pytest.mark.parametrize("name", ["with space", "quo'te", 'dou"ble', "new\nline"])
def test_name_that_a_server_can_not_read_is_refused(folder: Path, name: str) -> None:
    """A name that can't stand in the server's configuration is said to be the reason; nobody waits for the server."""
    assert "COORD_RUNTIME_DIR" in refusal(folder / name)


def use(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Ask for the jobs with this runtime directory, and end what that started."""
    try:
        return subprocess.run(
            [COORD, "jobs"],
            env={**without_url(), "COORD_RUNTIME_DIR": str(folder), "COORD_EMBEDDED_IDLE_S": "60", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        Runtime(folder).close()


def test_idle_time_that_is_no_number_is_refused(folder: Path) -> None:
    """A setting that is not what it must be is said at once, not found out by waiting for a server."""
    assert "COORD_EMBEDDED_IDLE_S" in refusal(folder, COORD_EMBEDDED_IDLE_S="soon")
