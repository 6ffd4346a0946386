"""Where things are in a Sentinel's service or a Cluster: asks sentinels and nodes, and knows when it was told wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import redis
from redis.crc import key_slot

from coord.address import place
from coord.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    from coord.address import Topology

SLOTS = 16384

# What a server says that is not (or no longer) the one to ask; scripts of Redis 6.2 wrap it into an error of their own.
NOT_HERE = ("READONLY", "read only replica", "MASTERDOWN", "MASTER is down", "UNBLOCKED", "NOREPLICAS", "CLUSTERDOWN")
SENTINELS_OWN = "Give its own credentials: ...?sentinel_username=USER&sentinel_password=PASSWORD"
NEVER = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "certificate")


class Inquirer(Protocol):
    """Asks; raises what redis-py raises."""

    async def inquire(self, url: str, *words: str) -> Any:
        """Ask a sentinel or a node where things are; it must answer soon."""


class NobodyError(redis.exceptions.ConnectionError):
    """No sentinel, or no node of the Cluster, answers."""


@dataclass(frozen=True, slots=True)
class Map:
    """Who serves which slots: first, last, and places, the primary's first, then its replicas'."""

    shards: tuple[tuple[int, int, tuple[str, ...]], ...]

    @property
    def primaries(self) -> tuple[str, ...]:
        """The places that serve something."""
        return tuple(dict.fromkeys(places[0] for _, _, places in self.shards))

    @property
    def places(self) -> tuple[str, ...]:
        """All places, of replicas too."""
        return tuple(dict.fromkeys(place for _, _, places in self.shards for place in places))

    def place(self, key: str | None) -> str:
        """Give the server for a key; for no key, any that serves some."""
        if key is None:
            return random.choice(self.primaries)  # noqa: S311  # spreads the load
        slot = key_slot(key.encode())
        for first, last, places in self.shards:
            if first <= slot <= last:
                return places[0]
        raise redis.exceptions.ClusterDownError("the Cluster has nobody who serves this job's slot now")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What each sentinel or node says: the fields of SENTINEL MASTER or CLUSTER INFO, or why it says nothing."""

    kind: str
    seen: dict[str, dict[str, str] | str]
    shards: tuple[tuple[int, int, tuple[str, ...]], ...]


async def find(told: Topology, hands: Inquirer, seeds: list[str]) -> Map:
    """Ask the sentinels or the nodes at these places."""
    return await (_sentinels_say if told.kind == "sentinel" else _nodes_say)(told, hands, seeds)


async def look_around(told: Topology, hands: Inquirer, found: Map | None) -> Surroundings:
    """Ask each sentinel, or each node that was found, what it sees."""
    places: tuple[str, ...] = found.places if found else told.seeds
    words = ("CLUSTER INFO",) if found else ("SENTINEL MASTER", told.service)
    seen: dict[str, dict[str, str] | str] = {}
    for each in places:
        try:
            url = told.server_url(each) if found else told.sentinel_url(each)
            seen[each] = _pairs(await hands.inquire(url, *words))
        except redis.exceptions.RedisError as error:
            seen[each] = str(error).rstrip(".")
    return Surroundings(told.kind, seen, found.shards if found else ())


def elsewhere(error: Exception) -> bool:
    """Tell whether the same command may succeed at another server, or here a moment later."""
    text = str(error)
    if any(word in text for word in NEVER):
        return False
    if isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.AuthorizationError):
        return False
    if isinstance(
        error,
        redis.exceptions.ConnectionError
        | redis.exceptions.TimeoutError
        | redis.exceptions.ReadOnlyError
        | redis.exceptions.ClusterDownError
        | redis.exceptions.TryAgainError,
    ):
        return True
    return any(word in text for word in NOT_HERE)


async def _sentinels_say(told: Topology, hands: Inquirer, seeds: list[str]) -> Map:
    """Ask all sentinels, and believe the one with the newest configuration: one that is cut off has an old one."""
    answers, unknown, failed = [], 0, None
    for seed in seeds:
        try:
            said = _pairs(await hands.inquire(told.sentinel_url(seed), "SENTINEL MASTER", told.service))
            answers.append((int(said.get("config-epoch", 0)), place(said["ip"], said["port"])))
        except redis.exceptions.ResponseError as error:
            if "No such" not in str(error):
                raise
            unknown += 1
        except redis.exceptions.AuthenticationError as error:
            raise UnreachableError("a sentinel wants a password, or another one", SENTINELS_OWN) from error
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
            if not elsewhere(error):
                raise
            failed = error
    if not answers and unknown:
        raise UsageError(f"the sentinels watch no service {told.service!r}", "Correct its name in the URL")
    if not answers:
        raise NobodyError(f"none of its {len(seeds)} sentinels answers: {failed}")
    primary = max(answers)[1]
    await _check_primary(told, hands, primary)
    return Map(((0, SLOTS - 1, (primary,)),))


async def _check_primary(told: Topology, hands: Inquirer, primary: str) -> None:
    """Sentinels name the next primary a moment before it knows, and the old one until they agree that it is gone."""
    try:
        role: Any = await hands.inquire(told.server_url(primary), "ROLE")
    except redis.exceptions.NoPermissionError:
        return  # a user who may not ask; the first write tells
    if text(role[0]) != "master":
        raise redis.exceptions.ReadOnlyError(f"{primary} is a read only replica, and the sentinels name no other yet")


async def _nodes_say(told: Topology, hands: Inquirer, seeds: list[str]) -> Map:
    """Ask one node after the other which node has which slots."""
    failed: Exception | None = None
    for seed in seeds:
        try:
            answer = await hands.inquire(told.server_url(seed), "CLUSTER SLOTS")
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
            if not elsewhere(error):
                raise
            failed = error
            continue
        if answer:
            own = seed.rpartition(":")[0].strip("[]")
            return _map(answer, own)
        failed = redis.exceptions.ClusterDownError("it serves no slots")
    raise NobodyError(f"none of its {len(seeds)} nodes answers: {failed}")


def _map(answer: Any, own_host: str) -> Map:
    """Read CLUSTER SLOTS: of each range the first and last slot, the primary, replicas. No host: the asked one."""
    shards = []
    for first, last, *nodes in answer:
        places = tuple(place(text(node[0] or b"") or own_host, int(node[1])) for node in nodes)
        shards.append((int(first), int(last), places))
    return Map(tuple(shards))


def _pairs(reply: Any) -> dict[str, str]:
    """RESP2 answers with names and values in turn, RESP3 with a map, CLUSTER INFO with lines."""
    if isinstance(reply, bytes | str):
        return dict(line.split(":", 1) for line in text(reply).splitlines() if ":" in line)
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {text(name): text(value) for name, value in pairs}


def text(value: Any) -> str:
    """Give what a server answered as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
