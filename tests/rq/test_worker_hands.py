"""The hands of a worker: what moves jobs, and what it costs."""

from __future__ import annotations

import secrets
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from workers.rq_hands import Hands, Place, WakeUp

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def redis(server: str) -> Iterator[Redis]:
    """A client with few connections to spare."""
    client = Redis.from_url(server, max_connections=8)
    yield client
    client.close()


@pytest.fixture
def places() -> list[Place]:
    token = secrets.token_hex(4)
    return [Place(f"queue-{name}-{token}", f"hand-{name}-{token}") for name in "ab"]


@pytest.fixture
def hands(redis: Redis, places: list[Place]) -> Iterator[Hands]:
    hands = Hands(redis, WakeUp(), ours=True)
    yield hands
    hands.empty(places)


def nobody() -> bool:
    return False


def fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_many_waits_use_the_same_connections(redis: Redis, hands: Hands, places: list[Place]) -> None:
    """A hundred jobs that are waited for, from one queue and the other: two connections, and no more descriptors."""
    before = 0
    for number in range(100):
        place = places[number % 2]
        threading.Timer(0.002, redis.rpush, (place.queue, str(number))).start()
        taken = hands.take(places, 30.0, nobody)
        assert taken == (str(number), place)
        hands.drop(taken)
        if number == 10:
            before = fds()
    assert fds() <= before + 1


def test_of_two_jobs_at_once_the_first_queues_is_taken(redis: Redis, hands: Hands, places: list[Place]) -> None:
    """Both waits are answered at one instant: the other job is back in its queue, at the front."""
    for number in range(30):

        def push(number: int = number) -> None:
            with redis.pipeline() as pipeline:  # both of them, for the server, at once
                pipeline.rpush(places[1].queue, f"b{number}", "behind")
                pipeline.rpush(places[0].queue, f"a{number}")
                pipeline.execute()

        threading.Timer(0.002, push).start()
        taken = hands.take(places, 30.0, nobody)
        assert taken
        hands.drop(taken)
        left = redis.lrange(places[1].queue, 0, -1)
        assert (taken.job_id, left) == (f"a{number}", [f"b{number}".encode(), b"behind"])
        assert not redis.exists(places[0].hand, places[1].hand)
        redis.delete(places[1].queue)


def test_a_ring_at_any_instant_ends_the_wait_and_loses_nothing(redis: Redis, places: list[Place]) -> None:
    """A wake-up and a job race each other: the job is in the hand that is returned, or in its queue."""
    wake_up = WakeUp()
    hands = Hands(redis, wake_up, ours=True)
    over = threading.Event()
    for number in range(200):
        over.clear()

        def end() -> None:
            over.set()
            wake_up.ring()

        both = [
            threading.Timer(0.001, redis.rpush, (places[number % 2].queue, str(number))),
            threading.Timer(0.001, end),
        ]
        for each in both:
            each.start()
        taken = hands.take(places, 30.0, over.is_set)
        for each in both:
            each.join()
        if taken:
            hands.drop(taken)
        queued = [redis.lpop(place.queue) for place in places]
        found = [item.decode() for item in queued if isinstance(item, bytes)] + ([taken.job_id] if taken else [])
        assert found == [str(number)]
        assert not redis.exists(places[0].hand, places[1].hand)
    hands.empty(places)


def test_what_is_in_our_hand_already_comes_first(redis: Redis, hands: Hands, places: list[Place]) -> None:
    """An answer got lost: the job is in the hand, and nobody knows. It is taken before any other."""
    redis.rpush(places[0].queue, "next")
    redis.rpush(places[1].hand, "lost")
    assert hands.take(places, None, nobody) == ("lost", places[1])
    hands.drop(hands.take(places, None, nobody) or pytest.fail("nothing in the hand"))
    assert hands.take(places, None, nobody) == ("next", places[0])


def test_putting_back_twice_is_putting_back_once(redis: Redis, hands: Hands, places: list[Place]) -> None:
    """A retry after a lost answer does no harm."""
    redis.rpush(places[0].queue, "one", "two")
    taken = hands.take(places, None, nobody)
    assert taken
    hands.put_back(taken)
    hands.put_back(taken)
    assert redis.lrange(places[0].queue, 0, -1) == [b"one", b"two"]


def test_a_wake_up_before_the_wait_is_not_lost() -> None:
    """Who rings first is heard when the wait begins; and a full pipe rings, too."""
    wake_up = WakeUp()
    for _ in range(100_000):
        wake_up.ring()
    began_s = time.monotonic()
    wake_up.wait(60.0)
    assert time.monotonic() - began_s < 30
    wake_up.wait(0.0)  # all of it was taken back
