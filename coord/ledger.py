"""The record in Redis: runs the calls of `record`, reads events, listens. The only file that speaks to Redis.

Two doors to the same calls: `Ledger` blocks (commands), `AsyncLedger` does not (agents, asyncio programs). Redis'
errors become ours here and nowhere else; `connect` opens the connections.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import redis

from coord import connect
from coord.connect import ANSWER_TIMEOUT_S
from coord.decode import MessageError
from coord.errors import CoordError
from coord.keys import CONTROL_CHANNEL, JOBS_INDEX
from coord.messages import Event
from coord.redis_errors import mapped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from coord.places import Surroundings
    from coord.record import Call, Record

EVENTS_PER_READ = 1000
RQ_JOBS_PER_READ = 1000
WAIT_S = 1.0  # for replicas

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

    def run(self, call: Call[T]) -> T:
        """Run one script and read its answer."""
        text, sha = _script(call.script)
        with mapped(self._url):
            try:
                reply = self._redis.evalsha(sha, len(call.keys), *call.keys, *call.args)
            except redis.exceptions.NoScriptError:
                reply = self._redis.eval(text, len(call.keys), *call.keys, *call.args)
        return _decoded(call, reply)

    def copies(self, call: Call[Any]) -> int:
        """Tell on how many replicas all is that was written of the call's job; gives up after WAIT_S with how many."""
        with mapped(self._url), self._redis.pipeline(transaction=False) as pipe:
            known, copies = _together(pipe, call, self.min_replicas).execute()
        return int(copies) if known else 0

    def events(self, record: Record, after: str, wait_s: float) -> list[Event]:
        """Read the job's events after an id (`0` = from the beginning), waiting up to `wait_s` for the first one."""
        with mapped(self._url):
            reply = self._redis.xread({record.events_key: after}, count=EVENTS_PER_READ, block=_block_ms(wait_s))
        return _events(reply)

    def job_ids(self, first: int, count: int) -> list[str]:
        """Give one page of the index of jobs, the newest first."""
        with mapped(self._url):
            names: Any = self._redis.zrevrange(JOBS_INDEX, first, first + count - 1)
        return [name.decode() for name in names]

    def remember(self, job_id: str) -> None:
        """Put the job into the index that `coord jobs` lists."""
        with mapped(self._url):
            self._redis.zadd(JOBS_INDEX, {job_id: _us(self._redis.time())})

    def forget(self, job_id: str) -> None:
        """Take the job out of the index."""
        with mapped(self._url):
            self._redis.zrem(JOBS_INDEX, job_id)

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
            self._ear = connect.ear(url)

    async def run(self, call: Call[T]) -> T:
        """Run one script and read its answer."""
        text, sha = _script(call.script)
        with _awaited(self._url):
            try:
                reply = await self._redis.evalsha(sha, len(call.keys), *call.keys, *call.args)
            except redis.exceptions.NoScriptError:
                reply = await self._redis.eval(text, len(call.keys), *call.keys, *call.args)
        return _decoded(call, reply)

    async def pause(self, wait_s: float) -> None:
        """Let a while pass."""
        await asyncio.sleep(wait_s)

    async def copies(self, call: Call[Any]) -> int:
        """Tell on how many replicas all is that was written of the call's job; gives up after WAIT_S with how many."""
        with _awaited(self._url):
            async with self._redis.pipeline(transaction=False) as pipe:
                known, copies = await _together(pipe, call, self.min_replicas).execute()
        return int(copies) if known else 0

    async def events(self, record: Record, after: str, wait_s: float) -> list[Event]:
        """Read the job's events after an id (`0` = from the beginning), waiting up to `wait_s` for the first one."""
        with _awaited(self._url):
            reply = await self._redis.xread({record.events_key: after}, count=EVENTS_PER_READ, block=_block_ms(wait_s))
        return _events(reply)

    async def job_ids(self, first: int, count: int) -> list[str]:
        """Give one page of the index of jobs, the newest first."""
        with _awaited(self._url):
            names: Any = await self._redis.zrevrange(JOBS_INDEX, first, first + count - 1)
        return [name.decode() for name in names]

    async def remember(self, job_id: str) -> None:
        """Put the job into the index that `coord jobs` lists."""
        with _awaited(self._url):
            await self._redis.zadd(JOBS_INDEX, {job_id: _us(await self._redis.time())})

    async def forget(self, job_id: str) -> None:
        """Take the job out of the index."""
        with _awaited(self._url):
            await self._redis.zrem(JOBS_INDEX, job_id)

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


@contextmanager
def _awaited(url: str) -> Iterator[None]:
    """Do as `mapped`, and lose no cancellation: before Python 3.12, asyncio.wait_for in redis-py loses some."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        with mapped(url):
            yield
    except CoordError:
        if task is None or task.cancelling() <= before:
            raise
    if task and task.cancelling() > before:
        raise asyncio.CancelledError


def _together(pipe: Any, call: Call[Any], count: int) -> Any:
    """Put a write on the job, and a wait for the replicas to have it, on one connection: WAIT knows no other's writes.

    What was written before has come to them before. A job that is not there any more was lost, and has no copies.
    """
    pipe.expire(call.keys[0], call.args[0])
    pipe.wait(count, round(WAIT_S * 1000))
    return pipe


def _decoded(call: Call[T], reply: Any) -> T:
    try:
        return call.decode(reply)
    except MessageError as error:
        raise CoordError(f"the record has something in {call.keys[0]} that this coord can't read: {error}") from error


def script_text(name: str) -> str:
    """Give a script as the server gets it: the prelude, then the script's own file."""
    folder = Path(__file__).parent / "lua"
    return (folder / "prelude.lua").read_text() + (folder / f"{name}.lua").read_text()


@cache
def _script(name: str) -> tuple[str, str]:
    text = script_text(name)
    # SHA-1 is Redis' name for a script, not a protection
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _us(time: Any) -> int:
    """Give what TIME answered, in microseconds."""
    seconds, micros = time
    return int(seconds) * 1_000_000 + int(micros)


def _block_ms(wait_s: float) -> int | None:
    """XREAD takes 0 for ever, and an idle server ends the shortest wait with its next tick, up to 100 ms later."""
    return round(min(wait_s, ANSWER_TIMEOUT_S / 2) * 1000) or None


def _events(reply: Any) -> list[Event]:
    """RESP2 answers with a list of streams, RESP3 with a map of them."""
    streams = reply.items() if isinstance(reply, dict) else reply or ()
    return [_event(entry) for _, entries in streams for entry in _flat(entries)]


def _flat(entries: Any) -> list[Any]:
    """RESP3 nests a stream's entries one list deeper than RESP2."""
    return [entry for part in entries for entry in part] if entries and isinstance(entries[0], list) else list(entries)


def _event(entry: Any) -> Event:
    event_id, fields = entry
    return Event(
        id=event_id.decode(),
        kind=fields[b"kind"].decode(),
        at_us=int(fields[b"at_us"]),
        detail=json.loads(fields[b"detail"]),
    )
