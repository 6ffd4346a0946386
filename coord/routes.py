"""Which of several servers a command goes to, and what is done when it is the wrong one, or gone.

Written once, as coroutines: `routed` gives them hands that block or wait. A Sentinel's service has one server, the
primary; a Cluster has one for each hash slot. Where they are is asked when it is not known, or was seen to be wrong.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import redis

from coord.address import place
from coord.places import Inquirer, NobodyError, elsewhere, find, look_around, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coord.address import Topology
    from coord.places import Map, Surroundings

START_S = 15.0  # how long one that was never reached is looked for: a failover may be under way
NOBODY_S = 1.0  # and when not one sentinel or node answers
PAUSE_S = 0.05
PAUSE_MAX_S = 0.5
HOPS_MAX = 8  # redirections of one command
KEYED = {"EXPIRE", "HSCAN", "XRANGE", "ZADD", "ZREM", "ZREVRANGE"}  # their first word is the key


class Hands(Inquirer, Protocol):
    """Does what is decided here. Each raises what redis-py raises."""

    async def call(self, url: str, words: tuple[Any, ...], options: dict[str, Any], *, asking: bool) -> Any:
        """Have a server run one command; `asking`: of a slot that is being moved there."""

    async def batch(self, url: str, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Have a server run commands on one connection; gives errors in place of answers."""

    async def pause(self, seconds: float) -> None:
        """Let time pass."""


@dataclass
class _Attempt:
    """One command on its way. `sent_to`: the URL that a node named; `asking`: of a slot that is being moved there."""

    began_s: float = field(default_factory=time.monotonic)
    pause_s: float = PAUSE_S
    hops: int = 0
    sent_to: str = ""
    asking: bool = False
    lost: redis.exceptions.RedisError | None = None  # the first answer that did not come: it may have been done


@dataclass
class Router:
    """Runs commands. `patience_s`: how long a call may look for the server it needs, when one is to be expected."""

    told: Topology
    hands: Hands
    patience_s: float
    on_found: Callable[[tuple[str, ...]], None] | None = None
    _map: Map | None = None
    _failed: str = ""  # the place that was asked in vain: asked last where things are
    _answered: bool = False
    _seeds: tuple[str, ...] = field(default=())

    async def call(self, words: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Run one command where its key is."""
        return await self._tried(key_of(words), lambda url, asking: self.hands.call(url, words, options, asking=asking))

    async def batch(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Run commands where the key of the first one is, on one connection; gives errors in place of answers."""

        async def together(url: str, asking: bool) -> list[Any]:
            sent = [("ASKING",), *commands] if asking else commands
            answers = (await self.hands.batch(url, sent))[-len(commands) :]
            first = answers[0]
            if isinstance(first, redis.exceptions.AskError) or (isinstance(first, Exception) and elsewhere(first)):
                raise first
            return answers

        return list(await self._tried(key_of(commands[0]), together))

    async def ear(self) -> str:
        """Give the URL of a server to listen at: what is published in a Cluster, all its nodes hear."""
        found = await self.found()
        if self.told.kind == "sentinel":
            return self.told.server_url(found.place(None))
        choice = [each for each in found.places if each != self._failed] or list(found.places)
        return self.told.server_url(random.choice(choice))  # noqa: S311  # spreads the load

    def forget(self, url: str) -> None:
        """Ask again where things are, and not at this URL first."""
        self._failed = (
            next((each for each in self._map.places if self.told.server_url(each) == url), "") if self._map else ""
        )
        self._map = None

    async def found(self) -> Map:
        """Give the map; find it when there is none."""
        if self._map is None:
            self._map = await find(self.told, self.hands, self._known())
            if self.on_found:
                self.on_found(tuple(self.told.server_url(each) for each in self._map.places))
            self._seeds = self._map.places if self.told.kind == "cluster" else ()
        return self._map

    def _known(self) -> list[str]:
        """Give whom to ask: in a Cluster also nodes that were learned of; the one that failed last."""
        every = list(dict.fromkeys((*self._seeds, *self.told.seeds)))
        if self.told.kind == "cluster":
            random.shuffle(every)
        return sorted(every, key=lambda each: each == self._failed)

    async def look_around(self) -> Surroundings:
        """Ask each sentinel, or each node, what it sees."""
        return await look_around(self.told, self.hands, await self.found() if self.told.kind == "cluster" else None)

    async def _tried(self, key: str | None, do: Callable[[str, bool], Awaitable[Any]]) -> Any:
        """Do it at the right server, and again at another where that is of use, as long as patience lasts."""
        attempt = _Attempt()
        while True:
            url = ""
            try:
                url = attempt.sent_to or self.told.server_url((await self.found()).place(key))
                answer = await do(url, attempt.asking)
            except redis.exceptions.AskError as error:  # a MovedError is one, too
                self._go_there(attempt, error)
            except redis.exceptions.RedisError as error:
                await self._go_elsewhere(attempt, error, url)
            else:
                self._answered = True
                return answer

    def _go_there(self, attempt: _Attempt, error: redis.exceptions.AskError) -> None:
        """Go where a node of the Cluster sends us; raises what it said when that leads nowhere."""
        attempt.hops += 1
        if attempt.hops > HOPS_MAX or not error.host:
            raise error
        attempt.asking = not isinstance(error, redis.exceptions.MovedError)
        if not attempt.asking:
            self.forget("")
        attempt.sent_to = self.told.server_url(place(error.host, error.port))

    async def _go_elsewhere(self, attempt: _Attempt, error: redis.exceptions.RedisError, url: str) -> None:
        """Look for the right place again, after a pause; raises when that is of no use or patience is over."""
        attempt.sent_to, attempt.asking = "", False
        if not elsewhere(error):
            raise error
        if not isinstance(error, redis.exceptions.TryAgainError):
            self.forget(url)
        if url and isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError):
            attempt.lost = attempt.lost or error
        if time.monotonic() + attempt.pause_s > attempt.began_s + self._patience(error):
            raise attempt.lost or error
        await self.hands.pause(attempt.pause_s)
        attempt.pause_s = min(PAUSE_MAX_S, attempt.pause_s * 2)

    def _patience(self, error: Exception) -> float:
        patience_s = self.patience_s if self._answered else max(START_S, self.patience_s)
        return min(NOBODY_S, patience_s) if isinstance(error, NobodyError) and not self._answered else patience_s


def key_of(words: tuple[Any, ...]) -> str | None:
    """Give the key of a command that the record is asked with; None when it has none."""
    name = str(words[0])
    if name in {"EVALSHA", "EVAL", "EVALSHA_RO", "EVAL_RO"}:
        return text(words[3]) if int(words[2]) else None
    if name == "XREAD":
        return text(words[[text(word) for word in words].index("STREAMS") + 1])
    return text(words[1]) if name in KEYED else None
