"""The record in Redis: runs the calls of `record`, reads events, listens. The only file that speaks to Redis.

Two doors to the same calls: `Ledger` blocks (commands), `AsyncLedger` does not (agents, asyncio programs). Redis'
errors become ours here and nowhere else; `connect` opens the connections.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import redis
import redis.asyncio

from coord import connect, index
from coord.answers import awaited, block_ms, decoded, read, together
from coord.decode import decode_events
from coord.dialect import Dialect
from coord.door import EVENTS_PER_READ
from coord.errors import CoordError
from coord.keys import CONTROL_CHANNEL, JOBS_INDEX
from coord.redis_errors import mapped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence

    from coord.dialect import Command
    from coord.messages import Event
    from coord.places import Surroundings
    from coord.record import Call, Record

RQ_JOBS_PER_READ = 1000

T = TypeVar("T")


class Ledger:
    """The record on a blocking connection. Raises UnreachableError when Redis can't be used.

    `min_replicas`: how many replicas a new request should reach; see `copies`.
    """

    def __init__(self, url: str, connection: redis.Redis | None = None, *, min_replicas: int = 0) -> None:
        """Connect; or use a connection that there is, of which `url` is only what is said of it."""
        self._url = url
        self.min_replicas = min_replicas
        with mapped(url):
            self._redis = connection or connect.blocking(url)
        self._together = isinstance(self._redis, redis.Redis)  # what is routed pipelines the keys of one slot only
        self._dialect = _dialect()

    def run(self, call: Call[T]) -> T:
        """Run one script and read its answer."""
        with mapped(self._url):
            return decoded(call, self._reply(call))

    def run_all(self, calls: Sequence[Call[T]]) -> list[T | CoordError]:
        """Run scripts in one round trip. One that fails by itself, or can't be read, gives its error in its place."""
        replies: dict[int, Any] = {}
        with mapped(self._url):
            tried = {place: self._dialect.first(call) for place, call in enumerate(calls)}
            while tried:  # twice or thrice, until the server knows the scripts
                tried = self._dialect.sort(calls, tried, self._piped(tried.values()), replies)
        return [read(self._url, call, replies[place]) for place, call in enumerate(calls)]

    def copies(self, call: Call[Any]) -> int:
        """Tell on how many replicas all is that was written of the call's job; gives up after WAIT_S with how many."""
        with mapped(self._url), self._redis.pipeline(transaction=False) as pipe:
            known, copies = together(pipe, call, self.min_replicas).execute()
        return int(copies) if known else 0

    def events(self, record: Record, after: str, wait_s: float) -> list[Event]:
        """Read the job's events after an id (`0` = from the beginning), waiting up to `wait_s` for the first one."""
        with mapped(self._url):
            reply = self._redis.xread({record.events_key: after}, count=EVENTS_PER_READ, block=block_ms(wait_s))
        return decode_events(reply)

    def job_ids(self, first: int, count: int) -> list[str]:
        """Give one page of the index of jobs, the newest first."""
        with mapped(self._url):
            names: Any = self._redis.zrevrange(JOBS_INDEX, first, first + count - 1)
        return [name.decode() for name in names]

    def remember(self, job_id: str, *, again: bool = False, new_s: float = index.NEW_S) -> None:
        """Put the job into the index that `coord jobs` lists, and drop a few of those that have expired."""
        picked = self.run(index.remember(job_id, again=again, new_s=new_s))
        with suppress(CoordError):  # whose jobs they are may be none of this user's business
            there = self.run_all([index.exists(each) for each in picked])
            self.forget([each for each, found in zip(picked, there, strict=True) if found is False], new_s=new_s)

    def forget(self, job_ids: Sequence[str], *, new_s: float = index.NEW_S) -> None:
        """Take jobs of which there is no record out of the index."""
        if job_ids:
            self.run(index.forget(job_ids, new_s=new_s))

    def rq_jobs(self, record: Record) -> Iterator[tuple[str, str]]:
        """Give id and queue name of each RQ job that was enlisted; one may come twice."""
        with mapped(self._url):
            for rq_job, queue in self._redis.hscan_iter(record.rq_key, count=RQ_JOBS_PER_READ):
                yield rq_job.decode(), queue.decode()

    def ask(self, *words: str) -> Any:
        """Ask the server about itself, not about the record: `PING`, `TIME`, `INFO`, `CONFIG GET` and a name."""
        with mapped(self._url):
            return self._redis.execute_command(*words)  # type: ignore[no-untyped-call]

    @property
    def many(self) -> bool:
        """Tell whether the URL leads to more than one server."""
        return hasattr(self._redis, "look_around")

    def look_around(self) -> Surroundings | None:
        """Ask each sentinel or node that the URL leads to what it sees; None when it names one server."""
        with mapped(self._url):
            return self._redis.look_around() if self.many else None  # type: ignore[attr-defined]

    def primaries(self) -> list[str]:
        """Give the URL of each server that holds some of the record."""
        with mapped(self._url):
            return self._redis.primaries() if self.many else [self._url]  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    def _reply(self, call: Call[Any]) -> Any:
        command = self._dialect.first(call)
        while True:
            try:
                return self._redis.execute_command(*command)  # type: ignore[no-untyped-call]
            except redis.ResponseError as error:
                command = self._dialect.then(call, command, error)

    def _tried(self, command: Command) -> Any:
        try:
            return self._redis.execute_command(*command)  # type: ignore[no-untyped-call]
        except redis.ResponseError as error:
            return error

    def _piped(self, commands: Iterable[Command]) -> list[Any]:
        """Give answers and errors."""
        if not self._together:
            return [self._tried(command) for command in commands]
        with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)  # type: ignore[no-untyped-call]
            replies: list[Any] = pipe.execute(raise_on_error=False)
            return replies


class AsyncLedger:
    """The record on an asyncio connection, and the ear on the control channel.

    `retries`: how often a call is tried again when the connection fails; an agent does so by itself. `min_replicas`: as
    for a Ledger.
    """

    def __init__(self, url: str, *, retries: int = 0, min_replicas: int = 0) -> None:
        self._url = url
        self.min_replicas = min_replicas
        with mapped(url):
            self._redis = connect.waiting(url, retries)
            self._ear = connect.ear(url, self._redis)
        self._together = isinstance(self._redis, redis.asyncio.Redis)
        self._dialect = _dialect()

    async def run(self, call: Call[T]) -> T:
        """Run one script and read its answer."""
        with awaited(self._url):
            return decoded(call, await self._reply(call))

    async def run_all(self, calls: Sequence[Call[T]]) -> list[T | CoordError]:
        """Run scripts in one round trip. One that fails by itself, or can't be read, gives its error in its place."""
        replies: dict[int, Any] = {}
        with awaited(self._url):
            tried = {place: self._dialect.first(call) for place, call in enumerate(calls)}
            while tried:  # twice or thrice, until the server knows the scripts
                tried = self._dialect.sort(calls, tried, await self._piped(tried.values()), replies)
        return [read(self._url, call, replies[place]) for place, call in enumerate(calls)]

    async def pause(self, wait_s: float) -> None:
        """Let a while pass."""
        await asyncio.sleep(wait_s)

    async def copies(self, call: Call[Any]) -> int:
        """Tell on how many replicas all is that was written of the call's job; gives up after WAIT_S with how many."""
        with awaited(self._url):
            async with self._redis.pipeline(transaction=False) as pipe:
                known, copies = await together(pipe, call, self.min_replicas).execute()
        return int(copies) if known else 0

    async def events(self, record: Record, after: str, wait_s: float) -> list[Event]:
        """Read the job's events after an id (`0` = from the beginning), waiting up to `wait_s` for the first one."""
        with awaited(self._url):
            reply = await self._redis.xread({record.events_key: after}, count=EVENTS_PER_READ, block=block_ms(wait_s))
        return decode_events(reply)

    async def job_ids(self, first: int, count: int) -> list[str]:
        """Give one page of the index of jobs, the newest first."""
        with awaited(self._url):
            names: Any = await self._redis.zrevrange(JOBS_INDEX, first, first + count - 1)
        return [name.decode() for name in names]

    async def remember(self, job_id: str, *, again: bool = False, new_s: float = index.NEW_S) -> None:
        """Put the job into the index that `coord jobs` lists, and drop a few of those that have expired."""
        picked = await self.run(index.remember(job_id, again=again, new_s=new_s))
        with suppress(CoordError):  # whose jobs they are may be none of this user's business
            there = await self.run_all([index.exists(each) for each in picked])
            await self.forget([each for each, found in zip(picked, there, strict=True) if found is False], new_s=new_s)

    async def forget(self, job_ids: Sequence[str], *, new_s: float = index.NEW_S) -> None:
        """Take jobs of which there is no record out of the index."""
        if job_ids:
            await self.run(index.forget(job_ids, new_s=new_s))

    async def listen(self) -> AsyncGenerator[bytes | None, None]:
        """Yield None once subscribed, then each message. Ends with UnreachableError when the connection does."""
        pubsub = self._ear.pubsub()
        try:
            with mapped(self._url):
                await pubsub.subscribe(CONTROL_CHANNEL)
                while True:
                    message = await pubsub.get_message(timeout=None)
                    if message is None:
                        continue
                    if message["type"] == "subscribe":
                        yield None
                    elif message["type"] == "message":
                        yield message["data"]
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._ear.aclose()

    async def _reply(self, call: Call[Any]) -> Any:
        command = self._dialect.first(call)
        while True:
            try:
                return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]
            except redis.ResponseError as error:
                command = self._dialect.then(call, command, error)

    async def _tried(self, command: Command) -> Any:
        try:
            return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]
        except redis.ResponseError as error:
            return error

    async def _piped(self, commands: Iterable[Command]) -> list[Any]:
        """Give answers and errors."""
        if not self._together:
            return [await self._tried(command) for command in commands]
        async with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
            return replies


def _dialect() -> Dialect:
    return Dialect(lambda name: _script(name), read_only=True)  # noqa: PLW0108  # tests put another in its place


def script_text(name: str) -> str:
    """Give a script as the server gets it: the prelude, then the script's own file."""
    folder = Path(__file__).parent / "lua"
    return (folder / "prelude.lua").read_text() + (folder / f"{name}.lua").read_text()


@cache
def _script(name: str) -> tuple[str, str]:
    text = script_text(name)
    # SHA-1 is Redis' name for a script, not a protection
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
