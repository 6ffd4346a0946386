"""Options that several commands share, and their types. Every option also reads `COORD_...` from the environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coord.errors import UsageError
from coord.keys import check_job_id
from coord.plan import GRACE_S, KILL_WAIT_S, Plan, format_duration, parse_duration, wished
from coord.settings import (
    LEVELS,
    LOSS_AFTER_S,
    Settings,
    alone_after,
    check_host,
    host_name,
    parse_replicas,
    parse_retain,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from coord.coordinator import Coordinator

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # not generic before click 8.5

F = TypeVar("F", bound="Callable[..., Any]")

URLS = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://  [default: an embedded server]"
PIPE_WIDTH = 200  # columns where no terminal says how many there are


class _Checked(_ParamType):
    """A text that one of our functions checks; its complaint says which option it is about."""

    def __init__(self, name: str, check: Callable[[str], Any]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        del ctx
        if not isinstance(value, str):
            return value
        try:
            return self._check(value)
        except UsageError as error:
            where = f"{param.opts[-1]}: " if param else ""
            raise UsageError(f"{where}{error.message}", error.hint) from error


DURATION = _Checked("duration", parse_duration)
JOB_ID = _Checked("job", check_job_id)
HOST = _Checked("host", check_host)
RETAIN = _Checked("duration", parse_retain)
REPLICAS = _Checked("number", parse_replicas)


def option(name: str, *names: str, **rest: Any) -> Callable[[F], F]:
    """Make an option that also reads `COORD_NAME`."""
    words = name.split("/", maxsplit=1)[0].removeprefix("--").replace("-", "_")
    return click.option(name, *names, envvar=f"COORD_{words.upper()}", **rest)


def common(command: F) -> F:
    """Add `--redis-url`, `--host`, `--retain`, `--secret-file`, `--log-level`."""
    for add in reversed(
        (
            option("--redis-url", metavar="URL", help=URLS),
            option("--host", type=HOST, default=host_name, show_default="this host's name", help="This host's name."),
            option("--retain", type=RETAIN, default="7d", show_default=True, help="How long the record is kept."),
            option("--secret-file", metavar="FILE", help="The fleet's secrets, one per line: then all is signed."),
            option("--log-level", type=click.Choice(LEVELS), help="[default: info; on a terminal: warning]"),
        )
    ):
        command = add(command)
    return command


def min_replicas(command: F) -> F:
    """Add `--min-replicas`."""
    words = "Wait up to 1 s for so many replicas of Redis to have a new request, and say when they have not."
    return option("--min-replicas", type=REPLICAS, default=0, show_default=True, help=words)(command)


def rq_url(command: F) -> F:
    """Add `--rq-url`."""
    words = "Where RQ's jobs are.  [default: RQ_REDIS_URL, else the same Redis]"
    return option("--rq-url", metavar="URL", help=words)(command)


def job_id(*, required: bool = True) -> Callable[[F], F]:
    """Add `--job-id`."""
    return option("--job-id", type=JOB_ID, required=required, help="The job.")


def grace(command: F, *, default: bool = True) -> F:
    """Add `--grace`, `--grace-max` and `--kill-wait`."""
    add_grace = option(
        "--grace",
        type=DURATION,
        default=format_duration(GRACE_S) if default else None,
        show_default=default,
        help="How long processes may take to leave after SIGTERM.",
    )
    add_kill_wait = option(
        "--kill-wait",
        type=DURATION,
        default=format_duration(KILL_WAIT_S) if default else None,
        show_default=default,
        help="How long the kernel may take to remove them after SIGKILL.",
    )
    add_grace_max = option(
        "--grace-max",
        type=DURATION,
        help="How long a process that asks for more time may have in all.  [default: no longer than --grace]",
    )
    return add_grace(add_grace_max(add_kill_wait(command)))


def plan(options: dict[str, Any]) -> Plan:
    """Make the plan that `--grace`, `--grace-max` and `--kill-wait` describe; what was not given has its default."""
    grace_s, kill_wait_s, grace_max_s = (options[name] for name in ("grace", "kill_wait", "grace_max"))
    return wished(grace_s, kill_wait_s, grace_max_s) or Plan.of()


containment = option(
    "--containment",
    type=click.Choice(["auto", "cgroup", "subreaper"]),
    default="auto",
    show_default=True,
    help="How the command's processes are kept together: see `coord doctor`.",
)
ask = option(
    "--ask",
    type=click.Choice(["tree", "command"]),
    default="tree",
    show_default=True,
    help="Who gets SIGTERM: all processes, or the command alone, and what is left when it has gone.",
)
sweep_shm = option(
    "--sweep-shm",
    is_flag=True,
    help="Remove the shared memory and semaphores that only processes that were stopped had open.",
)


def redis_loss(command: F) -> F:
    """Add `--on-redis-loss` and `--redis-loss-after`."""
    add = option(
        "--on-redis-loss",
        type=click.Choice(["keep", "stop"]),
        default="keep",
        show_default=True,
        help="What becomes of the processes when Redis stays away: they go on, or are stopped by the plan.",
    )
    add_after = option(
        "--redis-loss-after",
        type=DURATION,
        default=format_duration(LOSS_AFTER_S),
        show_default=True,
        help="How long Redis may be away before they are stopped.",
    )
    return add(add_after(command))


def loss(options: dict[str, Any]) -> float | None:
    """Give after how long without Redis all is stopped here; None: never."""
    return alone_after(options["on_redis_loss"], options["redis_loss_after"])


term_again = option(
    "--term-again",
    type=DURATION,
    default="0",
    help="Send SIGTERM once more after so long.  [default: never; many programs take the second one as `now`]",
)


as_json = option("--json", "json_", is_flag=True, help="Print one JSON document.")


def settings(options: dict[str, Any]) -> Settings:
    """Take the common options out of a command's options."""
    return Settings(
        redis_url=options["redis_url"] or None,
        host=options["host"],
        retain_s=options["retain"],
        log_level=options["log_level"],
        min_replicas=options.get("min_replicas") or 0,
        secret_file=str(Path(options["secret_file"]).absolute()) if options["secret_file"] else None,
    )


def redis_url(chosen: Settings) -> str:
    """Give the URL to use: the one that was given, else the embedded server's."""
    if chosen.redis_url:
        return chosen.redis_url
    from coord.embedded import ensure

    return ensure(lambda line: click.echo(f"coord: {line}", err=True))


def coordinator(options: dict[str, Any]) -> Coordinator:
    """Make the coordinator that the common options ask for."""
    from coord.coordinator import Coordinator
    from coord.keyrings import keyring

    chosen = settings(options)
    keyring(chosen.secret_file)  # one that can't be used is refused before a server is asked or started
    return Coordinator(
        redis_url(chosen),
        by=chosen.by,
        retain_s=chosen.retain_s,
        rq_url=options.get("rq_url"),
        min_replicas=chosen.min_replicas,
        secret_file=chosen.secret_file,
    )


def screen(*, err: bool = False) -> Console:
    """Give the console to print on; where no terminal says how wide it is, lines are not broken."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False, emoji=False)
