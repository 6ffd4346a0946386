"""Seals: who knows a secret of the fleet can say what nobody else can. HMAC-SHA256 over canonical bytes. Pure.

A seal is text: `v1:KEY:SIGNED_US:HEX`. KEY names the secret (the first 8 hex digits of its SHA-256), SIGNED_US is Redis
time by the signer's estimate. What it is put under has a word for its kind, so that no seal fits another kind; every
part is preceded by its length, so that no two lists of parts have the same bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from coord.messages import clip, dump

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coord.messages import ShutdownRequest
    from coord.plan import Plan

VERSION = "v1"
SECRET_MIN_BYTES = 16
STALE_US = 60_000_000  # a broadcast is refused so long after it was signed; a request is recorded within that, or never
_SEAL = re.compile(rf"{VERSION}:([0-9a-f]{{8}}):([0-9]{{1,16}}):([0-9a-f]{{64}})")


class Doubt(StrEnum):
    """Why something that came through Redis is not believed."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    UNSIGNED = "unsigned"
    UNKNOWN_KEY = "unknown-key"
    ALTERED = "altered"
    STALE = "stale"
    REPLAYED = "replayed"


DOUBT_WORDS = {
    Doubt.OVERSIZED: "it is too large",
    Doubt.MALFORMED: "it is no message of ours",
    Doubt.UNSIGNED: "it is not signed",
    Doubt.UNKNOWN_KEY: "it is signed with a secret that is not known here",
    Doubt.ALTERED: "it was altered after it was signed",
    Doubt.STALE: "it was signed too long ago",
    Doubt.REPLAYED: "it was sent a second time",
}


class Clock(Protocol):
    """Redis' time, estimated."""

    def now_us(self) -> int:
        """Give it as far as it is known."""

    def learn(self, now_us: int) -> None:
        """Take what an answer of the server said."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is not obeyed: why, and who it claims to be from."""

    doubt: Doubt
    by: str = ""
    job_id: str = ""

    @property
    def words(self) -> str:
        """Say that somebody wrote it into the record who does not have the secret, or has another one."""
        return (
            f"the record of job {self.job_id} holds a request that nobody obeys: {DOUBT_WORDS[self.doubt]} "
            f"(it claims to be from {self.by or 'nobody'})"
        )


class Keyring:
    """The secrets of a fleet: the first one signs, all verify. Never shows them."""

    def __init__(self, secrets: Sequence[bytes], clock: Clock) -> None:
        self._secrets = {key_id(secret): secret for secret in secrets}
        self._first = key_id(secrets[0])
        self.clock = clock

    def __repr__(self) -> str:
        """Name the keys."""
        return f"Keyring({self.ids})"

    @property
    def ids(self) -> str:
        """The names of its secrets, the signing one first."""
        return ",".join(self._secrets)

    def sign(self, kind: str, *parts: str) -> str:
        """Seal these parts, now."""
        head = f"{VERSION}:{self._first}:{max(0, self.clock.now_us())}"
        return f"{head}:{_mac(self._secrets[self._first], (kind, head, *parts))}"

    def doubt(self, seal: str, kind: str, *parts: str) -> Doubt | None:
        """Tell why these parts are not to be believed; None when the seal is a good one."""
        found = _SEAL.fullmatch(seal)
        if found is None:
            return Doubt.ALTERED if seal else Doubt.UNSIGNED
        secret = self._secrets.get(found[1])
        if secret is None:
            return Doubt.UNKNOWN_KEY
        made = _mac(secret, (kind, seal.rpartition(":")[0], *parts))
        return None if hmac.compare_digest(made, found[3]) else Doubt.ALTERED

    # -- requests ------------------------------------------------------------------------------------------------------

    def sign_request(self, job_id: str, request: ShutdownRequest) -> str:
        """Seal a request: what it says, its plan and revision; and when it was made, where that is known."""
        by, reason = (_as_read(clip(text)) for text in (request.by, request.reason))
        return self.sign("request", *_parts(job_id, replace(request, by=by, reason=reason), request.requested_us))

    def doubt_request(self, job_id: str, request: ShutdownRequest) -> Doubt | None:
        """Tell why the record's request of this job is not to be obeyed; if recorded in time, it is at any age."""
        doubt = self.doubt(request.seal, "request", *_parts(job_id, request, request.requested_us))
        if doubt is Doubt.ALTERED and request.rev == 1:  # who made it knew no time of the record
            doubt = self.doubt(request.seal, "request", *_parts(job_id, request, 0))
        if doubt is None and request.requested_us > signed_us(request.seal) + STALE_US:
            return Doubt.STALE
        return doubt

    def doubt_broadcast(self, request: ShutdownRequest) -> Doubt | None:
        """Tell why a request that was heard is not to be obeyed: it must be fresh, too."""
        doubt = self.doubt_request(request.job_id, request)
        stale = doubt is None and self.clock.now_us() > signed_us(request.seal) + STALE_US
        return Doubt.STALE if stale else doubt

    # -- reports -------------------------------------------------------------------------------------------------------

    def sign_report(self, job_id: str, agent_id: str, request_id: str, report: str) -> str:
        """Seal an agent's word, as JSON text, on what it did for a request; '' when it knows of none."""
        return self.sign("report", job_id, agent_id, request_id, report)

    def doubt_report(self, job_id: str, agent_id: str, request_id: str, report: str, *, seal: str) -> Doubt | None:
        """Tell why it is not to be believed. Who left before it heard of the request said what it says of any."""
        doubt = self.doubt(seal, "report", job_id, agent_id, request_id, report)
        if doubt is Doubt.ALTERED and request_id:
            return self.doubt(seal, "report", job_id, agent_id, "", report)
        return doubt

    def sign_swept(self, job_id: str, who: str, unproved_count: int, unproved: str) -> str:
        """Seal the word that nothing of the job is on RQ any more, but for what is named."""
        return self.sign("swept", job_id, who, str(unproved_count), unproved)

    def doubt_swept(self, job_id: str, who: str, unproved_count: int, unproved: str, *, seal: str) -> Doubt | None:
        """Tell why it is not to be believed."""
        return self.doubt(seal, "swept", job_id, who, str(unproved_count), unproved)


def key_id(secret: bytes) -> str:
    """Name a secret without telling it."""
    return hashlib.sha256(secret).hexdigest()[:8]


def signed_us(seal: str) -> int:
    """Give the time in a well-formed seal."""
    return int(seal.split(":")[2])


def _mac(secret: bytes, parts: Sequence[str]) -> str:
    return hmac.new(secret, canonical(parts), hashlib.sha256).hexdigest()


def canonical(parts: Sequence[str]) -> bytes:
    """Give bytes that no other list of texts has: each part after its length."""
    encoded = [part.encode(errors="surrogatepass") for part in parts]
    return b"".join(len(part).to_bytes(8, "big") + part for part in encoded)


def _parts(job_id: str, request: ShutdownRequest, since_us: int) -> tuple[str, ...]:
    texts = (request.id, request.job_id, request.cause, request.by, request.reason)
    return (job_id, *texts, _plan_text(request.plan), str(request.rev), str(since_us))


def _as_read(text: str) -> str:
    """Give a text as whoever decodes it will have it: `dump` puts question marks where it can't be encoded."""
    return text.encode(errors="replace").decode()


def _plan_text(plan: Plan) -> str:
    return dump(
        [[step["signal"], float(step["wait_s"]), float(step.get("wait_max_s", 0.0))] for step in plan.to_list()]
    )
