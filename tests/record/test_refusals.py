"""What a server says that works but can't be used: each is our own error 4, with a hint, on either ledger."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from coord.coordinator import new_request
from coord.errors import UNREACHABLE, CoordError, UnreachableError, UsageError
from coord.ledger import AsyncLedger, Ledger
from coord.messages import Cause
from coord.record import Record
from coord.redis_errors import shown
from tests.record.desk import PLAN, RETAIN_S, info
from tests.record.servers import failed_save, free_port, raw, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

SECRET = "sesame-17"  # noqa: S105  # of a server that lives for one test
ALL_BUT_SCRIPTS = ("ACL", "SETUSER", "default", "-@scripting")


@dataclass(frozen=True)
class Refusal:
    """A server that can't be used: how it is started, what is done to it, and what we say."""

    name: str
    says: str
    config: dict[str, str] = field(default_factory=dict)
    query: str = ""
    prepare: Callable[[redis.Redis], object] = lambda client: client.ping()
    kind: str = "any"


def _command(*words: str) -> Callable[[redis.Redis], object]:
    return lambda client: client.execute_command(*words)  # type: ignore[no-untyped-call]


REPLICA = {"replicaof": "127.0.0.1 1"}  # nobody listens there: a replica all the same
REFUSALS = (
    Refusal("replica", "read-only replica", REPLICA),
    Refusal(
        "stale replica",
        "replica without a primary",
        REPLICA,
        prepare=_command("CONFIG", "SET", "replica-serve-stale-data", "no"),
    ),
    Refusal("full", "memory is full", {"maxmemory": "1"}),
    Refusal("can't save", "can't save", prepare=failed_save),
    Refusal("forbidden", "forbids this user a command", prepare=_command(*ALL_BUT_SCRIPTS)),
    Refusal("no password", "wants a password", prepare=_command("CONFIG", "SET", "requirepass", SECRET)),
    Refusal(
        "wrong password",
        "refused the password",
        prepare=_command("CONFIG", "SET", "requirepass", SECRET),
        query="?password=no",
    ),
    Refusal("no such database", "", query="?db=99"),
    Refusal("cluster without slots", "", prepare=_command("CLUSTER", "FLUSHSLOTS"), kind="cluster"),
)
CASES = [
    pytest.param((kind, refusal), id=f"{refusal.name}-{kind}")
    for refusal in REFUSALS
    for kind in (("valkey", "redis") if refusal.kind == "any" else (refusal.kind,))
]


@pytest.fixture(params=CASES)
def refusing(request: pytest.FixtureRequest) -> Iterator[tuple[str, Refusal]]:
    """The URL of a server that can't be used, and what we should say of it."""
    kind, refusal = request.param
    with TemporaryDirectory(prefix="coord-") as folder, serving(kind, Path(folder), **refusal.config) as url:
        with raw(url) as client:
            refusal.prepare(client)
        yield url + refusal.query, refusal


def check(error: CoordError, refusal: Refusal) -> None:
    assert isinstance(error, UnreachableError), str(error)
    assert error.exit_code == UNREACHABLE
    assert refusal.says in error.message
    assert error.hint
    assert SECRET not in str(error)


def test_blocking_ledger_says_what_is_wrong(refusing: tuple[str, Refusal], job: str) -> None:
    """A person learns in one line why the server can't be used, and what to do, and it is not called our defect."""
    url, refusal = refusing
    ledger = Ledger(url)
    wish = new_request(job, Cause.OPERATOR, "op@desk", "")
    with pytest.raises(CoordError) as caught:
        ledger.run(Record(job, RETAIN_S).request(wish, PLAN, fence_unknown=True))
    ledger.close()
    check(caught.value, refusal)


async def test_async_ledger_says_what_is_wrong(refusing: tuple[str, Refusal], job: str) -> None:
    """An agent gets the same error for it, and so tries again instead of breaking."""
    url, refusal = refusing
    ledger = AsyncLedger(url)
    with pytest.raises(CoordError) as caught:
        await ledger.run(Record(job, RETAIN_S).join(info("a"), PLAN))
    await ledger.close()
    check(caught.value, refusal)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}", "unix:///no/such/socket", "redis://no-such.invalid"])
def test_nobody_there(url: str, job: str) -> None:
    """A server that is not there is not reachable, and the error names the address."""
    url = url.format(port=free_port())
    ledger = Ledger(url)
    with pytest.raises(UnreachableError, match="not reachable") as caught:
        ledger.run(Record(job).snapshot())
    ledger.close()
    assert url in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "http://127.0.0.1",
        "redis://[::1",
        "redis://h:port",
        "redis://h:99999",
        "redis://h?db=x",
        "redis://h?foo=1",
    ],
)
def test_what_is_no_url(url: str, job: str) -> None:
    """What can't be an address is a usage error, before anything is tried."""
    with pytest.raises(UsageError, match="Redis URL"):
        Ledger(url).run(Record(job).snapshot())


@pytest.mark.parametrize(
    "url",
    [
        "redis://:{}@h:6379/0",
        "redis://user:{}@h:6379/0",
        "rediss://user:{}@[::1]:6379/0",
        "unix:///run/redis.sock?password={}",
        "redis://h?db=1&password={}&protocol=3",
        "redis://h?username=u&PASSWORD={}",
        "unix://:{}@/run/redis.sock",
    ],
)
def test_password_is_never_shown(url: str) -> None:
    """Wherever a URL has its password, what is shown of it has not."""
    secret = secrets.token_hex(8)
    assert secret not in shown(url.format(secret))
    assert ("run/redis.sock" in shown(url.format(secret))) == ("run/redis.sock" in url)


def test_text_that_is_no_unicode_is_not_called_a_bad_url(server: str, job: str) -> None:
    """A command's argument may be any bytes: what can't be text as it is does not keep the command from joining."""
    ledger = Ledger(server)
    odd = replace(info("a"), command="cat \udcff.txt")
    try:
        assert ledger.run(Record(job, RETAIN_S).join(odd, PLAN)).word == "joined"
        assert ledger.run(Record(job, RETAIN_S).snapshot()) is not None
    finally:
        ledger.close()
