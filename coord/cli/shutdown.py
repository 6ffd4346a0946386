"""`coord shutdown`: make the request, follow it, print the verdict."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from coord.cli import options as opt
from coord.errors import OK, UnansweredError, UnreachableError, UsageError
from coord.plan import wished
from coord.record import SILENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from coord.control import Requested
    from coord.messages import Event
    from coord.snapshot import Snapshot

_ALWAYS_TOLD = {"redis.lost", "redis.back"}
GOES_ON = "The shutdown was recorded and goes on: see `coord status`."
NOT_KNOWN = "If the request got there before, it holds: see `coord status`, or call again"


@click.command(
    "shutdown",
    epilog="""\b
Exit codes: 0 all gone, with proof · 1 own error · 2 usage · 3 no such job · 4 Redis not reachable
            5 incomplete: a survivor or a lost host, named · 6 still running when --timeout ended · 7 refused
\b
Every option can also be given in the environment: --grace as COORD_GRACE, and so on.
Without --grace, the longest that the job's commands asked for holds.
\b
Examples:
  coord shutdown --job-id train-42                       ask, wait 10 s, kill, prove
  coord shutdown --job-id train-42 --grace 1m            more time for a checkpoint
  coord shutdown --job-id train-42 --now                 kill at once; also after a first, politer call
  coord shutdown --job-id nightly --fence                forbid a job that nobody has started yet
  coord shutdown --job-id tiles                          also an RQ group, or one RQ job, by its id
""",
)
@opt.job_id()
@opt.option("--grace", type=opt.DURATION, help="How long processes may take to leave after SIGTERM.")
@opt.option("--grace-max", type=opt.DURATION, help="How long one that asks for more time may have in all.")
@opt.option("--kill-wait", type=opt.DURATION, help="How long the kernel may take to remove them after SIGKILL.")
@opt.option("--now", is_flag=True, help="Kill at once, without asking.")
@opt.option("--reason", default="", help="Why; everybody who is affected reads it.")
@opt.option("--wait/--no-wait", default=True, help="Follow the shutdown to its verdict.  [default: wait]")
@opt.option("--timeout", type=opt.DURATION, help="Stop following after this long (the shutdown goes on).")
@opt.option("--fence", is_flag=True, help="Also forbid a job that nobody ever joined.")
@opt.option("--dry-run", is_flag=True, help="Show who would be stopped; change nothing.")
@opt.rq_url
@opt.min_replicas
@opt.as_json
@opt.common
def command(job_id: str, reason: str, wait: bool, fence: bool, dry_run: bool, json_: bool, **rest: Any) -> int:
    """Stop a job on all its hosts: ask, wait until one deadline, kill what holds out, see that all is gone."""
    waits = {f"{name}_s": rest[name] for name in ("grace", "grace_max", "kill_wait")}
    now = rest["now"]
    if now and (waits["grace_s"] or waits["grace_max_s"]):
        raise UsageError("--now and --grace say different things", "Give one of them")
    wished(**waits, now=now)  # a wait that can't be is refused before a server is asked or started
    coordinator = opt.coordinator(rest)
    if dry_run:
        show_job(coordinator.status(job_id), json_=json_)
        click.echo("coord: dry run: nothing was changed", err=True)
        return OK
    try:
        answer = coordinator.request(job_id, reason=reason, now=now, fence_unknown=fence, **waits)
    except UnansweredError as error:
        raise UnansweredError(error.message, f"{error.hint}. {NOT_KNOWN}") from error
    _say(answer, rest["min_replicas"])
    if not json_:
        import coord.render.terminal  # noqa: F401  # slow to import: while the agents work, it costs nothing
    if not wait:
        if answer.request.rq:
            click.echo("coord: what of it is on RQ, hosts of `coord worker` cancel, or a call that waits", err=True)
        show_job(coordinator.status(job_id), json_=json_)
        return OK
    try:
        snapshot = _watch(coordinator.follow(job_id, timeout_s=rest["timeout"]))
    except UnreachableError as error:
        raise UnreachableError(error.message, f"{GOES_ON} {error.hint}") from error
    except KeyboardInterrupt:
        click.echo(f"coord: no longer following. {GOES_ON}", err=True)
        raise
    show_job(snapshot, json_=json_)
    if snapshot.verdict is None:
        click.echo(f"coord: --timeout has passed. {GOES_ON}", err=True)
    return snapshot.exit_code


def _say(answer: Requested, wanted: int) -> None:
    from coord.render.text import at, plan_words, why

    request = answer.request
    said = {
        "created": f"shutdown of job {request.job_id} requested (plan: {plan_words(request.plan)})",
        "shortened": f"the shutdown was made more urgent (plan: {plan_words(request.plan)})",
        "exists": f"already requested {why(request)} at {at(request.requested_us)}",
    }[answer.word]
    click.echo(f"coord: {said}", err=True)
    if answer.copies is not None and answer.copies < wanted:
        click.echo(
            f"coord: {answer.copies} of {wanted} replicas have the request: if Redis' primary dies now, it may be lost",
            err=True,
        )


def _watch(rounds: Iterator[tuple[Snapshot, list[Event]]]) -> Snapshot:
    """Show what happens while it happens: a live line per host on a terminal, else a line per event."""
    from coord.render.text import event_words

    live = _Live() if sys.stderr.isatty() else None
    context: AbstractContextManager[Any] = live or nullcontext()
    named: set[str] = set()
    with context:
        for snapshot, events in rounds:
            if live:
                live.show(snapshot)
            for event in events:
                if event.kind in _ALWAYS_TOLD or (
                    live is None and event.kind not in {"shutdown.requested", "job.verdict"}
                ):
                    click.echo(f"coord: {event_words(event)}", err=True)
            if live is None:
                _name_silent(snapshot, named)
    return snapshot


def _name_silent(snapshot: Snapshot, named: set[str]) -> None:
    """Say, once each, who should have answered by now."""
    from coord.render.text import heard_words

    if snapshot.request is None or snapshot.verdict or snapshot.request.elapsed_s < SILENCE_S:
        return
    for agent in snapshot.silent:
        if agent.info.agent_id not in named:
            named.add(agent.info.agent_id)
            click.echo(f"coord: {agent.info.host}: no answer yet from {heard_words(agent)}", err=True)


class _Live:
    """The hosts' table on stderr, redrawn in place; taken away at the end, when the verdict follows."""

    def __enter__(self) -> None:
        from rich.live import Live

        self._live = Live(console=opt.screen(err=True), auto_refresh=False, transient=True)
        self._live.start()

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        from coord.render.terminal import hosts_table

        self._live.update(hosts_table(snapshot), refresh=True)


def show_job(snapshot: Snapshot, *, json_: bool) -> None:
    """Print it."""
    if json_:
        from coord.render.document import job_document

        click.echo(json.dumps(job_document(snapshot)))
        return
    from coord.render.terminal import job_view

    screen = opt.screen()
    for part in job_view(snapshot):
        screen.print(part)
