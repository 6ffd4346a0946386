"""Seals: no byte of what is sealed can be changed, no seal fits anything else, and no secret is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.messages import TEXT_MAX, Cause, ShutdownRequest
from coord.plan import ASKING, Plan, Step
from coord.seal import STALE_US, Doubt, Keyring, canonical, signed_us

NOW_US = 1_800_000_000_000_000
OLD, NEW, OTHERS = b"an old secret, 24 bytes.", b"a new secret, 24 bytes..", b"somebody else's secret.."


class Standing:
    """A clock that stands still until it is set."""

    def __init__(self, us: int = NOW_US) -> None:
        self.us = us

    def now_us(self) -> int:
        return self.us

    def learn(self, now_us: int) -> None:
        self.us = now_us


def ring(*secrets: bytes, us: int = NOW_US) -> Keyring:
    return Keyring(secrets or (NEW,), Standing(us))


def sealed(request: ShutdownRequest, keyring: Keyring | None = None) -> ShutdownRequest:
    """As the record has it: sealed by who knew no time of the record, then recorded."""
    keyring = keyring or ring()
    made = replace(request, requested_us=request.requested_us if request.rev > 1 else 0)
    return replace(request, seal=keyring.sign_request(request.job_id, made))


texts = st.text(max_size=40)
waits = st.floats(0, 1000)
plans = st.builds(
    lambda steps, kill_s: Plan(
        (*(Step(signal, wait_s, max_s) for signal, wait_s, max_s in steps), Step("SIGKILL", kill_s))
    ),
    st.lists(st.tuples(st.sampled_from(ASKING), waits, waits), max_size=4),
    st.floats(0.1, 1000),
)
requests = st.builds(
    ShutdownRequest,
    id=texts,
    job_id=texts,
    cause=st.sampled_from(Cause),
    by=texts,
    reason=texts,
    plan=plans,
    requested_us=st.just(NOW_US + 1000),
    rev=st.integers(1, 50),
)
REQUEST = ShutdownRequest("r1", "train-42", Cause.OPERATOR, "op@desk", "enough", Plan.of(10, 5), NOW_US + 1000)


@given(requests)
def test_what_was_sealed_is_believed(request: ShutdownRequest) -> None:
    """Whatever a request says, who has the secret believes it, from the record and from the channel."""
    assert ring().doubt_request(request.job_id, sealed(request)) is None
    assert ring().doubt_broadcast(sealed(request)) is None


@given(requests, st.data())
def test_any_change_of_any_sealed_field_is_refused(request: ShutdownRequest, data: st.DataObject) -> None:
    """One character, step or number that is not as it was signed: the whole request is refused."""
    name = data.draw(st.sampled_from(["id", "job_id", "cause", "by", "reason", "plan", "rev"]))
    drawn: dict[str, st.SearchStrategy[Any]] = {
        "cause": st.sampled_from(Cause),
        "plan": plans,
        "rev": st.integers(1, 60),
    }
    value = getattr(request, name)
    other = data.draw(drawn.get(name, edits(value) if isinstance(value, str) else texts))
    changed = replace(sealed(request), **{name: other})
    same = changed.plan.to_list() == request.plan.to_list() if name == "plan" else other == value
    doubt = ring().doubt_request(request.job_id, changed)
    assert (doubt is None) == same
    assert same or doubt is Doubt.ALTERED


def edits(text: str) -> st.SearchStrategy[str]:
    """One character more, less, or another."""
    places = st.integers(0, len(text))
    return st.one_of(
        st.builds(lambda place, char: text[:place] + char + text[place:], places, st.characters()),
        st.builds(lambda place, char: text[:place] + char + text[place + 1 :], places, st.characters()),
        st.builds(lambda place: text[:place] + text[place + 1 :], places),
    )


@given(st.data())
def test_any_change_of_the_seal_is_refused(data: st.DataObject) -> None:
    """A seal with another key, time or a single other character is none."""
    request = sealed(REQUEST)
    changed = data.draw(edits(request.seal))
    doubt = ring(NEW, OLD).doubt_request("train-42", replace(request, seal=changed))
    assert (doubt is None) == (changed == request.seal)


@pytest.mark.parametrize("name", ["by", "reason"])
def test_what_is_clipped_is_signed_as_it_is_read(name: str) -> None:
    """A text that is too long, or is no Unicode, is signed as its reader will have it."""
    import json

    for text in ("x" * (2 * TEXT_MAX), "caf\udce9"):
        made = replace(REQUEST, requested_us=0, **{name: text})  # type: ignore[arg-type]
        body = json.loads(made.body())
        read = replace(REQUEST, **{name: body[name]}, seal=ring().sign_request("train-42", made))
        assert ring().doubt_request("train-42", read) is None


def test_a_lone_surrogate_is_no_question_mark() -> None:
    """What is put in place of bytes that are no text is that and nothing else."""
    request = sealed(replace(REQUEST, by="caf?"))
    assert ring().doubt_request("train-42", replace(request, by="caf\udce9")) is Doubt.ALTERED


def test_another_jobs_request_is_refused() -> None:
    """A good request that stands in another job's record is none of that job's."""
    assert ring().doubt_request("train-43", sealed(REQUEST)) is Doubt.ALTERED


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4))
def test_no_two_lists_have_the_same_bytes(some: list[str], others: list[str]) -> None:
    """What moves from one part into the next changes the bytes."""
    assert (canonical(some) == canonical(others)) == (some == others)


def test_a_seal_of_one_kind_fits_no_other() -> None:
    """A report can't be passed off as a request, whatever it says."""
    keyring = ring()
    seal = keyring.sign("report", "a", "b")
    assert keyring.doubt(seal, "request", "a", "b") is Doubt.ALTERED
    assert keyring.doubt(seal, "report", "a", "b") is None


def test_unsigned_and_unknown() -> None:
    """Why something is not believed is said: no seal, a secret that is not ours, or no seal at all."""
    assert ring().doubt_request("train-42", REQUEST) is Doubt.UNSIGNED
    assert ring().doubt_request("train-42", sealed(REQUEST, ring(OTHERS))) is Doubt.UNKNOWN_KEY
    assert ring().doubt_request("train-42", replace(REQUEST, seal="v1:none")) is Doubt.ALTERED


def test_rotation() -> None:
    """The new secret signs, both verify; who has only one of them believes what that one signed."""
    both, old, new = ring(NEW, OLD), ring(OLD), ring(NEW)
    assert both.doubt_request("train-42", sealed(REQUEST, old)) is None
    assert both.doubt_request("train-42", sealed(REQUEST, new)) is None
    assert new.doubt_request("train-42", sealed(REQUEST, both)) is None
    assert old.doubt_request("train-42", sealed(REQUEST, both)) is Doubt.UNKNOWN_KEY


def test_a_broadcast_goes_stale_and_the_record_does_not() -> None:
    """What is heard must be fresh; what the record of the own job has holds at any age."""
    request = sealed(REQUEST)
    late = ring(us=signed_us(request.seal) + STALE_US + 1)
    assert late.doubt_broadcast(request) is Doubt.STALE
    assert late.doubt_request("train-42", request) is None
    assert ring(us=signed_us(request.seal) + STALE_US).doubt_broadcast(request) is None


def test_a_request_that_was_recorded_late_is_refused() -> None:
    """An old request that somebody writes into the record again, as if it were new, is not obeyed."""
    again = replace(sealed(REQUEST), requested_us=NOW_US + STALE_US + 1)
    assert ring().doubt_request("train-42", again) is Doubt.STALE


def test_when_a_hurried_request_was_made_is_sealed() -> None:
    """How long ago it was counts for a request that was made more urgent, so nobody can change that."""
    hurried = sealed(replace(REQUEST, rev=2))
    assert ring().doubt_request("train-42", replace(hurried, requested_us=NOW_US - 1)) is Doubt.ALTERED


def test_a_report_is_its_agents_on_its_request() -> None:
    """A report is believed of its job, agent and request; one that was made before the request was heard, of any."""
    keyring = ring()
    seal = keyring.sign_report("j", "a", "r1", "{}")
    assert keyring.doubt_report("j", "a", "r1", "{}", seal=seal) is None
    for whose in (("k", "a", "r1", "{}"), ("j", "b", "r1", "{}"), ("j", "a", "r2", "{}"), ("j", "a", "r1", "{ }")):
        assert keyring.doubt_report(*whose, seal=seal) is Doubt.ALTERED
    early = keyring.sign_report("j", "a", "", "{}")
    assert keyring.doubt_report("j", "a", "r1", "{}", seal=early) is None
    assert keyring.doubt_report("j", "a", "r1", "{ }", seal=early) is Doubt.ALTERED


def test_no_secret_is_shown() -> None:
    """A keyring that is printed, or stands in an error, names its keys and tells no secret."""
    shown = f"{ring(NEW, OLD)!r} {ring(NEW, OLD)}"
    assert NEW.decode() not in shown
    assert "Keyring(" in shown
