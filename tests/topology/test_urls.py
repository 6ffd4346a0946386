"""URLs of more than one server: what they mean, what can't be one, and that no password is ever shown."""

from __future__ import annotations

import secrets
import subprocess
import sys
from typing import Any

import pytest
import redis

from coord.address import topology
from coord.errors import UsageError
from coord.finished import finished
from coord.ledger import Ledger
from coord.places import elsewhere, find
from coord.redis_errors import shown
from coord.routes import key_of
from tests.cli.test_start import SHOW

LATE = ("coord.routed", "coord.routes", "coord.places")
PLAIN = ("redis://h:1/2?password=x", "rediss://[::1]", "unix:///run/a+b.sock", "redis://user:a+cluster@h")
SENTINEL = "redis+sentinel://u:p%2Fw@h1,h2:7,[::1]:8/my%20own/3?sentinel_password=a%26b&ssl_ca_certs=/ca.pem"
WRONG = [
    ("redis+sentinel://h1,h2", "which service"),
    ("redis+sentinel://h1,h2/mine/zero", "number of a database"),
    ("redis+sentinel://h1,,h2/mine", "host 2"),
    ("redis+sentinel://h1:99999/mine", "host 1"),
    ("redis+sentinel://h1:x/mine", "host 1"),
    ("redis+cluster://h1/1", "database but 0"),
    ("redis+cluster://h1?db=1", "database but 0"),
    ("redis+cluster://", "host 1"),
    ("redis+clusters://h1", "no URL of a Sentinel or a Cluster"),
    ("valkey+cluster://h1", "no URL of a Sentinel or a Cluster"),
]


@pytest.mark.parametrize("url", PLAIN)
def test_one_server_is_as_it_was(url: str) -> None:
    """A URL of one server goes to redis-py as it came."""
    assert topology(url) is None


def test_what_a_sentinels_url_means() -> None:
    """Each server and each sentinel is spoken to by a URL of its own, with credentials of its own."""
    told = topology(SENTINEL)
    assert told
    assert (told.seeds, told.service, told.tls) == (("h1:26379", "h2:7", "[::1]:8"), "my own", False)
    assert told.server_url("10.0.0.1:6379") == "redis://u:p%2Fw@10.0.0.1:6379/3?ssl_ca_certs=%2Fca.pem"
    assert told.sentinel_url("h2:7") == "redis://:a%26b@h2:7/0?ssl_ca_certs=%2Fca.pem"


def test_what_a_clusters_url_means() -> None:
    """Nodes share credentials and TLS."""
    told = topology("rediss+cluster://:pw@h1,h2:7000?ssl_ca_certs=/ca.pem")
    assert told
    assert (told.kind, told.seeds) == ("cluster", ("h1:6379", "h2:7000"))
    assert told.server_url("[fe80::1]:6379") == "rediss://:pw@[fe80::1]:6379/0?ssl_ca_certs=%2Fca.pem"


@pytest.mark.parametrize(("url", "says"), WRONG)
def test_what_is_none(url: str, says: str) -> None:
    """It is refused before anything is connected to, with what is wrong and how it should look."""
    with pytest.raises(UsageError, match=says) as caught:
        Ledger(url)
    assert "redis+" in caught.value.hint


@pytest.mark.parametrize("sign", ["", "/", "?", "#", "@", ":", ","])
@pytest.mark.parametrize(
    "form",
    [
        "redis+sentinel://:{}@h1:1,h2:2/mine",
        "redis+sentinel://user:{}@h1:1/mine/0",
        "redis+sentinel://h1:1/mine?sentinel_password={}",
        "rediss+cluster://user:{}@h1:1,[::1]:2",
        "redis+cluster://h1:1?password={}",
        "redis://:{}@h:1/0",
    ],
)
def test_no_password_is_shown(form: str, sign: str) -> None:
    """Neither what is shown of a URL nor what is said against it has its password, also one that was not quoted."""
    start, end = secrets.token_hex(6), secrets.token_hex(6)
    url = form.format(f"{start}{sign}{end}")
    said = ""
    try:
        topology(url)
    except UsageError as error:
        said = str(error)
    assert start not in shown(url) + said
    if "password=" not in form or sign not in {"#", "&"}:
        assert end not in shown(url) + said


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("EVALSHA", "abc", 2, "k1", "k2", "arg"), "k1"),
        (("EVAL", "return 1", 0), None),
        (("XREAD", b"COUNT", 10, b"STREAMS", "k1", "0"), "k1"),
        (("ZADD", "k1", 1, "x"), "k1"),
        (("HSCAN", b"k1", 0), "k1"),
        (("EXPIRE", "k1", 60), "k1"),
        (("TIME",), None),
        (("CONFIG GET", "timeout"), None),
    ],
)
def test_a_command_goes_where_its_key_is(words: tuple[object, ...], key: str | None) -> None:
    """Each command that the record is asked with is known by its key."""
    assert key_of(words) == key


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (redis.exceptions.ConnectionError("Connection refused"), True),
        (redis.exceptions.TimeoutError("Timeout reading"), True),
        (redis.exceptions.ReadOnlyError("You can't write against a read only replica."), True),
        (redis.exceptions.ResponseError("Error running script: READONLY You can't write"), True),
        (redis.exceptions.ResponseError("UNBLOCKED force unblock from blocking operation"), True),
        (redis.exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), True),
        (redis.exceptions.MasterDownError("Link with MASTER is down"), True),
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), True),
        (redis.exceptions.TryAgainError("Multiple keys request during rehashing of slot"), True),
        (redis.exceptions.AuthenticationError("invalid username-password pair"), False),
        (redis.exceptions.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"), False),
        (redis.exceptions.ResponseError("WRONGTYPE Operation against a key"), False),
        (redis.exceptions.NoPermissionError("no permissions to run"), False),
        (redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'"), False),
    ],
)
def test_what_another_server_may_answer(error: Exception, again: bool) -> None:
    """What a failover or a moved slot explains is tried again elsewhere; what would be the same there is not."""
    assert elsewhere(error) is again


class Sentinels:
    """Answers as sentinels that do not agree: the first one was cut off when the others changed the primary."""

    def __init__(self, epochs: dict[str, tuple[int, str]], roles: dict[str, bytes]) -> None:
        self._epochs = epochs
        self._roles = roles

    async def inquire(self, url: str, *words: str) -> Any:
        """Answer as the server at the URL."""
        place = url.split("/")[2]
        if words == ("ROLE",):
            return [self._roles[place]]
        epoch, primary = self._epochs[place]
        host, port = primary.split(":")
        return {b"ip": host.encode(), b"port": port.encode(), b"config-epoch": str(epoch).encode()}


def primary_of(epochs: dict[str, tuple[int, str]]) -> str:
    """Scenario: give the primary that is found."""
    told = topology("redis+sentinel://s1:1,s2:2,s3:3/mine")
    assert told
    sentinels = Sentinels(epochs, {"old:1": b"master", "new:1": b"master", "replica:1": b"slave"})
    return finished(find(told, sentinels, list(told.seeds))).place(None)


def test_the_newest_configuration_is_believed() -> None:
    """A sentinel that was cut off names a primary of the past, which thinks so itself; the others know better."""
    assert primary_of({"s1:1": (3, "old:1"), "s2:2": (4, "new:1"), "s3:3": (4, "new:1")}) == "new:1"


def test_control_it_is_what_the_epoch_says() -> None:
    """Negative control: without newer epochs than the first one's, its word is as good as theirs."""
    assert primary_of({"s1:1": (4, "old:1"), "s2:2": (3, "new:1"), "s3:3": (3, "new:1")}) == "old:1"


def test_who_is_no_primary_yet_is_not_asked() -> None:
    """Named by the sentinels, but a replica still: it is waited for."""
    with pytest.raises(redis.exceptions.ReadOnlyError):
        primary_of(dict.fromkeys(("s1:1", "s2:2", "s3:3"), (5, "replica:1")))


@pytest.mark.parametrize(("url", "late"), [("unix:///nowhere", ""), ("redis+cluster://127.0.0.1:1", " ".join(LATE))])
def test_who_has_one_server_pays_nothing(url: str, late: str) -> None:
    """What Sentinels and Clusters need is imported when such a URL is used, and then only."""
    does = f"import coord.cli; coord.cli.run(['jobs', '--redis-url', {url!r}])"
    ended = subprocess.run(
        [sys.executable, "-c", f"{does}\n{SHOW.format(LATE)}"], capture_output=True, text=True, check=True, timeout=30
    )
    assert set(ended.stdout.splitlines()[-1].split()) == set(late.split())
