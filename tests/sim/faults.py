"""Guards of coord, taken away one by one: histories must find each. A fault is planted in all that runs in `with`."""

from __future__ import annotations

from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from coord import ledger, memory
from coord.channel import Channel
from coord.record import Record
from coord.seal import Keyring
from tests.sim import history
from tests.sim.draw import draw
from workers.keeper import Keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


@contextmanager
def without(script: str, guard: str, instead: str) -> Iterator[None]:
    """Plant one in a script: `guard` stands there once, and is replaced. In `prelude`, it is in all of them."""
    whole = ledger.script_text

    def text(name: str) -> str:
        found = whole(name)
        if script in {name, "prelude"}:
            assert found.count(guard) == 1, f"{script} has no such guard any more: {guard}"
            return found.replace(guard, instead)
        return found

    def forget() -> None:
        ledger._script.cache_clear()
        history.scripts.cache_clear()

    with patch.object(ledger, "script_text", text):
        forget()
        try:
            yield
        finally:
            forget()


@contextmanager
def fence_off() -> Iterator[None]:
    """`join` lets in whoever comes after the request, and tells nothing of it."""
    silent = "local told = request('joined')\ntold[2] = false\nreturn told"
    with without("join", "if fenced() then", "if false then"), without("join", "return request('joined')", silent):
        yield


def starts_in_spite() -> AbstractContextManager[Any]:
    """An agent that has heard of the request goes on to start children."""
    return patch.object(Keeper, "may_start", lambda _: True)


def no_second_look() -> AbstractContextManager[Any]:
    """After a new subscription, the record is not read again."""

    async def take(self: Channel, message: bytes | None) -> None:
        if message is not None:
            await whole(self, message)

    whole = Channel._take
    return patch.object(Channel, "_take", take)


def lease_ignored() -> AbstractContextManager[Any]:
    """Whose lease has ended is not called lost."""
    return without("prelude", "redis.call('ZADD', LOST, int(NOW_US), agent_id)\n  event", "event")


def leases_for_ever() -> AbstractContextManager[Any]:
    """Nobody looks at leases at all."""
    return without("prelude", "ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', until_us))", "ipairs({})")


def verdict_early() -> AbstractContextManager[Any]:
    """The verdict does not wait for those who have to answer."""
    return without("prelude", "if not fenced() or redis.call('ZCARD', LEASES) > 0 then", "if not fenced() then")


def no_patience() -> AbstractContextManager[Any]:
    """Leases that ended while Redis was away count as ended."""
    return without("prelude", "return left_us > 0 and left_us <= PATIENCE_US", "return false and left_us")


def signature_unchecked() -> AbstractContextManager[Any]:
    """Whatever comes through Redis is believed, whoever signed it."""
    return patch.object(Keyring, "doubt", lambda *_: None)


def claims_believed() -> AbstractContextManager[Any]:
    """Requests are checked, but anybody may say that an agent has stopped."""

    def doubt(self: Keyring, seal: str, kind: str, *parts: str) -> Any:
        return None if kind == "report" else whole(self, seal, kind, *parts)

    whole = Keyring.doubt
    return patch.object(Keyring, "doubt", doubt)


def forgetful() -> AbstractContextManager[Any]:
    """A follower does not see that the server has lost what it knew."""
    return patch.object(memory, "lost", lambda *_: False)


def hope_for_proof() -> AbstractContextManager[Any]:
    """Who has no proof that all are gone counts as if they were."""

    def report(self: Record, info: Any, said: Any, kind: str, **how: Any) -> Any:
        call = whole(self, info, said, kind, **how)
        return type(call)(call.script, call.keys, (*call.args[:6], 0, *call.args[7:]), call.decode)

    whole = Record.report
    return patch.object(Record, "report", report)


FAULTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    each.__name__: each
    for each in (
        fence_off,
        starts_in_spite,
        no_second_look,
        lease_ignored,
        leases_for_ever,
        verdict_early,
        no_patience,
        hope_for_proof,
        signature_unchecked,
        claims_believed,
        forgetful,
    )
}


# what must go wrong for some to show: histories without it are passed over, which saves most of the time
NEEDS = {
    "no_second_look": {"reset", "restart", "amnesia"},
    "no_patience": {"restart", "amnesia"},
    "forgetful": {"amnesia"},
}


def found_after(fault: str, first: int, count: int) -> tuple[int, history.Ended] | None:
    """Play histories with a fault until one finds it: gives which one did. None: none of them did."""
    needs = NEEDS.get(fault, set())
    with FAULTS[fault]():
        for number in range(count):
            script = draw(Random(first + number))
            if needs and not needs & {trouble.kind for trouble in script.troubles}:
                continue
            ended = history.play(first + number)
            if ended.found:
                return number + 1, ended
    return None
