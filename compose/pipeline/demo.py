"""`make demo`: a real batch pipeline on three hosts is stopped by its first failure, and nothing of it is left.

Three agents play three hosts (COORD_HOST=a, b, c); they know each other only through Redis. Rank 2 on host c meets a
broken file; rank 1 on host b ignores SIGTERM. What the screen tells is read from the job's record while it happens, and
compared at the end with what /proc says, without coord's help. Exits 0 only when all of it was as promised.

The Redis is an embedded server in a directory of the demo's own; both are gone at the end.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.markup import escape

from compose.pipeline.hosts import COORD, MARK, WORKERS, Host, keep_apart, leave, start, three_hosts
from compose.pipeline.scan import marked
from coord.embedded import ensure
from coord.ledger import Ledger
from coord.record import Record
from coord.render.text import event_words, milliseconds

if TYPE_CHECKING:
    from coord.messages import Event

TURN_S = 0.2
DEMO_MAX_S = 90.0  # for a machine that is very busy; a quiet one needs some ten seconds
STDERR_SHOWN = 4  # lines
LOG_SHOWN = 20  # lines
INTERRUPTED = 130

STAGES = {  # the events of a shutdown, and what to call them
    "shutdown.requested": "[bold cyan]BROADCAST[/]",
    "agent.stopping": "[yellow]TERMINATE[/]",
    "agent.killing": "[bold red]KILL     [/]",
    "agent.stopped": "[green]JOIN     [/]",
    "agent.lost": "[bold red]LOST     [/]",
    "job.verdict": "[bold]VERDICT  [/]",
}


@dataclass
class Demo:
    """One run of the demo: where it lives, whom it started, what it has seen."""

    folder: Path
    hosts: tuple[Host, ...]
    screen: Console
    job: str = field(default_factory=lambda: f"demo-{secrets.token_hex(3)}")
    mark: str = field(default_factory=lambda: secrets.token_hex(16))
    events: list[Event] = field(default_factory=list)
    at_work: int = 0  # processes that the scan found before the failure

    def say(self, line: str = "") -> None:
        """Print a line without breaking it: pipes and narrow terminals get the same words."""
        self.screen.print(line, soft_wrap=True)

    def scan(self) -> list[int]:
        """Find what the agents are, and what they started."""
        return marked(f"{MARK}={self.mark}")

    @property
    def failed(self) -> Event | None:
        """The first failure, once the record has it."""
        return next((event for event in self.events if event.kind == "child.failed"), None)


def main() -> int:
    """Run the demo in a directory that is gone afterwards; gives the exit code."""
    began_s = time.monotonic()
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, interrupt)
    screen = Console(highlight=False)
    try:
        good = show_and_leave(screen)
    except KeyboardInterrupt:
        screen.print("interrupted: everything that was started has been stopped")
        return INTERRUPTED
    verdict = "[bold green]All as promised[/]" if good else "[bold red]Not as promised[/]"
    screen.print(f"\n{verdict}, in {time.monotonic() - began_s:.0f} s.")
    return 0 if good else 1


def interrupt(_number: int, _frame: object) -> NoReturn:
    """End on a signal as on Ctrl-C: in order."""
    raise KeyboardInterrupt


def show_and_leave(screen: Console) -> bool:
    """Show it, and leave nothing behind, whatever happens; tells whether all was as promised."""
    with tempfile.TemporaryDirectory(prefix="coord-demo-") as name:  # mode 700
        folder = Path(name)
        demo = Demo(folder, three_hosts(folder), screen)
        left: list[int] = []
        try:
            good = show(demo)
        finally:
            left = leave(demo.hosts, folder)
            if left:
                demo.say(f"[bold red]had to kill what was left of the demo: {left}[/]")
    return good and not left


def show(demo: Demo) -> bool:
    """Tell the story while it happens; tells whether all of it was as promised."""
    keep_apart(demo.folder)
    demo.say("[bold]One rank of a batch pipeline fails: coord stops all ranks, on all three hosts.[/]")
    with closing(Ledger(ensure())) as ledger:
        ledger.job_ids(0, 1)  # from here on the server has a client, so it stays
        demo.say(f"\n[bold]1. Start[/]  job {demo.job}: each rank indexes a third of Python's library")
        for host in demo.hosts:
            demo.say(f"   host {host.name}  [bold]{host.label}[/] {host.about}")
            for line in host.words(demo.job):
                demo.say(f"[dim]   {escape(line)}[/]")
            start(host, demo.job, demo.mark, demo.folder)
        demo.say("\n[bold]2. Work[/]  time since the first host joined")
        follow(demo, ledger)
        demo.say(f"\n[bold]4. The record[/]  $ coord status --job-id {demo.job}")
        subprocess.run([COORD, "status", "--job-id", demo.job], check=False)
        demo.say("\n[bold]5. Was it so?[/]")
        return check(demo)


# -- while it happens --------------------------------------------------------------------------------------------------


def follow(demo: Demo, ledger: Ledger) -> None:
    """Read the job's record until all agents have ended and it has nothing new."""
    record = Record(demo.job)
    end_s = time.monotonic() + DEMO_MAX_S
    while time.monotonic() < end_s:
        ended = all(host.ended is not None for host in demo.hosts)
        new = ledger.events(record, demo.events[-1].id if demo.events else "0", TURN_S)
        for event in new:
            demo.events.append(event)
            tell(demo, event)
        if not demo.failed:
            count(demo, at_least=len(demo.hosts) * (2 + WORKERS))  # agent, rank, pool
        if ended and not new:
            return


def tell(demo: Demo, event: Event) -> None:
    """Say what the record says, and when."""
    since_ms = (event.at_us - (demo.failed or demo.events[0]).at_us) / 1000
    when = f"   {'+' + milliseconds(max(0.0, since_ms)):>8}  "
    words = escape(event_words(event).removeprefix("verdict: "))
    if event is demo.failed:
        count(demo, at_least=1)
        demo.say("\n[bold]3. Failure[/]  time since the record knew of it, and until it had each host's word")
        demo.say(f"{when}[bold red]FAILED   [/]  {words}, with exit code {event.detail['exit_code']}:")
        for line in event.detail["stderr_tail"][-STDERR_SHOWN:]:
            demo.say(f"[dim]                        | {escape(line)}[/]")
    elif event.kind in STAGES:
        more = "; published to every host" if event.kind == "shutdown.requested" else ""
        demo.say(f"{when}{STAGES[event.kind]}  {words}{more}")
    elif event.kind == "agent.running":
        demo.say(f"{when}{escape(event.detail['host'])}: {escape(event.detail['label'])} is at work")


def count(demo: Demo, at_least: int) -> None:
    """Scan once while all are at work: a scan that finds nothing now would prove nothing at the end."""
    found = 0 if demo.at_work else len(demo.scan())
    if found >= at_least:
        demo.at_work = found
        demo.say(f"   /proc has {found} processes with this run's mark in their environment")


# -- at the end --------------------------------------------------------------------------------------------------------


def check(demo: Demo) -> bool:
    """Compare the promises with the record's JSON, the exit codes and /proc, and say what holds."""
    asked = subprocess.run([COORD, "status", "--job-id", demo.job, "--json"], stdout=subprocess.PIPE, check=False)
    holding = promises(demo, json.loads(asked.stdout or "{}"))
    for promise, holds in holding.items():
        demo.say(f"   {'[green]yes[/]' if holds else '[bold red]NO [/]'}  {promise}")
    if all(holding.values()):
        return True
    for host in demo.hosts:
        demo.say(f"\n[bold]host {host.name} said last[/]")
        for line in host.log(demo.folder).read_text(errors="replace").splitlines()[-LOG_SHOWN:]:
            demo.say(f"[dim]   {escape(line)}[/]")
    return False


def promises(demo: Demo, said: dict[str, Any]) -> dict[str, bool]:
    """Give each promise, and whether it was kept."""
    agents = {agent["host"]: agent for agent in said.get("agents", ())}
    outcomes = {name: {process["outcome"] for process in agent["processes"]} for name, agent in agents.items()}
    stopped = {name for name, agent in agents.items() if agent["state"] == "stopped" and agent["proof"]}
    failure = said.get("first_failure") or {}
    codes = {host.name: host.ended for host in demo.hosts}
    left = demo.scan()
    return {
        "the first failure is rank2 on host c": (failure.get("label"), failure.get("host")) == ("rank2", "c"),
        "no other rank is called a failure": [event.kind for event in demo.events].count("child.failed") == 1,
        "the verdict is forced": said.get("verdict") == "forced",
        "rank0 on host a left when asked": outcomes.get("a") == {"terminated"},
        "rank1 on host b had to be killed": "killed" in outcomes.get("b", ()),
        "every host says that it is stopped, with proof": stopped == {host.name for host in demo.hosts},
        f"the agents' exit codes are {codes}": codes == {host.name: host.exit_code for host in demo.hosts},
        f"/proc has {len(left)} processes with the mark; before the failure it had {demo.at_work}": (
            not left and demo.at_work > 0
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
