"""Takes jobs from RQ's queues so that whose they are is known at every instant, and a wait can be ended at once.

A job moves from its queue to a list of the worker's (its hand) in one step of the server, LMOVE or BLMOVE; RQ's BLPOP
over several queues would have it nowhere for a moment, and lost with a worker that ends then. To wait for several
queues there is a connection for each, blocked in BLMOVE; poll(2) hears the first that answers, or a wake-up. The
others are unblocked by CLIENT UNBLOCK, or closed where that is forbidden; a second job that came so is put back.

Knows queues and hands by their keys alone; what is in them, and when to take, is the worker's affair.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis

GRACE_S = 5.0  # how much later than asked for a blocked connection may answer, before it is taken for dead
UNBLOCK_TRIES = 20
UNBLOCK_WAIT_S = 0.05
CONNECT_S = 5.0

# KEYS: queue, hand, queue, hand ...; ARGV[1] "1": what is in a hand already is ours, since an answer got lost
FIRST = """
if ARGV[1] == '1' then
  for i = 2, #KEYS, 2 do
    local held = redis.call('LINDEX', KEYS[i], 0)
    if held then return {i / 2, held} end
  end
end
for i = 1, #KEYS, 2 do
  local id = redis.call('LMOVE', KEYS[i], KEYS[i + 1], 'LEFT', 'RIGHT')
  if id then return {(i + 1) / 2, id} end
end
return false
"""
# KEYS: queue, hand; ARGV: job id. Nothing happens when it is not in the hand (any more).
PUT_BACK = """
if redis.call('LREM', KEYS[2], 1, ARGV[1]) == 1 then return redis.call('LPUSH', KEYS[1], ARGV[1]) end
return 0
"""


class Place(NamedTuple):
    """A queue and the hand for what comes from it: two keys."""

    queue: str
    hand: str


class Taken(NamedTuple):
    """A job that is in our hand."""

    job_id: str
    place: Place


class WakeUp:
    """Ends a wait of the main thread: for other threads, and for signals, whichever thread the kernel gives them to."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: int | None = None

    def listen(self) -> None:
        """Hear signals, too: those that have a handler. Main thread only."""
        if self._before is None:
            self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def close(self) -> None:
        """Give signals back to who had them."""
        if self._before is not None:
            signal.set_wakeup_fd(self._before)
            self._before = None

    def ring(self) -> None:
        """End the wait, or the next one."""
        with suppress(OSError):  # full: it rings already
            os.write(self._write, b"\0")

    def fileno(self) -> int:
        """Give what becomes readable."""
        return self._read

    def wait(self, timeout_s: float | None) -> None:
        """Wait until somebody rings."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000)
        self.clear()

    def clear(self) -> None:
        """Take back what rang so far."""
        with suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass


class Hands:
    """Takes from places, in their order; `ours`: the hands are this worker's alone."""

    def __init__(self, connection: Redis, wake_up: WakeUp, *, ours: bool) -> None:
        self._connection = connection
        self._wake_up = wake_up
        self._ours = ours
        self._waits: dict[Place, _Wait] = {}
        self._first = connection.register_script(FIRST)
        self._put_back = connection.register_script(PUT_BACK)

    def take(self, places: Sequence[Place], timeout_s: float | None, ended: Callable[[], bool]) -> Taken | None:
        """Take one job; None when there is none within the time (None: now), or when `ended` holds after a wake-up.

        Raises RedisError.
        """
        keys = [key for place in places for key in place]
        found: Any = self._first(keys=keys, args=["1" if self._ours else "0"])
        if found:
            return Taken(_text(found[1]), places[int(found[0]) - 1])
        if timeout_s is None or ended():
            return None
        return self._wait([self._wait_at(place) for place in places], timeout_s, ended)

    def put_back(self, taken: Taken) -> None:
        """Put a job back to where it came from: the front."""
        self._put_back(keys=list(taken.place), args=[taken.job_id])

    def drop(self, taken: Taken) -> None:
        """Let go of a job that is nowhere else, or need not be."""
        self._connection.lrem(taken.place.hand, 1, taken.job_id)

    def empty(self, places: Sequence[Place]) -> None:
        """Put back all that is in the hands, and wait for nothing any more."""
        for wait in self._waits.values():
            wait.close()
        for place in places if self._ours else ():
            for job_id in reversed(self._connection.lrange(place.hand, 0, -1)):
                self.put_back(Taken(_text(job_id), place))

    def forget(self) -> None:
        """Close the connections of this process's copy, in a fork; what is left of them is not worth the copying."""
        for wait in self._waits.values():
            wait.forget()

    def _wait_at(self, place: Place) -> _Wait:
        if place not in self._waits:
            self._waits[place] = _Wait(self._connection, place)
        return self._waits[place]

    def _wait(self, waits: list[_Wait], timeout_s: float, ended: Callable[[], bool]) -> Taken | None:
        try:
            for wait in waits:
                wait.ask(timeout_s)
            self._hear(waits, timeout_s, ended)
            self._unblock([wait for wait in waits if not wait.readable(0)])
            got = [Taken(job_id, wait.place) for wait in waits if (job_id := wait.answer()) is not None]
        except (RedisError, OSError):
            for wait in waits:
                wait.close()
            raise
        for other in got[1:]:
            self.put_back(other)
        return got[0] if got else None

    def _hear(self, waits: list[_Wait], timeout_s: float, ended: Callable[[], bool]) -> None:
        """Wait until a connection has an answer, a wake-up means that it is over, or the time is."""
        poll = select.poll()
        for fd in (self._wake_up.fileno(), *(wait.fileno() for wait in waits)):
            poll.register(fd, select.POLLIN)
        end_s = time.monotonic() + timeout_s + GRACE_S
        while (left_s := end_s - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(left_s * 1000)}
            if self._wake_up.fileno() in ready:
                self._wake_up.clear()
                if ended():
                    return
            if ready - {self._wake_up.fileno()}:
                return

    def _unblock(self, waits: list[_Wait]) -> None:
        """Have these answer now; a BLMOVE that is still on its way can't be unblocked yet, so ask again."""
        for _ in range(UNBLOCK_TRIES):
            if not waits:
                return
            with self._connection.pipeline(transaction=False) as pipeline:
                for wait in waits:
                    pipeline.client_unblock(wait.client_id)
                said = pipeline.execute(raise_on_error=False)
            if any(isinstance(each, ResponseError) for each in said):
                break  # forbidden
            waits = [wait for wait in waits if not wait.readable(UNBLOCK_WAIT_S)]
        for wait in waits:
            wait.close()
        for _ in waits[:1]:  # the server reads of a closed connection before it reads what was sent later
            self._connection.ping()


class _Wait:
    """A connection that is blocked on one queue."""

    def __init__(self, client: Redis, place: Place) -> None:
        self.place = place
        connection: Any = client.connection_pool.make_connection()
        connection.retry = Retry(NoBackoff(), 0)  # who waits here sees to it itself
        connection.socket_timeout = CONNECT_S  # only what is known to come is read
        connection.socket_connect_timeout = getattr(connection, "socket_connect_timeout", None) or CONNECT_S
        self._connection = connection
        self.client_id = 0

    def ask(self, timeout_s: float) -> None:
        """Block on the queue, for this long at most."""
        if not self._connection._sock:
            self._connection.connect()
            self._connection.send_command("CLIENT", "ID")
            self.client_id = int(self._connection.read_response())
        self._connection.send_command("BLMOVE", *self.place, "LEFT", "RIGHT", timeout_s)

    def fileno(self) -> int:
        """Give what becomes readable."""
        return int(self._connection._sock.fileno())

    def readable(self, timeout_s: float) -> bool:
        """Tell whether there is an answer, or the connection is gone."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def answer(self) -> str | None:
        """Give the job's id; None when there was none, or the wait was closed."""
        if not self._connection._sock:
            return None
        found = self._connection.read_response()
        return None if found is None else _text(found)

    def close(self) -> None:
        """End the connection."""
        self._connection.disconnect()

    def forget(self) -> None:
        """Close this process's copy of the socket; the connection is somebody else's."""
        if self._connection._sock:
            self._connection._sock.close()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
