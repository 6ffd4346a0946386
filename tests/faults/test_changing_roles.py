"""A primary that becomes another one's replica, and the way back, while its clients stay where they are."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from coord.errors import STILL_RUNNING
from tests.faults.kinds import kinds
from tests.faults.stage import now_s, told
from tests.harness import until
from tests.outage import Outage
from tests.record.servers import free_port, raw

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import redis

    from tests.faults.stage import Stage

STOPPED = 143
QUICK = {"repl-diskless-sync-delay": "0"}
AWAY_S = 4.0


@pytest.fixture(params=kinds())
def kind(request: pytest.FixtureRequest) -> str:
    """The servers are of one kind."""
    return str(request.param)


@pytest.fixture
def config() -> Mapping[str, str]:
    """Replication goes over TCP."""
    return {**QUICK, "port": str(free_port())}


@pytest.fixture
def other(kind: str) -> Iterator[Outage]:
    """The other server."""
    with TemporaryDirectory(prefix="coord-faults-") as folder:
        outage = Outage(Path(folder), kind, {**QUICK, "port": str(free_port())})
        outage.start()
        yield outage
        outage.close()


def replicate(replica: redis.Redis, primary: redis.Redis) -> None:
    """Make one the other's replica, and wait until it has everything."""
    primary.replicaof("NO", "ONE")
    port: Any = primary.config_get("port")
    replica.replicaof("127.0.0.1", port["port"])
    until(lambda: _link(replica) == "up", "the replica to follow")


def _link(client: redis.Redis) -> str:
    info: Any = client.info("replication")
    return str(info.get("master_link_status"))


def test_who_stays_at_the_old_primary_obeys_the_new_one(stage: Stage, other: Outage) -> None:
    """The new primary's broadcast reaches listeners at the old one; their word gets through when that is one again.

    Until then the caller waits at the new one, and a caller at the old one is told to ask the primary.
    """
    rank = stage.begin("a")
    with raw(other.url) as new:
        replicate(new, stage.redis)
        replicate(stage.redis, new)
        began_s = now_s()
        asked = stage.shutdown("--no-wait", "--redis-url", other.url)
        assert (asked.code, asked.json["state"]) == (0, "stopping")
        stage.tell("obeyed_s", rank.obeyed(began_s))
        late = stage.shutdown("--timeout", f"{AWAY_S}s", "--redis-url", other.url)
        assert late.json["verdict"] is None
        wrong = stage.shutdown("--timeout", "2s")
        assert wrong.code == STILL_RUNNING
        assert "already requested by" in wrong.said[0], "a replica can be read"
        assert any("is a read-only replica" in line for line in wrong.said), wrong.err
        replicate(new, stage.redis)
    ended = told(stage.follow())
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    assert rank.end().code == STOPPED
