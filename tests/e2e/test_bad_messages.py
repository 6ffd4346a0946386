"""Forged, altered, stale, replayed, malformed, oversized messages: none is obeyed, no agent ends, each is counted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coord import channel, seal
from coord.channel import Channel
from coord.coordinator import new_request
from coord.keys import CONTROL_CHANNEL
from coord.logs import logger
from coord.messages import Cause
from coord.plan import Plan
from coord.record import Record
from coord.refusals import Refusals
from coord.seal import Doubt, Keyring
from tests.e2e.forger import Forger, message, sealed
from tests.harness import COORD, until
from tests.rings import OURS, ring

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coord.messages import ShutdownRequest
    from tests.harness import Lab, Started

COUNT = 500
SEED = 20_261_122
UNGUARDED = str(Path(__file__).with_name("unguarded.py"))


@pytest.fixture
def raw(server: str) -> Iterator[redis.Redis]:
    """A plain connection, as anybody on the network might have one."""
    with redis.Redis.from_url(server) as raw:
        yield raw


@pytest.fixture
def lab(lab: Lab, tmp_path: Path) -> Lab:
    """All of whose commands have the secret."""
    path = tmp_path / "secret"
    path.write_text(f"{OURS}\n")
    path.chmod(0o600)
    lab.environment["COORD_SECRET_FILE"] = str(path)
    return lab


def refused(lab: Lab, job: str) -> Counter[str]:
    return Counter(lab.status(job)["agents"][0]["refused"])


def flood(job: str, raw: redis.Redis) -> Counter[str]:
    """Publish them all to the one agent that listens; gives how many of which kind."""
    forger = Forger(job, ring(), SEED)
    forger.caught_before = forger.caught(f"{job}-other")
    raw.publish(CONTROL_CHANNEL, forger.caught_before)  # which is a good one, the first time
    sent: Counter[str] = Counter()
    for doubt, data in forger.messages(COUNT):
        assert raw.publish(CONTROL_CHANNEL, data) == 1, f"the agent no longer listens after {sent.total()}"
        sent[doubt] += 1
    return sent


def test_none_of_500_bad_messages_is_obeyed(lab: Lab, job: str, raw: redis.Redis) -> None:
    """500 bad messages on the real channel: the agent goes on, the record has each by its kind, a good one stops it."""
    run = lab.run(job, "sleep", "600")
    sent = flood(job, raw)
    assert len(sent) == len(Doubt)
    until(lambda: refused(lab, job).total() >= COUNT, "the agent to have counted all")
    assert refused(lab, job) == sent
    assert run.running
    assert [each["outcome"] for each in lab.status(job)["agents"][0]["processes"]] == ["running"]
    assert lab.call("shutdown", "--job-id", job).code == 0
    ended = run.end()
    assert ended.code == 143
    lines = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    said = [line for line in lines if line["event"] == "control.refused"]
    kinds = {line["kind"] for line in said}
    assert kinds == set(Doubt) - {Doubt.MALFORMED, Doubt.OVERSIZED}  # of these `control.ignored` speaks
    assert len(said) < 10 * len(kinds)
    assert all(line["claimed_by"].startswith("root@nowhere") for line in said)


def one_forged(lab: Lab, job: str, raw: redis.Redis, *program: str) -> Started:
    """Scenario: one message without a seal, that claims to be from somebody who may."""
    head, *words = program or (COORD,)
    run = lab.start(*words, "run", "--job-id", job, "--", "sleep", "600", program=head)
    until(lambda: (lab.status(job) or {"agents": [{}]})["agents"][0].get("processes"), "the child")
    raw.publish(CONTROL_CHANNEL, json.dumps(message(Forger(job, ring(), SEED).request())))
    return run


def test_one_forged_message_is_counted(lab: Lab, job: str, raw: redis.Redis) -> None:
    """The same message as in the control below, and nothing comes of it but a count."""
    run = one_forged(lab, job, raw)
    until(lambda: refused(lab, job) == {"unsigned": 1}, "the agent to have counted it")
    assert run.running
    assert lab.call("shutdown", "--job-id", job).code == 0
    assert run.end().code == 143


def test_control_without_verification_the_forged_message_stops_the_job(lab: Lab, job: str, raw: redis.Redis) -> None:
    """Negative control: with verification off, the message kills the job's processes."""
    run = one_forged(lab, job, raw, sys.executable, UNGUARDED, "credulous")
    ended = run.end()
    assert ended.code == 137
    assert any("root@nowhere" in line for line in ended.said)


# -- in process, where hypothesis makes more ---------------------------------------------------------------------------


class Ear:
    """A channel without a server."""

    def __init__(self) -> None:
        self.keyring = ring()
        self.obeyed: list[ShutdownRequest] = []
        log = logger("critical", sys.stderr)
        self.refusals = Refusals(log)
        self.channel = Channel(
            Deaf(),  # type: ignore[arg-type]  # nothing is listened to here
            self.obeyed.append,
            self._read_again,
            log,
            refusals=self.refusals,
            keyring=self.keyring,
        )

    async def _read_again(self) -> None:
        raise AssertionError("there is no subscription")

    def hears(self, data: bytes) -> bool:
        """Tell whether this is obeyed."""
        before, counted = len(self.obeyed), self._counted
        asyncio.run(self.channel._take(data))
        obeyed = len(self.obeyed) > before
        assert self._counted == counted + (not obeyed), "not counted, or counted twice"
        return obeyed

    @property
    def _counted(self) -> int:
        return sum(json.loads(self.refusals.told() or "{}").values())


class Deaf:
    """A ledger that hears nothing."""

    def listen(self) -> None:
        """Give nothing."""


GOOD = replace(
    new_request("train-42", Cause.OPERATOR, "op@desk", "enough"),
    plan=Plan.of(10, 5),
    requested_us=ring().clock.now_us(),
)


def good(ear: Ear) -> dict[str, Any]:
    return message(sealed(GOOD, ear.keyring))


def test_a_good_message_is_obeyed_once() -> None:
    """What is well signed is obeyed, the first time; and with the news that there are RQ jobs, once more."""
    ear = Ear()
    whole = good(ear)
    assert ear.hears(json.dumps(whole).encode())
    assert not ear.hears(json.dumps(whole).encode())
    assert ear.hears(json.dumps(whole | {"rq": 1}).encode())
    assert not ear.hears(json.dumps(whole | {"rq": 1}).encode())


def test_an_age_is_reckoned_not_believed() -> None:
    """How long ago a request was made is not what the message says of it, but what the clock says."""
    ear = Ear()
    assert ear.hears(json.dumps(good(ear) | {"elapsed_us": 10**15}).encode())
    assert ear.obeyed[0].elapsed_s < 3600


ANY = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])


@ANY
@given(st.data())
def test_a_changed_byte_is_not_obeyed(data: st.DataObject) -> None:
    """Any byte of a good message changed, added or taken out: refused, unless it says the very same to the agent."""
    ear = Ear()
    whole = json.dumps(good(ear)).encode()
    place = data.draw(st.integers(0, len(whole) - 1))
    instead = data.draw(st.binary(max_size=2))
    changed = whole[:place] + instead + whole[place + data.draw(st.integers(0, 2)) :]
    if ear.hears(changed):
        request = ear.obeyed[0]
        signed = ("id", "job_id", "cause", "by", "reason", "plan", "rev")
        assert [getattr(request, name) for name in signed] == [getattr(GOOD, name) for name in signed]


@ANY
@given(st.binary(max_size=400))
def test_any_bytes_are_not_obeyed(data: bytes) -> None:
    """Whatever bytes arrive, they are counted, and nothing ends."""
    assert not Ear().hears(data)


@ANY
@given(
    st.dictionaries(
        st.sampled_from(["v", "kind", "rev", "requested_us", "seal", "plan", "request"]),
        st.none() | st.integers() | st.text(max_size=90) | st.lists(st.integers(), max_size=3),
        min_size=1,
        max_size=3,
    )
)
def test_any_value_in_any_field_is_not_obeyed(changed: dict[str, Any]) -> None:
    """A field of a good message with another value: refused."""
    ear = Ear()
    whole = good(ear)
    obeyed = ear.hears(json.dumps(whole | changed).encode())
    assert not obeyed or all(whole[name] == value for name, value in changed.items())


def test_the_forger_makes_what_it_says() -> None:
    """Each bad message is refused for the reason that it was made for: the count above is of seven kinds."""
    ear = Ear()
    forger = Forger("train-42", ring(), SEED)
    forger.caught_before = forger.caught("train-43")
    assert ear.hears(forger.caught_before)
    for doubt, data in forger.messages(2 * COUNT):
        before = Counter(json.loads(ear.refusals.told() or "{}"))
        assert not ear.hears(data)
        assert Counter(json.loads(ear.refusals.told())) - before == {doubt: 1}, data[:300]


def made(kind: Doubt) -> tuple[bytes, bytes]:
    """Give a good message, and a bad one of this kind."""
    forger = Forger("train-42", ring(), SEED)
    forger.caught_before = forger.caught("train-43")
    return forger.caught_before, next(data for doubt, data in forger.messages(len(Doubt)) if doubt is kind)


GUARDS = {
    Doubt.UNSIGNED: (Keyring, "doubt", lambda *_: None),
    Doubt.UNKNOWN_KEY: (Keyring, "doubt", lambda *_: None),
    Doubt.ALTERED: (Keyring, "doubt", lambda *_: None),
    Doubt.STALE: (seal, "STALE_US", 10**15),
    Doubt.REPLAYED: (channel, "SEALS_MAX", 0),
}


@pytest.mark.parametrize("kind", GUARDS)
@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control"])
def test_each_guard_is_needed(monkeypatch: pytest.MonkeyPatch, kind: Doubt, *, guarded: bool) -> None:
    """What is refused by a guard is obeyed without it: the negative control of each kind."""
    if not guarded:
        where, name, instead = GUARDS[kind]
        monkeypatch.setattr(where, name, instead)
        monkeypatch.setattr(seal, "signed_us", lambda text: int((text or "::0").split(":")[2]) or ring().clock.now_us())
    ear = Ear()
    good_one, bad_one = made(kind)
    assert ear.hears(good_one)
    assert ear.hears(bad_one) is not guarded


def test_a_record_of_the_own_job_is_not_a_message() -> None:
    """The seals that are remembered are those of the channel: the record may be read any number of times."""
    keyring = ring()
    request = sealed(GOOD, keyring)
    assert [keyring.doubt_request(Record("train-42").job_id, request) for _ in range(3)] == [None] * 3
