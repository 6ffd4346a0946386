"""Where secrets come from, and what is no secret; and what Redis' time is as far as a host knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coord.errors import UsageError
from coord.keyrings import keyring, with_file, without_secret
from coord.redis_clock import RedisClock
from coord.seal import Doubt, key_id
from tests.rings import NEXT, OTHERS, OURS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COORD_SECRET", "COORD_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)


def file(folder: Path, text: str | bytes, mode: int = 0o600) -> str:
    path = folder / "secret"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


def ids(*secrets: str) -> str:
    return ",".join(key_id(secret.encode()) for secret in secrets)


def test_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was given goes before the one that the environment names, and that before a secret in it."""
    given = file(tmp_path, f"{OURS}\n")
    other = tmp_path / "other"
    other.write_text(f"{OTHERS}\n")
    other.chmod(0o400)
    assert keyring() is None
    monkeypatch.setenv("COORD_SECRET", NEXT)
    assert getattr(keyring(), "ids", None) == ids(NEXT)
    monkeypatch.setenv("COORD_SECRET_FILE", str(other))
    assert getattr(keyring(), "ids", None) == ids(OTHERS)
    assert getattr(keyring(given), "ids", None) == ids(OURS)
    monkeypatch.setenv("COORD_SECRET_FILE", "")
    monkeypatch.setenv("COORD_SECRET", "")
    assert keyring() is None


def test_several_with_comments(tmp_path: Path) -> None:
    """One per line; what begins with # and what is empty is none; the same twice is one; bytes need be no text."""
    odd = bytes(range(128, 160))
    path = file(tmp_path, b"# the new one\n" + NEXT.encode() + b"\r\n\n  # the old one\n" + OURS.encode() + b"\n" + odd)
    found = keyring(path)
    assert found is not None
    assert found.ids == f"{ids(NEXT, OURS)},{key_id(odd)}"
    assert found.sign("request").split(":")[1] == ids(NEXT)
    twice = keyring(file(tmp_path, f"{OURS}\n{OURS}\n"))
    assert twice is not None
    assert twice.ids == ids(OURS)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o620, 0o660, 0o644, 0o666, 0o777])
def test_a_file_that_is_open_is_refused(tmp_path: Path, mode: int) -> None:
    """What others may read, or more than its owner write, is no secret; the hint says what to do."""
    with pytest.raises(UsageError, match=r"is open to others\. Run chmod 600"):
        keyring(file(tmp_path, OURS, mode))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_a_file_that_is_not_open_is_taken(tmp_path: Path, mode: int) -> None:
    """Its group may read it: so platforms mount secrets."""
    assert keyring(file(tmp_path, OURS, mode)) is not None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no secret"),
        ("# only a comment, but a long one\n\n", "holds no secret"),
        ("fifteen bytes..", "holds a secret of less than 16 bytes"),
        (f"{OURS}\nshort", "holds a secret of less than 16 bytes"),
        ("\n".join(f"number {number} of secrets" for number in range(17)), "holds 17 secrets"),
    ],
    ids=["empty", "comments", "short", "one short", "many"],
)
@pytest.mark.parametrize("where", ["file", "variable"])
def test_what_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, text: str, says: str) -> None:
    """What can be guessed, or is not there, is refused, and is not shown."""
    monkeypatch.setenv("COORD_SECRET", text)
    if where == "variable" and not text:
        assert keyring() is None
        return
    with pytest.raises(UsageError, match=says) as caught:
        keyring(file(tmp_path, text) if where == "file" else None)
    assert OURS not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who named a secret does not go on without one."""
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match="can't read the secret file"):
            keyring(str(missing))
        monkeypatch.setenv("COORD_SECRET_FILE", str(missing))
        with pytest.raises(UsageError, match="can't read the secret file"):
            keyring()


def test_whose_the_environment_is() -> None:
    """What is not ours has no secret in its environment; a helper of ours has the file."""
    environment = {"COORD_SECRET": OURS, "COORD_SECRET_FILE": "/x", "HOME": "/h"}
    assert without_secret(environment) == {"COORD_SECRET_FILE": "/x", "HOME": "/h"}
    assert with_file(environment, None) == environment
    assert with_file(environment, "/y") == environment | {"COORD_SECRET_FILE": "/y"}


def test_redis_time(tmp_path: Path) -> None:
    """Until the server has said its time, it is the host's; then it goes with the monotonic clock, set or not."""
    wall, monotonic = [1000.0], [50.0]
    clock = RedisClock(monotonic=lambda: monotonic[0], wall=lambda: wall[0])
    assert clock.now_us() == 1_000_000_000
    clock.learn(2_000_000_000)
    wall[0], monotonic[0] = 5.0, 51.5
    assert clock.now_us() == 2_001_500_000
    clock.learn(1_000)
    assert clock.now_us() == 1_000
    found = keyring(file(tmp_path, OURS))
    assert found is not None
    assert found.doubt("", "request") is Doubt.UNSIGNED
