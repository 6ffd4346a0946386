"""A record whose requests are signed: who has no secret changes nothing, and signing costs no round trip."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from coord.blocking import Blocking
from coord.control import request
from coord.errors import RefusedError
from coord.finished import finished
from coord.keys import CONTROL_CHANNEL, job_keys
from coord.messages import Cause, Outcome, ShutdownRequest
from coord.plan import Plan
from coord.record import BEAT_S, Record
from coord.seal import Doubt
from coord.snapshot import Verdict
from tests.record.desk import BY, PLAN, Desk, agent_id, asked
from tests.rings import NEXT, OTHERS, OURS, ring

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from coord.ledger import Ledger
    from coord.record import Call
    from tests.record.conftest import Unguard

COMPARES = "(own == '1' and plan ~= declared_plan(default))"
COURTESY = "redis.call('HEXISTS', JOB, 'sealed') == 1 and 'unsigned' or nil"


class Nowhere:
    """No RQ."""

    who = unknown = ""

    async def has(self, name: str) -> bool:
        del name
        return False

    def beside(self, record: Record) -> Any:
        raise NotImplementedError


class Counting(Blocking):
    """A door that counts who goes through."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.scripts: list[str] = []

    async def run(self, call: Call[Any]) -> Any:
        self.scripts.append(call.script)
        return await super().run(call)


def stop(desk: Desk, plan: Plan | None = None) -> list[str]:
    """Have it stopped as `coord shutdown` does; gives the scripts that ran."""
    door = Counting(desk.ledger)
    wish = ShutdownRequest("r1", desk.job_id, Cause.OPERATOR, BY, "", PLAN)
    finished(request(door, desk.record, wish, plan, fence_unknown=False, rq=Nowhere()))
    return door.scripts


def test_from_join_to_verdict(sealed: Desk) -> None:
    """A job whose parts all sign is stopped and settled as any other."""
    sealed.join("a")
    made = asked(sealed.request(reason="enough"))
    assert made.seal.startswith("v1:")
    assert asked(sealed.beat("a")).seal == asked(sealed.look()).seal == made.seal
    shorter = asked(sealed.shorten(made, Plan.of(1, 1)))
    assert (asked(sealed.beat("a")).rev, shorter.plan) == (2, Plan.of(1, 1))
    sealed.report("a", Outcome.TERMINATED)
    assert sealed.verdict is Verdict.CLEAN


@pytest.mark.parametrize("plan", [None, Plan.of(3, 2), Plan.now()], ids=["default", "given", "now"])
def test_a_stop_takes_one_round_trip(sealed: Desk, plan: Plan | None) -> None:
    """Signing costs the caller nothing when the plan is his own, or the one that everybody has by default."""
    sealed.join("a")
    assert stop(sealed, plan) == ["request"]
    assert sealed.plan == (plan or PLAN)


def test_who_has_heard_of_the_plan_signs_it_at_once(sealed: Desk) -> None:
    """A failure stops the job in one round trip also when its waits are its own: each beat tells an agent of them."""
    sealed.join("a", Plan.of(1, 1))
    sealed.join("b", Plan.of(7, 3, 9))
    sealed.beat("a")
    assert sealed.fail("a").word == "created"
    assert sealed.plan == Plan.of(7, 3, 9)


def test_a_plan_that_has_changed_is_signed_again(sealed: Desk) -> None:
    """A stranger does not know the job's own waits: the record says them, and the second try holds."""
    sealed.holding(ring()).join("a", Plan.of(7, 3))
    assert stop(sealed) == ["request", "request"]
    assert sealed.plan == Plan.of(7, 3)


def fails_with_an_old_plan(sealed: Desk) -> Plan | None:
    """Scenario: an agent fails that has not heard of another's longer grace."""
    sealed.join("a", Plan.of(1, 1))
    sealed.holding(ring()).join("b", Plan.of(60, 1))
    answer = sealed.fail("a")
    snapshot = sealed.look()
    assert (snapshot.first_failure is None) == (answer.word == "plan")
    return snapshot.request.plan if snapshot.request else None


def test_nothing_is_recorded_before_the_plan_is_right(sealed: Desk) -> None:
    """Nobody's checkpoint is cut short by what another did not know: it is signed again first, failure and all."""
    assert fails_with_an_old_plan(sealed) is None
    assert sealed.fail("a").word == "created"
    assert sealed.plan == Plan.of(60, 1)


def test_control_without_the_comparison_a_checkpoint_is_cut_short(sealed: Desk, unguard: Unguard) -> None:
    """Negative control: with the comparison taken out, the shorter plan is recorded."""
    unguard(COMPARES, "false", script="*")
    assert fails_with_an_old_plan(sealed) == Plan.of(1, 1)


@pytest.mark.parametrize("ahead_s", [-3600.0, 3600.0], ids=["behind", "ahead"])
def test_a_host_whose_clock_is_off_signs_by_redis_time(desk: Desk, ahead_s: float) -> None:
    """No two hosts' clocks need to agree: who is an hour off is told the time, and signs again."""
    desk.holding(ring()).join("a")
    off = desk.holding(ring(ahead_s=ahead_s))
    assert stop(off) == ["request", "request"]
    assert desk.holding(ring(ahead_s=-ahead_s)).look().request is not None


def test_without_a_secret_nothing_is_changed(desk: Desk, sealed: Desk) -> None:
    """Who has no secret can neither stop the job, nor join it, nor hurry it; and it can still be stopped."""
    sealed.join("a")
    with pytest.raises(RefusedError, match="there is no secret here"):
        stop(desk)
    assert (desk.join("b").word, desk.fail("b").word) == ("unsigned", "unsigned")
    made = asked(sealed.request())
    assert desk.shorten(made, Plan.now()).word == "unsigned"
    assert asked(sealed.beat("a")).plan == PLAN


def test_an_unsigned_request_is_found_and_refused(desk: Desk, sealed: Desk, unguard: Unguard) -> None:
    """A request that got into the record without a seal is obeyed by nobody, and all are told who it claims to be."""
    sealed.join("a")
    unguard(COURTESY, "nil", script="*")
    desk.request(reason="gotcha")
    heard = sealed.beat("a")
    assert (heard.word, heard.request) == ("exists", None)
    assert heard.refusal is not None
    assert (heard.refusal.doubt, heard.refusal.by, heard.refusal.job_id) == (Doubt.UNSIGNED, BY, desk.job_id)
    snapshot = sealed.look()
    assert (snapshot.request, snapshot.verdict, snapshot.state) == (None, None, "running")
    assert snapshot.refusal == heard.refusal
    with pytest.raises(RefusedError, match="it is not signed"):
        stop(sealed)
    assert sealed.join("b").refusal == heard.refusal
    assert asked(desk.beat("a")).reason == "gotcha"  # as everybody without a secret would


FORGED: dict[str, tuple[str, Callable[[str], str]]] = {
    "reason": ("request", lambda text: text.replace("enough", "enough!")),
    "by": ("request", lambda text: text.replace(BY, "root@hq")),
    "cause": ("request", lambda text: text.replace("operator", "drain")),
    "plan": ("plan", lambda text: text.replace("10", "1")),
    "rev": ("rev", lambda _: "2"),
    "seal": ("seal", lambda text: text[:-1] + ("0" if text[-1] != "0" else "1")),
    "no seal": ("seal", lambda _: ""),
    "junk": ("request", lambda _: "{"),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_record_that_was_changed_is_not_obeyed(sealed: Desk, what: str) -> None:
    """Whoever changes anything of the request in Redis by hand has nobody obey it."""
    sealed.join("a")
    sealed.request(reason="enough")
    name, change = FORGED[what]
    before = sealed.field(name) or ""
    assert change(before) != before
    sealed.raw.hset(job_keys(sealed.job_id)[0], name, change(before))
    heard = sealed.beat("a")
    assert (heard.word, heard.request) == ("exists", None)
    assert heard.refusal is not None
    assert sealed.look().refusal == heard.refusal
    sealed.raw.hset(job_keys(sealed.job_id)[0], name, before)
    assert asked(sealed.beat("a")).reason == "enough"


def test_an_old_request_that_is_written_again_is_not_obeyed(sealed: Desk) -> None:
    """A request that is put back into the record long after it was signed, as if it were new, is stale."""
    sealed.join("a")
    made = asked(sealed.request())
    sealed.raw.hset(job_keys(sealed.job_id)[0], "requested_us", str(made.requested_us + 61_000_000))
    heard = sealed.beat("a")
    assert heard.refusal is not None
    assert heard.refusal.doubt is Doubt.STALE


def test_rotation(desk: Desk) -> None:
    """While secrets are changed, hosts with the old one first and hosts with the new one first stop as one job."""
    first, second = desk.holding(ring(OURS, NEXT)), desk.holding(ring(NEXT, OURS))
    first.join("a")
    second.join("b")
    made = asked(second.request())
    assert asked(first.beat("a")).id == made.id
    first.report("a", Outcome.TERMINATED)
    second.report("b", Outcome.TERMINATED)
    assert (first.verdict, second.verdict) == (Verdict.CLEAN, Verdict.CLEAN)
    late = desk.holding(ring(OURS)).look()
    assert late.refusal is not None
    assert late.refusal.doubt is Doubt.UNKNOWN_KEY
    assert desk.holding(ring(OTHERS)).look().refusal is not None


def test_what_an_agent_refused_is_on_record(sealed: Desk) -> None:
    """What an agent did not obey is counted in the record, with its next beat, and goes with the agent."""
    sealed.join("a")
    told = json.dumps({"unsigned": 3, "stale": 1})
    sealed.ledger.run(sealed.record.beat(agent_id("a"), BEAT_S, refused=told))
    assert [dict(agent.refused) for agent in sealed.look().agents] == [{"unsigned": 3, "stale": 1}]
    sealed.ledger.run(sealed.record.beat(agent_id("stranger"), BEAT_S, refused=told))
    assert sealed.field(f"refused:{agent_id('stranger')}") is None


def test_junk_in_the_counts_breaks_nothing(sealed: Desk) -> None:
    """Counts that are none are left out."""
    sealed.join("a")
    for junk in ("{", "[]", '{"unsigned":"many"}', "3"):
        sealed.raw.hset(job_keys(sealed.job_id)[0], f"refused:{agent_id('a')}", junk)
        assert [dict(agent.refused) for agent in sealed.look().agents] == [{}]


def test_a_job_without_secrets_is_as_ever(desk: Desk, raw_redis: redis.Redis) -> None:
    """Where there is no secret, nothing of it is on record."""
    desk.join("a")
    desk.request()
    desk.report("a", Outcome.TERMINATED)
    assert desk.verdict is Verdict.CLEAN
    assert desk.field("sealed") is None
    assert "v1:" not in str([raw_redis.hgetall(key) for key in job_keys(desk.job_id)[:3]])


def broadcasts_again(sealed: Desk, late: Desk) -> list[str]:
    """Scenario: two followers ask a silent host again, the second one by what it had read before. Gives the seals."""
    sealed.join("a")
    made = asked(sealed.request())
    with sealed.raw.pubsub() as ear:  # type: ignore[no-untyped-call]
        ear.subscribe(CONTROL_CHANNEL)
        for follower in (sealed, late):
            sealed.ledger.run(follower.record.settle(60.0, again=made))
        sealed.raw.publish(CONTROL_CHANNEL, "after")
        heard = iter(lambda: str((ear.get_message(timeout=5) or {}).get("data")), "after")
        seals = [json.loads(each)["seal"] for each in heard if each.startswith("{")]
    assert asked(sealed.beat("a")).seal == (seals or [made.seal])[-1]
    assert made.seal not in seals
    return seals


def test_what_is_sent_again_is_signed_again(sealed: Desk) -> None:
    """Who has not answered is asked again with a fresh seal, which the record then has; by one of two followers."""
    assert len(broadcasts_again(sealed, sealed.holding(ring()))) == 1


def test_who_has_no_secret_sends_nothing_again(desk: Desk, sealed: Desk) -> None:
    """A follower without the secret leaves the request as it is signed: agents would take it for a replay."""
    assert len(broadcasts_again(sealed, desk)) == 1
    made = asked(sealed.beat("a"))
    desk.ledger.run(desk.record.settle(60.0, again=made))
    assert asked(sealed.beat("a")).seal == made.seal


@pytest.mark.parametrize("who", ["follower", "agent"])
@pytest.mark.parametrize("hurried", [False, True])
def test_what_the_server_lost_is_signed_when_it_is_written_again(sealed: Desk, who: str, hurried: bool) -> None:
    """A request that a server lost is believed again when one who knew it wrote it: as old as it is, and as it was."""
    sealed.join("a")
    made = asked(sealed.request(Plan.of(60, 9), "enough"))
    if hurried:
        made = asked(sealed.shorten(made, Plan.of(30, 5)))
    before = sealed.look()
    sealed.forget()
    answer = sealed.remember(before) if who == "follower" else sealed.say_again("a", made)
    found = asked(answer)
    assert (answer.word, answer.refusal) == ("restored", None)
    assert (found.id, found.rev, found.plan, found.requested_us) == (made.id, made.rev, made.plan, made.requested_us)
    assert found.seal != made.seal  # a fresh one: agents have heard the other
    assert (sealed.join("late").word, sealed.holding(None).request().word) == ("fenced", "exists")
    sealed.report("a", Outcome.TERMINATED)
    assert sealed.look().refusal is None
