"""Makes messages that nobody may obey: what somebody could send who may publish in Redis, and has no secret.

Each comes with the kind of refusal that it must be counted under. The same seed makes the same messages.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from coord.coordinator import new_request
from coord.messages import MESSAGE_MAX_BYTES, Cause
from coord.plan import Plan
from coord.seal import Doubt, Keyring
from tests.rings import OTHERS, ring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coord.messages import ShutdownRequest

FIELDS = ("id", "job_id", "cause", "by", "reason", "plan", "rev")
STALE_S = 61.0


class Forger:
    """`ours`: the fleet's keyring, of which this one got hold of messages, not of secrets."""

    def __init__(self, job: str, ours: Keyring, seed: int) -> None:
        self._job = job
        self._ours = ours
        self._random = random.Random(seed)

    def messages(self, count: int) -> Iterator[tuple[Doubt, bytes]]:
        """Give so many, of each kind in turn."""
        makers: dict[Doubt, Callable[[], bytes]] = {
            Doubt.UNSIGNED: lambda: self._told(self.request()),
            Doubt.UNKNOWN_KEY: lambda: self._told(sealed(self.request(), ring(OTHERS))),
            Doubt.ALTERED: self._altered,
            Doubt.STALE: self._stale,
            Doubt.REPLAYED: self._replayed,
            Doubt.MALFORMED: self._malformed,
            Doubt.OVERSIZED: self._oversized,
        }
        for number in range(count):
            doubt = list(makers)[number % len(makers)]
            yield doubt, makers[doubt]()

    def caught(self, job: str) -> bytes:
        """Give a message as it was once sent, and heard by all: for a job that is none of theirs."""
        return self._told(sealed(self.request(job), self._ours))

    def request(self, job: str | None = None) -> ShutdownRequest:
        """Make one that would stop the job at once."""
        wish = new_request(job or self._job, Cause.OPERATOR, "root@nowhere", "gotcha")
        return replace(wish, plan=Plan.now(), requested_us=self._ours.clock.now_us())

    def _told(self, request: ShutdownRequest, **changed: Any) -> bytes:
        return json.dumps(message(request) | changed).encode()

    def _altered(self) -> bytes:
        """A message of theirs for another job, made into one for this one; or with any other field changed."""
        whole = message(sealed(self.request(f"{self._job}-other"), self._ours))
        name = self._random.choice(FIELDS)
        whole["request"]["job_id"] = self._job
        if name == "plan":
            whole["plan"] = Plan.now(self._random.uniform(0.1, 9)).to_list()
        elif name == "rev":
            whole["rev"] = self._random.randint(2, 99)
        elif name == "cause":
            whole["request"]["cause"] = self._random.choice([Cause.DRAIN, Cause.FAILURE, Cause.HOST_LOST])
        elif name != "job_id":
            whole["request"][name] += self._random.choice("xyz")
        return json.dumps(whole).encode()

    def _stale(self) -> bytes:
        """One for this very job that was signed with the secret, more than a minute ago."""
        past = ring(ahead_s=-STALE_S - self._random.uniform(0, 3600))
        request = self.request()
        return self._told(sealed(replace(request, requested_us=past.clock.now_us()), past))

    def _replayed(self) -> bytes:
        """A good one that was heard before, perhaps with another age."""
        whole = json.loads(self.caught_before)
        whole["elapsed_us"] = self._random.randint(0, 10**9)
        return json.dumps(whole).encode()

    caught_before = b""

    def _malformed(self) -> bytes:
        whole = json.dumps(message(sealed(self.request(), self._ours))).encode()
        cut = self._random.randint(0, len(whole) - 1)
        return self._random.choice(
            [
                whole[:cut],
                whole[:cut] + b"\xff" + whole[cut + 1 :],
                whole + whole[cut:],
                self._random.randbytes(cut),
                whole.replace(b'"v": 1', b'"v": 2'),
                whole.replace(b'"kind": "request"', b'"kind": "start"'),
            ]
        )

    def _oversized(self) -> bytes:
        whole = self._told(sealed(self.request(), self._ours))
        return whole.ljust(MESSAGE_MAX_BYTES + self._random.randint(1, 1000))


def sealed(request: ShutdownRequest, keyring: Keyring) -> ShutdownRequest:
    """Sign it."""
    return replace(request, seal=keyring.sign_request(request.job_id, request))


def message(request: ShutdownRequest) -> dict[str, Any]:
    """Give it as the scripts publish it."""
    return {
        "v": 1,
        "kind": "request",
        "rev": request.rev,
        "requested_us": request.requested_us,
        "elapsed_us": 0,
        **({"seal": request.seal} if request.seal else {}),
        "plan": request.plan.to_list(),
        "request": json.loads(request.body()),
    }
