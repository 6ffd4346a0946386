"""`coord` without some of its ways to hear or to be heard, for controls: `python deaf.py GUARD[,GUARD] run ...`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from coord import memory
from coord.__main__ import main
from coord.channel import Channel
from coord.errors import CoordError
from coord.following import Follower
from coord.record import Record
from workers import membership
from workers.agent import Agent
from workers.membership import Membership

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.messages import ShutdownRequest

LONG_S = 3600.0
SLOW_LOOK_S = 2.0
SLOW_BEAT_S = 6.0  # less than a lease, more than anything else takes


def no_re_read() -> None:
    """Subscribed again, it goes on listening, as if nothing could have been said meanwhile."""
    take = Channel._take

    async def take_without(self: Channel, message: bytes | None) -> None:
        if message is not None:
            await take(self, message)

    put(Channel, "_take", take_without)


def no_beat() -> None:
    """Its heartbeats never come. Its lease is long, so that it is not lost over it."""
    join = Record.join
    put(membership, "BEAT_S", LONG_S)
    put(Record, "join", lambda self, info, plan, *_args, **_kwargs: join(self, info, plan, LONG_S))


def slow_beat() -> None:
    """They come so late that nobody mistakes what they bring for something else."""
    put(membership, "BEAT_S", SLOW_BEAT_S)


def no_asking_again() -> None:
    """Who follows does not repeat the request for those who are silent."""
    settle = Record.settle
    put(Record, "settle", lambda self, *args, **more: settle(self, *args, **{**more, "again": False}))


def no_memory() -> None:
    """What the server has lost of a request is not written again, by agents or by who follows."""

    def restore(_self: Agent) -> None:
        raise CoordError("this agent remembers nothing")

    async def stay_out(_self: Membership) -> None:
        pass

    put(Agent, "restore", restore)
    put(Membership, "enter_again", stay_out)
    put(memory, "lost", lambda *_snapshots: False)


def late_look() -> None:
    """Who follows takes long to look for the first time."""
    begin = Follower.begin

    async def begin_late(self: Follower, asked: ShutdownRequest | None = None) -> None:
        time.sleep(SLOW_LOOK_S)  # noqa: ASYNC251  # of a command, which has no event loop
        await begin(self, asked)

    put(Follower, "begin", begin_late)


def put(owner: object, name: str, value: Any) -> None:
    patch.object(owner, name, value).start()


GUARDS: dict[str, Callable[[], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (no_re_read, no_beat, slow_beat, no_asking_again, no_memory, late_look)
}

if __name__ == "__main__":
    for guard in sys.argv.pop(1).split(","):
        GUARDS[guard]()
    main()
