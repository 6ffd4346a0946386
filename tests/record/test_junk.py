"""What arrives on the control channel: a request of ours, or refused with a reason. It never breaks an agent."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coord.decode import MessageError, decode_control
from coord.messages import MESSAGE_MAX_BYTES, TEXT_MAX, Cause, ShutdownRequest
from coord.plan import ASKING, STEPS_MAX, Plan, Step

REQUEST = ShutdownRequest("r1", "train-42", Cause.OPERATOR, "op@desk", "enough", Plan.of(10, 5), 1_700_000_000_000_000)
HUGE = 10**400  # JSON has no limit for whole numbers; a float has

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(HUGE) | st.just(-HUGE) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def message(of: ShutdownRequest = REQUEST, /, **changed: Any) -> dict[str, Any]:
    """What the scripts publish."""
    whole = {
        "v": 1,
        "kind": "request",
        "rev": of.rev,
        "requested_us": of.requested_us,
        "elapsed_us": 0,
        "plan": of.plan.to_list(),
        "request": json.loads(of.body()),
    }
    return {**whole, **changed}


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")


def taken(data: bytes) -> ShutdownRequest | None:
    """Either a request that can be obeyed, or None: refused with a short reason. Anything else raises."""
    try:
        request = decode_control(data)
    except MessageError as error:
        why = str(error)
    else:
        return obeyable(request)
    assert 0 < len(why) <= 2 * TEXT_MAX
    return None


def obeyable(request: ShutdownRequest) -> ShutdownRequest:
    """It ends in bounded time, and its texts are bounded."""
    assert 0 <= request.elapsed_s < math.inf
    assert 0 < request.plan.total_s < math.inf
    assert all(len(text) <= TEXT_MAX for text in (request.id, request.job_id, request.by, request.reason))
    return request


def test_our_own_message_is_taken() -> None:
    """What we publish is what we read."""
    assert taken(encoded(message())) == REQUEST
    assert taken(encoded(message(elapsed_us=2_500_000, rev=3))) == replace(REQUEST, elapsed_s=2.5, rev=3)


def test_clock_that_went_back_makes_no_negative_age() -> None:
    """When Redis' clock was set back, a request is as old as nothing, and its plan does not get longer."""
    assert taken(encoded(message(elapsed_us=-5_000_000))) == REQUEST


def test_newer_fields_are_ignored() -> None:
    """A newer coord may say more: an older one obeys what it understands."""
    newer = message(signature="...", request={**json.loads(REQUEST.body()), "approved_by": ["a", "b"]})
    assert taken(encoded(newer)) == REQUEST


@pytest.mark.parametrize("kind", ["truncated", "doubled"])
def test_every_cut_of_a_message_is_refused(kind: str) -> None:
    """A message that lost its end, or got a second one, is not obeyed."""
    whole = encoded(message())
    for cut in range(len(whole)):
        assert taken(whole[:cut] if kind == "truncated" else whole + whole[cut:]) is None


def test_size_limit() -> None:
    """A message of 64 KiB is read, one of a byte more is not even parsed."""
    largest = encoded(message()).ljust(MESSAGE_MAX_BYTES)
    assert taken(largest) == REQUEST
    assert taken(largest + b" ") is None


@pytest.mark.parametrize("sign", ["x", "🦀", "\x00", '"', "\\"])
def test_largest_request_fits_the_limit(sign: str) -> None:
    """No request that we can make is so large that agents refuse it, whatever its texts are made of."""
    steps = (*(Step(signal, 0.1 + 0.2) for signal in (ASKING * 2)[: STEPS_MAX - 1]), Step("SIGKILL", 1 / 3))
    longest = replace(REQUEST, job_id=sign * 128, by=sign * 5000, reason=sign * 5000, plan=Plan(steps))
    data = encoded(message(longest, elapsed_us=10**15))
    assert len(data) < MESSAGE_MAX_BYTES / 2
    request = taken(data)
    assert request is not None
    assert len(request.reason) == len(request.by) == TEXT_MAX
    assert request.reason.endswith("…")


@pytest.mark.parametrize("version", [0, 2, "1", None, [1], {}, 1.5, "x" * 60_000], ids=lambda version: str(version)[:9])
def test_other_versions_are_refused(version: Any) -> None:
    """A message of a version that we don't know is not guessed at; the reason stays short enough to log."""
    assert taken(encoded(message(v=version))) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "start"},
        {"kind": "x" * 60_000},
        {"request": None},
        {"request": []},
        {"request": "r1"},
        {"rev": "1"},
        {"rev": True},
        {"rev": 1.0},
        {"requested_us": None},
        {"elapsed_us": "0"},
        {"elapsed_us": math.inf},
        {"elapsed_us": math.nan},
        {"elapsed_us": HUGE},
        {"plan": None},
        {"plan": {}},
        {"plan": []},
        {"plan": 5},
        {"plan": "SIGKILL"},
        {"plan": [None]},
        {"plan": [[]]},
        {"plan": [{"signal": "SIGKILL"}]},
        {"plan": [{"signal": "SIGKILL", "wait_s": None}]},
        {"plan": [{"signal": "SIGKILL", "wait_s": HUGE}]},
        {"plan": [{"signal": "SIGKILL", "wait_s": -HUGE}]},
        {"plan": [{"signal": "SIGKILL", "wait_s": math.nan}]},
        {"plan": [{"signal": "SIGKILL", "wait_s": math.inf}]},
        {"plan": [{"signal": "SIGKILL", "wait_s": -1}]},
        {"plan": [{"signal": "SIGKILL", "wait_s": 0}]},
        {"plan": [{"signal": "SIGTERM", "wait_s": 1}]},
        {"plan": [{"signal": "SIGSTOP", "wait_s": 1}, {"signal": "SIGKILL", "wait_s": 1}]},
        {"plan": [{"signal": 9, "wait_s": 1}]},
        {"plan": [{"signal": "SIGTERM", "wait_s": 1}] * 5000},
    ],
    ids=lambda changed: str(changed)[:60],
)
def test_wrong_types_are_refused(changed: dict[str, Any]) -> None:
    """A field that is missing, of another type or out of its bounds makes the whole message none of ours."""
    assert taken(encoded(message(**changed))) is None


@pytest.mark.parametrize("name", ["id", "job_id", "cause", "by", "reason"])
@pytest.mark.parametrize("value", [None, 1, [], {}, "x" * (TEXT_MAX + 1), HUGE], ids=lambda value: type(value).__name__)
def test_wrong_texts_are_refused(name: str, value: Any) -> None:
    """Who, why and which job are texts of bounded length, or the message is none of ours."""
    assert taken(encoded(message(request={**json.loads(REQUEST.body()), name: value}))) is None


@pytest.mark.parametrize("data", [b"", b" ", b"null", b"[]", b"0", b'""', b"\xff\xfe", b'{"v":1}', b"\x00" * 100])
def test_other_things_are_refused(data: bytes) -> None:
    """What is no JSON object, no UTF-8, or nothing at all, is refused."""
    assert taken(data) is None


def test_bytes_that_are_no_text_are_refused() -> None:
    """One byte that is no UTF-8, anywhere in a good message, makes it suspect as a whole."""
    whole = encoded(message())
    for place in range(len(whole)):
        assert taken(whole[:place] + b"\xff" + whole[place + 1 :]) is None


@pytest.mark.parametrize(
    "where", ["%s", '{"v":%s}', '{"v":1,"kind":%s}', '{"v":1,"kind":"request","request":{"id":%s}}']
)
@pytest.mark.parametrize("depths", [range(1, 100), range(100, 1100), range(1100, 32_000, 1000)], ids=str)
def test_deep_nesting_is_refused(where: str, depths: range) -> None:
    """However deep a message is nested, it is refused as junk and does not exhaust the stack."""
    for depth in depths:
        assert taken(where.replace("%s", "[" * depth + "]" * depth).encode()) is None


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """Any bytes at all are refused; hypothesis finds no others."""
    assert taken(data) is None


@given(st.dictionaries(st.sampled_from(sorted(message())), junk, max_size=7))
@example({"elapsed_us": HUGE})
@example({"elapsed_us": -HUGE})
@example({"rev": HUGE})
def test_any_value_in_any_field(changed: dict[str, Any]) -> None:
    """Any JSON value in any field gives a request that can be obeyed or a refusal, never another exception."""
    taken(encoded(message(**changed)))


@given(st.dictionaries(st.sampled_from(sorted(json.loads(REQUEST.body()))), junk, max_size=5))
def test_any_value_in_any_text(changed: dict[str, Any]) -> None:
    """Any JSON value in any part of the body gives a request that can be obeyed or a refusal."""
    taken(encoded(message(request={**json.loads(REQUEST.body()), **changed})))


@given(st.lists(st.fixed_dictionaries({"signal": st.sampled_from(["SIGTERM", "SIGKILL"]) | junk, "wait_s": junk})))
@example([{"signal": "SIGKILL", "wait_s": HUGE}])
def test_any_plan(steps: list[dict[str, Any]]) -> None:
    """Any list of steps gives a plan that ends in bounded time, or a refusal."""
    taken(encoded(message(plan=steps)))
