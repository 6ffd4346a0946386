"""A Sentinel's service or a Cluster as one connection: `routes` decides where a command goes, this does it.

Speaks redis-py's commands, as far as the record needs them. `redis.cluster` is not used: in a failover it tries again
without a pause, and may send ASKING on another connection than what it is for. `redis.sentinel` believes the first one.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Self

import redis
import redis.asyncio
from redis.commands import AsyncCoreCommands, CoreCommands

from coord.finished import finished
from coord.places import elsewhere
from coord.routes import Router

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.address import Topology
    from coord.places import Surroundings

EAR_TRIES = 3  # nodes of a Cluster; one that has just died may still be listed


class Routed(CoreCommands):
    """Blocks. `opened(url, brief)` opens a connection to one server; `brief`: it must answer soon."""

    _event_dispatcher: Any = None  # redis-py's commands want one

    def __init__(self, told: Topology, patience_s: float, opened: Callable[[str, bool], redis.Redis]) -> None:
        self._hands = _BlockingHands(opened)
        self._router = Router(told, self._hands, patience_s)

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Run one command where its key is."""
        return finished(self._router.call(words, options))

    def pipeline(self, transaction: bool = False) -> Batch:  # noqa: ARG002  # as redis-py has it
        """Collect commands on keys of one slot, for one connection."""
        return Batch(lambda commands: finished(self._router.batch(commands)))

    def look_around(self) -> Surroundings:
        """Ask each sentinel, or each node, what it sees."""
        return finished(self._router.look_around())

    def primaries(self) -> list[str]:
        """Give the URL of each server that holds some of the keys."""
        found = finished(self._router.found())
        return [self._router.told.server_url(each) for each in found.primaries]

    def close(self) -> None:
        """Close all connections."""
        self._hands.close()


class AsyncRouted(AsyncCoreCommands):
    """Waits. See `Routed`."""

    _event_dispatcher: Any = None  # redis-py's commands want one

    def __init__(self, told: Topology, patience_s: float, opened: Callable[[str, bool], redis.asyncio.Redis]) -> None:
        self._hands = _AsyncHands(opened)
        self._router = Router(told, self._hands, patience_s)

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """Run one command where its key is."""
        return await self._router.call(words, options)

    def on_found(self, call: Callable[[tuple[str, ...]], None]) -> None:
        """Have it called with the URLs of all servers each time that they were looked for, and found."""
        self._router.on_found = call

    def pipeline(self, transaction: bool = False) -> Batch:  # noqa: ARG002  # as redis-py has it
        """Collect commands on keys of one slot, for one connection."""
        return Batch(self._router.batch)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._hands.aclose()


class Batch(CoreCommands):
    """Commands on keys of one slot; `execute` runs them on one connection, and raises the first error."""

    _event_dispatcher: Any = None  # redis-py's commands want one

    def __init__(self, run: Callable[[list[tuple[Any, ...]]], Any]) -> None:
        self._run = run
        self._commands: list[tuple[Any, ...]] = []

    def execute_command(self, *words: Any, **_options: Any) -> Any:
        """Keep it until `execute`."""
        self._commands.append(words)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._commands.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._commands.clear()

    def execute(self, raise_on_error: bool = True) -> Any:
        """Run all; waits where the connection does."""
        answers = self._run(list(self._commands))
        return _awaited(answers, raise_on_error) if asyncio.iscoroutine(answers) else _checked(answers, raise_on_error)


class RoutedEar:
    """Where one listens: it is found anew for each subscription. `opened(url)` opens a connection that may wait."""

    def __init__(
        self,
        told: Topology,
        brief: Callable[[str, bool], redis.asyncio.Redis],
        opened: Callable[[str], redis.asyncio.Redis],
    ) -> None:
        self._hands = _AsyncHands(brief)
        self._router = Router(told, self._hands, 0.0)
        self._opened = opened
        self._last: RoutedPubSub | None = None

    def pubsub(self) -> RoutedPubSub:
        """Give what subscribes."""
        self._last = RoutedPubSub(self._router, self._opened)
        return self._last

    def left_behind(self, urls: tuple[str, ...]) -> None:
        """Leave a server that is none of these: it may hang, and its connection never end."""
        if self._last is not None:
            self._last.leave_unless(urls)

    async def aclose(self) -> None:
        """Close what asked where to listen."""
        await self._hands.aclose()


class RoutedPubSub:
    """One subscription at one server; when it fails, another is to be made."""

    def __init__(self, router: Router, opened: Callable[[str], redis.asyncio.Redis]) -> None:
        self._router = router
        self._opened = opened
        self._url = ""
        self._client: redis.asyncio.Redis | None = None
        self._pubsub: Any = None
        self._waiting: asyncio.Timeout | None = None  # for a message

    async def subscribe(self, channel: str) -> None:
        """Find a server and subscribe there."""
        for tries_left in reversed(range(EAR_TRIES)):
            try:
                self._url = await self._router.ear()
                self._client = self._opened(self._url)
                self._pubsub = self._client.pubsub()
                await self._pubsub.subscribe(channel)
            except redis.exceptions.RedisError as error:
                self._router.forget(self._url)
                if not tries_left or not elsewhere(error):
                    raise
                await self.aclose()
            else:
                return

    async def get_message(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109  # as redis-py has it
        """Wait for a message."""
        try:
            async with asyncio.timeout(None) as self._waiting:
                return await self._pubsub.get_message(timeout=timeout)
        except TimeoutError as error:
            self._router.forget(self._url)
            raise redis.exceptions.ConnectionError("what is published is published elsewhere now") from error
        except redis.exceptions.RedisError:
            self._router.forget(self._url)
            raise
        finally:
            self._waiting = None

    def leave_unless(self, urls: tuple[str, ...]) -> None:
        """Wait no longer, unless it is at one of these. A connection that hangs would not tell if it were closed."""
        if self._waiting is not None and self._url not in urls:
            self._waiting.reschedule(0.0)

    async def aclose(self) -> None:
        """Unsubscribe, and close the connection."""
        if self._pubsub is not None:
            await self._pubsub.aclose()
        if self._client is not None:
            await self._client.aclose()


class _BlockingHands:
    def __init__(self, opened: Callable[[str, bool], redis.Redis]) -> None:
        self._opened = opened
        self._clients: dict[str, redis.Redis] = {}

    async def call(self, url: str, words: tuple[Any, ...], options: dict[str, Any], *, asking: bool) -> Any:
        client = self._client(url)
        if not asking:
            return client.execute_command(*words, **options)  # type: ignore[no-untyped-call]
        return (await self._together(client, [("ASKING",), words], raise_on_error=True))[1]

    async def batch(self, url: str, commands: list[tuple[Any, ...]]) -> list[Any]:
        return await self._together(self._client(url), commands, raise_on_error=False)

    async def inquire(self, url: str, *words: str) -> Any:
        client = self._opened(url, True)  # noqa: FBT003
        try:
            return client.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            client.close()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  # there is no event loop: see `finished`

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _client(self, url: str) -> redis.Redis:
        if url not in self._clients:
            self._clients[url] = self._opened(url, False)  # noqa: FBT003
        return self._clients[url]

    async def _together(
        self, client: redis.Redis, commands: list[tuple[Any, ...]], *, raise_on_error: bool
    ) -> list[Any]:
        with client.pipeline(transaction=False) as pipe:
            for words in commands:
                pipe.execute_command(*words)  # type: ignore[no-untyped-call]
            return list(pipe.execute(raise_on_error=raise_on_error))


class _AsyncHands:
    def __init__(self, opened: Callable[[str, bool], redis.asyncio.Redis]) -> None:
        self._opened = opened
        self._clients: dict[str, redis.asyncio.Redis] = {}

    async def call(self, url: str, words: tuple[Any, ...], options: dict[str, Any], *, asking: bool) -> Any:
        client = self._client(url)
        if not asking:
            return await client.execute_command(*words, **options)  # type: ignore[no-untyped-call]
        return (await self._together(client, [("ASKING",), words], raise_on_error=True))[1]

    async def batch(self, url: str, commands: list[tuple[Any, ...]]) -> list[Any]:
        return await self._together(self._client(url), commands, raise_on_error=False)

    async def inquire(self, url: str, *words: str) -> Any:
        client = self._opened(url, True)  # noqa: FBT003
        try:
            return await client.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def _client(self, url: str) -> redis.asyncio.Redis:
        if url not in self._clients:
            self._clients[url] = self._opened(url, False)  # noqa: FBT003
        return self._clients[url]

    async def _together(
        self, client: redis.asyncio.Redis, commands: list[tuple[Any, ...]], *, raise_on_error: bool
    ) -> list[Any]:
        async with client.pipeline(transaction=False) as pipe:
            for words in commands:
                pipe.execute_command(*words)
            return list(await pipe.execute(raise_on_error=raise_on_error))


async def _awaited(answers: Any, raise_on_error: bool) -> list[Any]:
    return _checked(await answers, raise_on_error)


def _checked(answers: list[Any], raise_on_error: bool) -> list[Any]:
    for answer in answers if raise_on_error else ():
        if isinstance(answer, Exception):
            raise answer
    return answers
