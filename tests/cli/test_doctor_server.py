"""`coord doctor` on a Redis: which of its settings endanger a job's record, and what its user may not do."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from coord.errors import UNREACHABLE
from tests.cli.diagnosis import HOST, SERVER, doctor
from tests.cli.words import complaint
from tests.record.servers import free_port, raw, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Lab

KINDS = ("redis", "valkey")
GOOD = {"appendonly": "yes"}
# a server's settings, the finding that warns of them, what it says, and what it advises
DANGERS = [
    ({"maxmemory_policy": "allkeys-lru", "maxmemory": "100mb"}, "eviction", "may drop", "noeviction"),
    ({"maxmemory_policy": "volatile-ttl", "maxmemory": "100mb"}, "eviction", "its fence", "noeviction"),
    ({"maxmemory_policy": "allkeys-lru"}, "eviction", "would drop", "noeviction"),
    ({"appendonly": "no", "save": ""}, "persistence", "nothing is saved", "appendonly yes"),
    ({"appendonly": "no", "save": "3600 1"}, "persistence", "only snapshots (save 3600 1)", "appendonly yes"),
    ({"appendfsync": "no"}, "persistence", "fsync no", "everysec"),
    ({"client_output_buffer_limit": "pubsub 1kb 1kb 10"}, "output-buffers", "1,024 bytes", "pubsub 32mb"),
    ({"timeout": "2"}, "connections", "timeout 2 s", "timeout 0"),
]
PASSWORD = "sesame-17"  # noqa: S105  # of a server that lives for one test


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, since a socket's must be."""
    with TemporaryDirectory(prefix="coord-") as name:
        yield Path(name)


def as_user(url: str, *rules: str) -> str:
    """Make a user with these rights, and give the URL with which one is it."""
    with raw(url) as client:
        client.execute_command("ACL", "SETUSER", "limited", "reset", "on", f">{PASSWORD}", *rules)  # type: ignore[no-untyped-call]
    return f"{url}?username=limited&password={PASSWORD}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_server(lab: Lab, folder: Path, kind: str) -> None:
    """The negative control of all below: where nothing is wrong, nothing is said to be; the server is named."""
    with serving(kind, folder, **GOOD) as url:
        findings = doctor(lab, given={"COORD_REDIS_URL": url})
    assert {name for name in SERVER if findings[name]["status"] != "ok"} <= {"latency"}
    assert findings["redis"]["found"].lower().startswith(kind)


@pytest.mark.parametrize(("settings", "name", "says", "advises"), DANGERS, ids=lambda value: str(value)[:50])
def test_dangerous_settings(
    lab: Lab, folder: Path, settings: dict[str, str], name: str, says: str, advises: str
) -> None:
    """Each setting that could lose a request, or make it late, is a warning that says what could happen."""
    with serving("redis", folder, **{**GOOD, **settings}) as url:
        findings = doctor(lab, given={"COORD_REDIS_URL": url})
    finding = findings.pop(name)
    assert finding["status"] == "warn"
    assert says in finding["found"]
    assert advises in finding["advice"]
    assert {other for other in SERVER - {name} if findings[other]["status"] != "ok"} <= {"latency"}


@pytest.mark.parametrize("kind", KINDS)
def test_who_may_not_subscribe(lab: Lab, folder: Path, kind: str) -> None:
    """It fails, and so does `coord run`."""
    with serving(kind, folder, **GOOD) as url:
        theirs = as_user(url, "~coord:*", "+@all", "resetchannels")
        channel = doctor(lab, given={"COORD_REDIS_URL": theirs})["channel"]
        complaint(lab.call("run", "--job-id", "J", "--", "true", COORD_REDIS_URL=theirs), UNREACHABLE)
    assert channel["status"] == "fail"
    assert "coord:control" in channel["found"]
    assert "coord:control" in channel["advice"]


@pytest.mark.parametrize("kind", KINDS)
def test_who_may_not_publish(lab: Lab, folder: Path, kind: str) -> None:
    """It is a warning: requests are heard late, but they are heard."""
    with serving(kind, folder, **GOOD) as url:
        theirs = as_user(url, "~coord:*", "&coord:control", "+@all", "-publish")
        findings = doctor(lab, given={"COORD_REDIS_URL": theirs})
    assert (findings["channel"]["status"], findings["record"]["status"]) == ("warn", "ok")
    assert "+publish" in findings["channel"]["advice"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "rules",
    [
        ("~other:*", "+@all"),
        ("~coord:*", "+@all", "-evalsha"),
        ("~coord:*", "+@all", "-xread"),
        ("~coord:*", "+@connection", "+subscribe"),
    ],
)
def test_who_may_not_use_the_record(lab: Lab, folder: Path, kind: str, rules: tuple[str, ...]) -> None:
    """Who can't run the scripts, or has no right to the keys, is told so, and what is needed."""
    with serving(kind, folder, **GOOD) as url:
        findings = doctor(lab, given={"COORD_REDIS_URL": as_user(url, "&coord:control", "+time", *rules)})
    assert findings["record"]["status"] == "fail"
    assert "coord:*" in findings["record"]["advice"]
    assert findings["channel"]["status"] == ("ok" if "-xread" in rules else "unknown")


def test_what_a_managed_server_does_not_tell_is_unknown(lab: Lab, folder: Path) -> None:
    """Where CONFIG is forbidden, as by most providers, what only it tells is unknown; the rest is found."""
    with serving("redis", folder, **GOOD, rename_command='CONFIG ""') as url:
        findings = doctor(lab, given={"COORD_REDIS_URL": url})
    unknown = {name for name, finding in findings.items() if finding["status"] == "unknown"}
    assert unknown == {"output-buffers", "connections"}
    assert findings["persistence"]["status"] == findings["eviction"]["status"] == "ok"
    assert all("CONFIG" in findings[name]["found"] and findings[name]["advice"] for name in unknown)


def test_a_user_who_may_do_no_more_than_coord_does(lab: Lab, folder: Path) -> None:
    """With the least rights, the record and the channel are fine; what the server does not tell is unknown."""
    least = ("~coord:*", "&coord:control", "-@all", "+@read", "+@write", "+@scripting", "+@connection", "+@pubsub")
    with serving("redis", folder, **GOOD) as url:
        findings = doctor(lab, given={"COORD_REDIS_URL": as_user(url, *least, "+time")})
    assert {findings[name]["status"] for name in ("record", "channel", "latency", "clock")} <= {"ok", "warn"}
    assert {name for name in findings if findings[name]["status"] == "unknown"} == {
        *("redis", "persistence", "eviction", "output-buffers", "connections", "rq")
    }


def test_a_replica(lab: Lab, folder: Path) -> None:
    """A replica takes no request: it fails, and says to ask the primary."""
    with serving("valkey", folder, **GOOD, replicaof=f"127.0.0.1 {free_port()}") as url:
        findings = doctor(lab, given={"COORD_REDIS_URL": url})
    assert findings["redis"]["status"] == findings["record"]["status"] == "fail"
    assert "primary" in findings["redis"]["advice"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://127.0.0.1:{port}", "not reachable"),
        ("unix://{folder}/none.sock", "not reachable"),
        ("http://here", "no Redis URL"),
        ("redis://:sesame-17@127.0.0.1:{port}", "not reachable"),
    ],
)
def test_no_server(lab: Lab, folder: Path, url: str, says: str) -> None:
    """Where nobody answers, that is a finding: everything about the host is found all the same."""
    findings = doctor(lab, given={"COORD_REDIS_URL": url.format(port=free_port(), folder=folder)})
    assert set(findings) == HOST | {"redis"}
    assert findings["redis"]["status"] == "fail"
    assert says in findings["redis"]["found"]
    assert findings["redis"]["advice"]
    assert PASSWORD not in str(findings)


def test_the_embedded_server(lab: Lab) -> None:
    """Without a URL it is the embedded one that is looked at, and nothing about it is wrong."""
    findings = doctor(lab, given={"COORD_REDIS_URL": ""})
    assert findings["redis"]["found"].startswith("Valkey")
    assert {name for name in SERVER if findings[name]["status"] != "ok"} <= {"latency"}
