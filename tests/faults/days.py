"""What a server refuses on its bad days: how each begins and ends, and what a command says of it."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.faults.kinds import kinds
from tests.harness import until
from tests.record.servers import failed_save, raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.outage import Outage

NOBODY = ("127.0.0.1", 1)  # no server listens there
KEYS = 2000
LOAD_DELAY_US = 5000  # of each key: 10 s at most, and less when the day is over before


@dataclass(frozen=True)
class Day:
    """One kind of bad day. `says`: what a command that writes says of it; `reads`: others still get their answer."""

    name: str
    says: str
    lasts: Callable[[Outage], AbstractContextManager[object]]
    reads: bool = True
    config: dict[str, str] = field(default_factory=dict)


@contextmanager
def read_only(outage: Outage) -> Iterator[None]:
    """The primary was made a replica, as by a failover that its clients do not follow."""
    with raw(outage.url) as client:
        client.replicaof(*NOBODY)
        yield
        client.replicaof("NO", "ONE")


@contextmanager
def cant_save(outage: Outage) -> Iterator[None]:
    """Its disk is full, or read-only: it takes nothing that it could not keep."""
    with raw(outage.url) as client:
        in_place = failed_save(client)
        yield
        in_place.rmdir()
        client.bgsave()
        until(lambda: _persistence(client)["rdb_last_bgsave_status"] == "ok", "it to save again")


@contextmanager
def full(outage: Outage) -> Iterator[None]:
    """Its memory is full, and it may throw nothing away."""
    with set_to(outage, "maxmemory", "1"):
        yield


@contextmanager
def without_replicas(outage: Outage) -> Iterator[None]:
    """It is to take nothing that no replica has."""
    with set_to(outage, "min-replicas-to-write", "1"):
        yield


@contextmanager
def without_scripts(outage: Outage) -> Iterator[None]:
    """Somebody took a right away from the user."""
    with raw(outage.url) as client:
        client.execute_command("ACL", "SETUSER", "default", "-@scripting")  # type: ignore[no-untyped-call]
        yield
        client.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]


@contextmanager
def busy(outage: Outage) -> Iterator[None]:
    """Somebody else's script runs for ever."""
    with raw(outage.url) as client, raw(outage.url) as other:
        client.config_set("busy-reply-threshold", 10)

        def run() -> None:
            with suppress(redis.RedisError):  # killed
                other.eval("while true do end", 0)

        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: "BUSY" in _said(client), "it to be busy")
        yield
        client.script_kill()
        thread.join()


@contextmanager
def loading(outage: Outage) -> Iterator[None]:
    """It was killed and started again, and reads what it saved, which is much."""
    with raw(outage.url) as client:
        with client.pipeline(transaction=False) as pipe:
            for number in range(KEYS):
                pipe.set(f"of somebody else:{number}", "x" * 100)
            pipe.execute()
        client.save()
        outage.kill()
        starter = threading.Thread(target=outage.start)
        starter.start()
        until(lambda: "loading" in _said(client), "it to load")
        yield
        client.config_set("key-load-delay", 0)
        starter.join()
        until(lambda: _said(client) == "True", "it to have loaded")


@contextmanager
def set_to(outage: Outage, name: str, value: str) -> Iterator[None]:
    """Set a thing, and back."""
    with raw(outage.url) as client:
        (before,) = client.config_get(name).values()
        client.config_set(name, value)
        yield
        client.config_set(name, before or "")


def _persistence(client: redis.Redis) -> Any:
    return client.info("persistence")


def _said(client: redis.Redis) -> str:
    try:
        return str(client.ping())
    except redis.RedisError as error:
        return str(error)


DAYS = (
    Day("read-only", "is a read-only replica", read_only),
    Day("can't save", "refuses to write, since it can't save", cant_save),
    Day("full", "refuses to write, since its memory is full", full),
    Day("without replicas", "refuses to write, since too few replicas follow it", without_replicas),
    Day("without scripts", "forbids this user a command", without_scripts, reads=False),
    Day("busy", "busy running a script", busy, reads=False),
    Day(
        "loading",
        "is still loading its data",
        loading,
        reads=False,
        config={"key-load-delay": str(LOAD_DELAY_US), "loading-process-events-interval-bytes": "1024"},
    ),
)


def on_days(turn: int = 0) -> pytest.MarkDecorator:
    """Have a test on each day, on one server each, by turns."""
    cases = [
        pytest.param(day, day.config, kind, id=f"{day.name}-{kind}")
        for number, day in enumerate(DAYS)
        for kind in kinds(number + turn)
    ]
    return pytest.mark.parametrize(("day", "config", "kind"), cases)
