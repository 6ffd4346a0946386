"""A server that can't be used: exit code 4, one line that says why and what to do, and nothing started."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from coord.errors import UNREACHABLE, USAGE
from tests.cli.words import complaint
from tests.harness import until
from tests.record.servers import free_port, raw, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Ended, Lab

SECRET = "sesame-17"  # noqa: S105  # of a server that lives for one test
CALLS = (
    ("run", "--job-id", "J", "--", "touch", "STARTED"),
    ("shutdown", "--job-id", "J", "--fence"),
    ("status", "--job-id", "J"),
    ("status",),
    ("jobs", "--json"),
    ("agents",),
)
READS = CALLS[2:]
WRITES = CALLS[:2]
KINDS = ("valkey", "redis")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, since a socket's must be."""
    with TemporaryDirectory(prefix="coord-") as name:
        yield Path(name)


def call(lab: Lab, args: tuple[str, ...], url: str, folder: Path) -> Ended:
    """Call with this URL; the command, if there is one, would leave a file."""
    ended = lab.call(*(str(folder / word) if word == "STARTED" else word for word in args), COORD_REDIS_URL=url)
    assert not (folder / "STARTED").exists()
    return ended


@pytest.mark.parametrize("args", CALLS, ids=" ".join)
def test_not_reachable(lab: Lab, folder: Path, args: tuple[str, ...]) -> None:
    """Where nobody listens, each command says so and names the address; no command is started."""
    for url in (f"redis://127.0.0.1:{free_port()}/0", f"unix://{folder}/none.sock"):
        line = complaint(call(lab, args, url, folder), UNREACHABLE)
        assert url in line
        assert "not reachable" in line
        assert "COORD_REDIS_URL" in line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("password", [None, "wrong"])
def test_wrong_password(lab: Lab, folder: Path, kind: str, password: str | None) -> None:
    """Without the right password, whoever writes or reads is told so, and shown no password at all."""
    with serving(kind, folder) as url:
        with raw(url) as client:
            client.config_set("requirepass", SECRET)
        for args in (*WRITES, READS[0]):
            given = url if password is None else f"{url}?password={password}"
            line = complaint(call(lab, args, given, folder), UNREACHABLE)
            assert "password" in line
            assert f"={password}" not in line
            assert f"{SECRET}" not in line


@pytest.mark.parametrize("kind", KINDS)
def test_right_password(lab: Lab, folder: Path, job: str, kind: str) -> None:
    """With the right password, in either place of the URL, the job runs."""
    with serving(kind, folder) as url:
        with raw(url) as client:
            client.config_set("requirepass", SECRET)
        for given in (f"{url}?password={SECRET}", url.replace("unix://", f"unix://:{SECRET}@")):
            ended = lab.call("run", "--job-id", job, "--", "true", COORD_REDIS_URL=given)
            assert ended.code == 0, ended.err
            assert SECRET not in ended.err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["~other:*", "-evalsha", "resetchannels"])
def test_user_without_rights(lab: Lab, folder: Path, kind: str, rule: str) -> None:
    """Who may not use the keys, the scripts or the channel is told which rights coord needs."""
    with serving(kind, folder) as url:
        with raw(url) as client:
            rights = ("reset", "on", f">{SECRET}", "+@all", *(() if rule == "~other:*" else ("~coord:*",)), "&*", rule)
            client.execute_command("ACL", "SETUSER", "limited", *rights)  # type: ignore[no-untyped-call]
        line = complaint(call(lab, CALLS[0], f"{url}?username=limited&password={SECRET}", folder), UNREACHABLE)
    assert "Allow it keys coord:*, rq:*, channel coord:control, scripts" in line


@pytest.mark.parametrize("kind", KINDS)
def test_read_only_replica(lab: Lab, folder: Path, job: str, kind: str) -> None:
    """A replica shows what the primary has, but takes no request and lets nothing start: it says to ask the primary."""
    (folder / "replica").mkdir()
    port = free_port()
    with (
        serving(kind, folder, port=str(port), repl_diskless_sync_delay="0") as primary,
        serving(kind, folder / "replica", replicaof=f"127.0.0.1 {port}") as replica,
    ):
        assert lab.call("run", "--job-id", job, "--", "true", COORD_REDIS_URL=primary).code == 0
        with raw(replica) as client:
            until(lambda: client.exists(f"coord:{{{job}}}:job"), "the replica to have the job")
        for args in WRITES:
            line = complaint(call(lab, args, replica, folder), UNREACHABLE)
            assert "read-only replica" in line
            assert "primary" in line
        assert lab.call("status", "--job-id", job, "--json", COORD_REDIS_URL=replica).json["state"] == "stopped"


@pytest.mark.parametrize("args", [CALLS[0], CALLS[2]], ids=" ".join)
@pytest.mark.parametrize(
    "url",
    ["x", "127.0.0.1:6379", "http://127.0.0.1", "redis://[::1", "redis://h:port", "redis://h:99999", "redis://h?x=1"],
)
def test_garbage_url(lab: Lab, folder: Path, args: tuple[str, ...], url: str) -> None:
    """What can't be an address is a usage error that shows what it should look like."""
    line = complaint(call(lab, args, url, folder), USAGE)
    assert "redis://" in line


def test_no_password_is_shown(lab: Lab, folder: Path) -> None:
    """A URL's password stands in no line, also when the URL can't be used."""
    for url in (
        f"redis://:{SECRET}@127.0.0.1:{free_port()}/0",
        f"redis://127.0.0.1:{free_port()}/0?password={SECRET}",
        f"unix://{folder}/none.sock?password={SECRET}",
        f"http://user:{SECRET}@127.0.0.1",
        f"redis://:{SECRET}@[::1",
        f"redis://:{SECRET}@127.0.0.1:port",
    ):
        ended = call(lab, READS[0], url, folder)
        assert ended.code in {USAGE, UNREACHABLE}
        assert SECRET not in ended.out + ended.err
