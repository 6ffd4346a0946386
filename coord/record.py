"""What can be done to the record, as data: which script, with which arguments, and how to read the answer. Pure.

`ledger` runs these calls, on an asyncio or on a blocking connection; the scripts in lua/ are what happens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from coord.decode import MessageError, decode_info
from coord.keys import CONTROL_CHANNEL, job_keys
from coord.messages import AgentInfo, AgentReport, FirstFailure, Lost, Outcome, ShutdownRequest, Unproved, dump, encode
from coord.pen import DEFAULT_PLAN, Pen
from coord.snapshot import Snapshot, decode_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from coord.plan import Plan
    from coord.seal import Keyring, Refusal

RETAIN_S = 7 * 24 * 3600
BEAT_S = 2.0
LEASE_S = 10.0  # four beats may be lost
SILENCE_S = 2 * BEAT_S  # as in the scripts' prelude
PATIENCE_S = 2 * BEAT_S
CLAIM_S = 10.0  # who sweeps RQ jobs renews its claim several times in that
UNPROVED_MAX = 1000  # listed; more are counted
FIELDS = 8  # what the prelude's `request` gives, after its word
_WITH_REQUEST = {b"exists", b"fenced", b"created", b"shortened", b"missing", b"restored"}

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """One script to run. `decode` reads its reply; what it can't read is a MessageError."""

    script: str
    keys: tuple[str, ...]
    args: tuple[str | int | float, ...]
    decode: Callable[[Any], T_co]


@dataclass(frozen=True, slots=True)
class Answer:
    """The record's word: `joined`, `fenced`, `unknown`, `created`, `exists`, `shortened` or `none`; and the request.

    Of leases `back`, `lost` with who is. Of RQ jobs also `enlisted`, `claimed`, `taken`, `swept`. `plan`: it was not
    recorded, since it has to be signed anew: make the call again. `unsigned`: the job's agents obey signed ones only.
    """

    word: str
    request: ShutdownRequest | None
    lost: Lost | None = None
    refusal: Refusal | None = None  # there is a request that is not well signed: it is not to be obeyed


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to an agent: which event it is, when, and its processes by outcome at that time."""

    kind: str
    at_s: float
    counts: dict[Outcome, int]


class Record:
    """The calls on one job's record. `retain_s`: how long it outlives the last thing that happened to the job.

    With a keyring, what it says is signed, and what it reads is believed only if it is.
    """

    def __init__(self, job_id: str, retain_s: int = RETAIN_S, keyring: Keyring | None = None) -> None:
        self.job_id = job_id
        self.keyring = keyring
        self._keys = job_keys(job_id)
        self._retain_s = retain_s
        self.pen = Pen(job_id, keyring)

    def join(self, info: AgentInfo, plan: Plan, lease_s: float = LEASE_S, *, again: bool = False) -> Call[Answer]:
        """`joined`, or `fenced` with the request that forbids it. `plan`: the waits this agent's command needs.

        `again`: it had joined before, and the record has lost it.
        """
        waits = (plan.kill_at_s, plan.kill_wait_s, plan.kill_max_s)
        about = (*waits, _us(lease_s), int(again), self.pen.keys)
        return self._call("join", info.agent_id, encode(info), *about, decode=self._answer)

    def request(
        self, wish: ShutdownRequest, plan: Plan | None, *, fence_unknown: bool = False, rq: bool = False
    ) -> Call[Answer]:
        """`created`, `exists`, or `unknown` when nobody ever joined. No plan: the longest that its agents declared.

        `rq`: there is something of it on RQ, though the record knows of none.
        """
        text, seal, own = self.pen.request(wish, plan)
        flags = (int(fence_unknown), int(rq))
        return self._call("request", wish.body(), DEFAULT_PLAN, text, *flags, seal, own, decode=self._answer)

    def shorten(self, existing: ShutdownRequest, plan: Plan, by: str, reason: str) -> Call[Answer]:
        """`shortened`, or `exists` when somebody else changed the request since `existing` was read."""
        detail = dump({"by": by, "reason": reason, "plan": plan.to_list()})
        seal = self.pen.again(replace(existing, plan=plan, rev=existing.rev + 1))
        return self._call("shorten", existing.rev, dump(plan.to_list()), detail, seal, decode=self._answer)

    def fail(self, failure: FirstFailure, wish: ShutdownRequest) -> Call[Answer]:
        """`created`: this is the first failure and the job stops. `exists`: it is a consequence of what came before."""
        signed = self.pen.request(wish, None)
        return self._call("fail", encode(failure), wish.body(), DEFAULT_PLAN, *signed, decode=self._answer)

    def report(
        self,
        info: AgentInfo,
        report: AgentReport,
        kind: str,
        *,
        moments: tuple[Moment, ...] | None = None,
        signal_age_s: float | None = None,
        gone_age_s: float | None = None,
        request_id: str = "",
    ) -> Call[str]:
        """Keep the agent's word. `kind`: `agent.running`, `agent.stopping`, `agent.killing`; last, `agent.stopped`.

        Gives `missing` when the record has lost the agent.
        `moments`: what happened and was not told yet, this report's own event last; their `at_s` are ages. None: this
        report's own event, now; empty: nothing that is worth an event.
        Ages: seconds since its first signal, and since all were seen gone. `request_id`: what it answers, if it knows.
        """
        # without proof, somebody may be left: the verdict must not be better than `incomplete`
        unproved = kind == "agent.stopped" and report.proof is None
        if moments is None:
            moments = (Moment(kind, 0.0, report.counts()),)
        counted = moments[-1].counts if moments else {}
        text = encode(report)
        seal = self.pen.report(info.agent_id, request_id, text)
        about = {"agent_id": info.agent_id, "host": info.host, "label": info.label}
        return self._call(
            "report",
            info.agent_id,
            text,
            kind,
            counted.get(Outcome.KILLED, 0),
            max(counted.get(Outcome.SURVIVED, 0), int(unproved)),
            "" if signal_age_s is None else _us(signal_age_s),
            "" if gone_age_s is None else _us(gone_age_s),
            seal,
            *(word for each in moments for word in (each.kind, _us(each.at_s), dump(about | _named(each.counts)))),
            decode=_word,
        )

    def beat(self, agent_id: str, lease_s: float = LEASE_S, *, refused: str = "") -> Call[Answer]:
        """Renew the lease; `exists` with the request when the job has one.

        `missing`, with the request, and `unknown`, without one, when the record lost the agent: `enrol`, or join again;
        `back` when it was given up: join again. `lost`: another one's lease has ended, which is for any survivor to say
        (`host_lost`). `refused`: see `Refusals.told`.
        """
        return self._call("beat", agent_id, _us(lease_s), refused, decode=self._beaten)

    def host_lost(self, lost: Lost, wish: ShutdownRequest) -> Call[Answer]:
        """Give up an agent whose lease has ended. `created` or `exists`: the job stops; `lost`: it goes on without it.

        Its own policy decides, as when a child of it fails. `none`: it has come back, or another survivor was faster.
        """
        body = wish.body() if lost.info.fail_fast else ""
        about = (lost.info.agent_id, encode(lost.failure))
        return self._call("host_lost", *about, body, DEFAULT_PLAN, *self.pen.request(wish, None), decode=self._answer)

    def restore(self, words: Iterable[str | int]) -> Call[Answer]:
        """Write again what the server lost (`memory` gives the words): `restored`, or `exists` with what holds."""
        return self._call("restore", *words, decode=self._answer)

    def settle(
        self,
        bound_s: float,
        patience_s: float = PATIENCE_S,
        *,
        was_away: bool = False,
        again: ShutdownRequest | None = None,
    ) -> Call[None]:
        """Declare lost who holds no live lease, and everybody once `bound_s` has passed since the request.

        Not within `patience_s` of the request, nor soon after nobody was heard for a while: leases may have run out
        while Redis was away. `was_away`: the caller can't tell by itself, since it was not there all the time.
        `again`: the request is broadcast once more, for those who have not answered; it is signed anew, to be fresh.
        """
        words = (1, again.seal, self.pen.again(again)) if again else (0, "", "")
        return self._call("settle", _us(bound_s), _us(patience_s), int(was_away), *words, decode=_nothing)

    def fence(self) -> Call[Answer]:
        """`exists` with the request that forbids the job to start anything, or `none`. Changes and creates nothing."""
        return self._call("fence", decode=self._answer)

    def enrol(self, info: AgentInfo, lease_s: float = LEASE_S) -> Call[Answer]:
        """Add an agent that runs something of a fenced job: `exists` with the request; `none`: not fenced, join it."""
        return self._call("enrol", info.agent_id, encode(info), _us(lease_s), decode=self._answer)

    def enlist(self, rq_jobs: Mapping[str, str]) -> Call[Answer]:
        """Put RQ jobs (id -> queue name) into the job, before they are enqueued.

        `created` when the job is new (`ledger.remember` it), `enlisted`, `crowded` when it is time to `delist` those
        that RQ has forgotten, or `fenced` with the request that forbids it.
        """
        return self._call("enlist", *(word for each in rq_jobs.items() for word in each), decode=self._answer)

    def delist(self, rq_jobs: Iterable[str]) -> Call[None]:
        """Forget RQ jobs that RQ has forgotten."""
        return self._call("delist", *rq_jobs, decode=_nothing)

    def claim(self, who: str, claim_s: float = CLAIM_S, *, again: bool = False) -> Call[str]:
        """Sweep the job's RQ jobs: `claimed`, `taken` by another, or `none` when there is nothing to sweep.

        Claimed again by the same `who`, it is renewed. `again`: also what was swept without proof, or given up.
        """
        return self._call("claim", who, _us(claim_s), int(again), decode=_word)

    def swept(
        self, who: str, unproved: Sequence[Unproved] = (), *, canceled: int = 0, stopped: int = 0, requeued: int = 0
    ) -> Call[str]:
        """`swept`: nothing of it is queued or started on RQ, but for `unproved`. `none`: it was not ours to say.

        `canceled`: all that was, by whomever; `stopped`, `requeued`: what only the sweeper knows of.
        """
        counts = {"canceled": canceled, "stopped": stopped, "requeued": requeued, "unproved": len(unproved)}
        listed = dump(list(unproved[:UNPROVED_MAX]))
        detail = dump({"by": who, **counts})
        seal = self.pen.swept(who, len(unproved), listed)
        return self._call("swept", who, *counts.values(), listed, detail, seal, decode=_word)

    def tally(self, field: str, count: int = 1) -> Call[str]:
        """Add to the RQ jobs that were `canceled`, `stopped` or `requeued`: `ok`, or `unknown` for no such job."""
        return self._call("tally", field, count, decode=_word)

    def snapshot(self) -> Call[Snapshot | None]:
        """Read the job; None when nobody ever joined it."""
        return self._call("snapshot", decode=self._snapshot)

    @property
    def rq_key(self) -> str:
        """The job's RQ jobs."""
        return self._keys[-2]

    @property
    def events_key(self) -> str:
        """The job's event stream."""
        return self._keys[-1]

    def _answer(self, reply: Any) -> Answer:
        word, *fields = reply
        if len(fields) < FIELDS:
            return Answer(word.decode(), None)
        request, refusal = self.pen.read(fields[:FIELDS])
        if word in _WITH_REQUEST and not (request or refusal):
            raise MessageError("the record has no request where it says it has one")
        return Answer(word.decode(), request, refusal=refusal)

    def _snapshot(self, reply: Any) -> Snapshot | None:
        self.pen.learn(reply[0])
        return decode_snapshot(self.job_id, reply, self.keyring)

    def _beaten(self, reply: Any) -> Answer:
        answer = self._answer(reply)
        if answer.word != "lost":
            return answer
        info, silent_us = reply[1 + FIELDS :]
        return replace(answer, lost=Lost(decode_info(info), int(silent_us) / 1e6))

    def _call(self, script: str, *args: str | float, decode: Callable[[Any], T_co]) -> Call[T_co]:
        return Call(script, self._keys, (self._retain_s, CONTROL_CHANNEL, *args), decode)


def _named(counts: dict[Outcome, int]) -> dict[str, int]:
    return {outcome.value: count for outcome, count in counts.items()}


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _word(reply: Any) -> str:
    return str(reply[0].decode())


def _nothing(_reply: Any) -> None:
    return None
