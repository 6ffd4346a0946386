"""What the acts of the demo have in common: a screen, hosts, a mark, and the story that the record tells of a job.

What is said is read from the job's record while it happens, and compared at the end with what /proc says, without
coord's help.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from compose.pipeline.hosts import COORD, MARK
from compose.pipeline.scan import marked
from coord.record import Record
from coord.render.text import event_words, milliseconds

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from compose.pipeline.hosts import Host
    from coord.ledger import Ledger
    from coord.messages import Event

STDERR_SHOWN = 4  # lines
LOG_SHOWN = 20  # lines

STAGES = {  # the events of a shutdown, and what to call them
    "shutdown.requested": "[bold cyan]BROADCAST[/]",
    "agent.stopping": "[yellow]TERMINATE[/]",
    "agent.killing": "[bold red]KILL     [/]",
    "agent.stopped": "[green]JOIN     [/]",
    "agent.lost": "[bold red]LOST     [/]",
    "job.verdict": "[bold]VERDICT  [/]",
}


@dataclass
class Stage:
    """Where one act plays. `hosts`: those that it started, for who has to clean up."""

    folder: Path
    url: str  # of Redis
    ledger: Ledger
    screen: Console
    hosts: list[Host] = field(default_factory=list)
    mark: str = field(default_factory=lambda: secrets.token_hex(16))

    def say(self, line: str = "") -> None:
        """Print a line without breaking it: pipes and narrow terminals get the same words."""
        self.screen.print(line, soft_wrap=True)

    def enter(self, host: Host) -> None:
        """Introduce a host, and start it."""
        self.say(f"   host {host.name}  {host.about}")
        for line in host.words:
            self.say(f"[dim]   {escape(line)}[/]")
        self.hosts.append(host)
        host.start(self.mark, self.folder)

    def scan(self) -> set[int]:
        """Find what the agents are, and what they started."""
        return set(marked(f"{MARK}={self.mark}"))

    def judge(self, holding: dict[str, bool]) -> bool:
        """Say which promises were kept; where one was not, what the hosts said last."""
        for promise, holds in holding.items():
            self.say(f"   {'[green]yes[/]' if holds else '[bold red]NO [/]'}  {promise}")
        if all(holding.values()):
            return True
        for host in self.hosts:
            self.say(f"\n[bold]host {host.name} said last[/]")
            for line in host.log(self.folder).read_text(errors="replace").splitlines()[-LOG_SHOWN:]:
                self.say(f"[dim]   {escape(line)}[/]")
        return False


@dataclass
class Story:
    """What the record tells of one job. `job`: its id; `events`: those that were told."""

    stage: Stage
    job: str
    events: list[Event] = field(default_factory=list)

    @property
    def failed(self) -> Event | None:
        """The first failure, once the record has it."""
        return self.first("child.failed")

    def first(self, kind: str) -> Event | None:
        """The first event of a kind, once the record has it."""
        return next((event for event in self.events if event.kind == kind), None)

    def listen(self, wait_s: float) -> list[Event]:
        """Wait so long for new events, tell them, and give them."""
        new = self.stage.ledger.events(Record(self.job), self.events[-1].id if self.events else "0", wait_s)
        for event in new:
            self.events.append(event)
            self._tell(event)
        return new

    def show(self) -> dict[str, Any]:
        """Have `coord status` print the record, and give its document."""
        asked = [COORD, "status", "--job-id", self.job]
        subprocess.run(asked, check=False)
        said = subprocess.run([*asked, "--json"], stdout=subprocess.PIPE, check=False).stdout
        document: dict[str, Any] = json.loads(said or "{}")
        return document

    def _tell(self, event: Event) -> None:
        """Say what the record says, and when."""
        say = self.stage.say
        since_ms = (event.at_us - (self.failed or self.events[0]).at_us) / 1000
        when = f"   {'+' + milliseconds(max(0.0, since_ms)):>8}  "
        words = escape(event_words(event).removeprefix("verdict: "))
        if event is self.failed:
            say("\n[bold]3. Failure[/]  time since the record knew of it, and until it had each host's word")
            code = event.detail["exit_code"]
            say(f"{when}[bold red]FAILED   [/]  {words}{'' if code is None else f', with exit code {code}'}:")
            for line in event.detail["stderr_tail"][-STDERR_SHOWN:]:
                say(f"[dim]                        | {escape(line)}[/]")
        elif event.kind in STAGES:
            more = "; published to every host" if event.kind == "shutdown.requested" else ""
            say(f"{when}{STAGES[event.kind]}  {words}{more}")
        elif event.kind == "agent.running":
            say(f"{when}{escape(event.detail['host'])}: {escape(event.detail['label'])} is at work")
