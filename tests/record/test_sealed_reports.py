"""A record whose reports are signed: a verdict that rests on what nobody signed is not shown to who has the secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coord.keys import job_keys
from coord.messages import Outcome, Unproved
from coord.seal import Doubt, Keyring
from coord.snapshot import Snapshot, Verdict
from tests.record.desk import Desk, agent_id
from tests.rings import ring

if TYPE_CHECKING:
    from collections.abc import Callable


def seen_by(desk: Desk, keyring: Keyring | None) -> Snapshot:
    return desk.holding(keyring).look()


def test_a_forged_report_does_not_make_clean(desk: Desk, sealed: Desk) -> None:
    """Who says that a host stopped must be that host: a verdict that rests on a forgery is not shown."""
    sealed.join("a")
    sealed.join("b")
    sealed.request()
    sealed.report("a", Outcome.TERMINATED)
    desk.report("b", Outcome.TERMINATED)  # which has no secret
    assert seen_by(desk, None).verdict is Verdict.CLEAN
    snapshot = seen_by(desk, ring())
    assert (snapshot.verdict, snapshot.exit_code) == (Verdict.INCOMPLETE, 5)
    assert [(agent.info.host, agent.doubt) for agent in snapshot.lost] == [("b", Doubt.UNSIGNED)]
    sealed.report("b", Outcome.TERMINATED)
    assert seen_by(desk, ring()).verdict is Verdict.CLEAN


def _gone(_: str) -> str:
    return '{"first_signal_ms":null,"all_gone_ms":null,"report":{"state":"stopped","proof":"cgroup","processes":[]}}'


TAMPERED: dict[str, Callable[[str], str]] = {
    "another's words": lambda text: text.replace('"killed"', '"terminated"'),
    "no proof before": lambda text: text.replace('"proof":null', '"proof":"cgroup"'),
    "all of it": _gone,
    "doubled": lambda text: text[:-1] + ',"report":' + _gone("").partition('"report":')[2],
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_changed_report_is_not_believed(sealed: Desk, how: str) -> None:
    """A host's word that was changed in Redis is as if it had said nothing; an untouched one makes the verdict."""
    sealed.join("a")
    sealed.request()
    sealed.report("a", Outcome.KILLED, proof=None)
    key = job_keys(sealed.job_id)[2]
    text = str(sealed.raw.hget(key, agent_id("a")))
    changed = TAMPERED[how](text)
    assert changed != text
    sealed.raw.hset(key, agent_id("a"), changed)
    sealed.raw.hset(job_keys(sealed.job_id)[0], "verdict", "clean")
    assert sealed.verdict is Verdict.INCOMPLETE
    assert [agent.doubt for agent in sealed.look().lost] == [Doubt.ALTERED if how != "all of it" else Doubt.UNSIGNED]


def test_a_verdict_is_never_better_than_what_is_signed(sealed: Desk) -> None:
    """A verdict that was written by hand counts for nothing while a host has not answered, nor against its word."""
    sealed.join("a")
    sealed.request()
    sealed.raw.hset(job_keys(sealed.job_id)[0], mapping={"verdict": "clean", "verdict_us": "1"})
    assert sealed.look().verdict is None
    sealed.raw.zrem(job_keys(sealed.job_id)[3], agent_id("a"))
    assert sealed.look().verdict is Verdict.INCOMPLETE
    sealed.report("a", Outcome.KILLED)
    assert sealed.look().verdict is Verdict.FORCED
    sealed.raw.hset(job_keys(sealed.job_id)[0], "verdict", "incomplete")
    assert sealed.look().verdict is Verdict.INCOMPLETE


def test_another_agents_report_is_not_believed(sealed: Desk) -> None:
    """A signed report of one host can't be passed off as another's."""
    for host in ("a", "b"):
        sealed.join(host)
    sealed.request()
    sealed.report("a", Outcome.TERMINATED)
    reports = job_keys(sealed.job_id)[2]
    sealed.raw.hset(reports, agent_id("b"), str(sealed.raw.hget(reports, agent_id("a"))))
    sealed.raw.delete(job_keys(sealed.job_id)[3])
    sealed.raw.hset(job_keys(sealed.job_id)[0], mapping={"verdict": "clean", "verdict_us": "1"})
    assert [(agent.info.host, agent.doubt) for agent in sealed.look().lost] == [("b", Doubt.ALTERED)]


def test_who_sweeps_rq_signs(desk: Desk, sealed: Desk) -> None:
    """That nothing of a job is left on RQ is believed of who has the secret."""
    sealed.enlist("q1")
    sealed.request()
    sealed.claim("w")
    sealed.swept("w", canceled=1)
    assert sealed.verdict is Verdict.CLEAN
    sealed.raw.hset(job_keys(sealed.job_id)[0], "rq_seal", "")
    snapshot = sealed.look()
    assert (snapshot.verdict, snapshot.rq.doubt) == (Verdict.INCOMPLETE, Doubt.UNSIGNED)
    assert seen_by(desk, None).verdict is Verdict.CLEAN


def test_what_was_left_on_rq_can_not_be_struck_out(sealed: Desk) -> None:
    """A list of RQ jobs without proof that was emptied by hand is not believed."""
    sealed.enlist("q1")
    sealed.request()
    sealed.claim("w")
    sealed.swept("w", unproved=(Unproved("h", "w", "q1"),))
    assert (sealed.verdict, sealed.look().rq.doubt) == (Verdict.INCOMPLETE, None)
    job = job_keys(sealed.job_id)[0]
    sealed.raw.hset(job, mapping={"verdict": "clean", "rq_unproved": "[]", "rq_unproved_count": "0"})
    assert (sealed.verdict, sealed.look().rq.doubt) == (Verdict.INCOMPLETE, Doubt.ALTERED)
