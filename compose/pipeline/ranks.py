"""The demo's second act: one rank of a batch pipeline fails, and coord stops all ranks, on all three hosts.

Each host runs one rank under `coord run`. Rank 2 on host c meets a broken file; rank 1 on host b ignores SIGTERM.
"""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compose.pipeline.hosts import Host, broken_file
from compose.pipeline.stage import Stage, Story

if TYPE_CHECKING:
    from collections.abc import Iterator

RANK = str(Path(__file__).with_name("rank.py"))
POOL = 2  # processes
HASHES = 1024  # keep the ranks at work for longer than the hold-out's grace, on a fast machine too
TURN_S = 0.2
ACT_MAX_S = 90.0  # for a machine that is very busy; a quiet one needs some ten seconds


def show(stage: Stage) -> bool:
    """Tell the story while it happens; tells whether all of it was as promised."""
    story = Story(stage, f"demo-{secrets.token_hex(3)}")
    stage.say("[bold]One rank of a batch pipeline fails: coord stops all ranks, on all three hosts.[/]")
    stage.say(f"\n[bold]1. Start[/]  job {story.job}: each rank indexes a third of Python's library")
    for host in three_hosts(story.job, stage.folder):
        stage.enter(host)
    stage.say("\n[bold]2. Work[/]  time since the first host joined")
    at_work = follow(story)
    stage.say(f"\n[bold]4. The record[/]  $ coord status --job-id {story.job}")
    said = story.show()
    stage.say("\n[bold]5. Was it so?[/]")
    return stage.judge(promises(story, said, at_work))


def three_hosts(job: str, folder: Path) -> Iterator[Host]:
    """Say who runs what. 143 and 137 are how a shell reports SIGTERM and SIGKILL."""
    yield host("a", 0, job, folder, about="will leave when asked", exit_code=143)
    yield host("b", 1, job, folder, "--stubborn", about="ignores SIGTERM", exit_code=137)
    poison = ("--poison", str(broken_file(folder)))
    yield host("c", 2, job, folder, *poison, about="will meet a file that was cut off", exit_code=1)


def host(name: str, rank: int, job: str, folder: Path, *special: str, about: str, exit_code: int) -> Host:
    """Make a host of one rank."""
    label = f"rank{rank}"
    run = ("run", "--job-id", job, "--label", label, "--grace", "3s")
    options = ("--rank", str(rank), *special)
    more = ("--ranks", "3", "--workers", str(POOL), "--hashes", str(HASHES), "--out", str(folder / "out"))
    words = (f"$ COORD_HOST={name} coord {' '.join(run)} \\", f"  -- python rank.py {' '.join(options)} ...")
    told = (*run, "--", sys.executable, RANK, *options, *more)
    return Host(name, f"[bold]{label}[/] {about}", words, told, exit_code)


def follow(story: Story) -> int:
    """Read the record until all agents have ended and it has nothing new; gives how many processes were at work.

    A scan that finds nothing while all are at work would prove nothing at the end.
    """
    stage = story.stage
    at_work = 0
    end_s = time.monotonic() + ACT_MAX_S
    while time.monotonic() < end_s:
        ended = all(host.ended is not None for host in stage.hosts)
        if not at_work and not story.failed:
            found = len(stage.scan())
            if found >= len(stage.hosts) * (2 + POOL):  # agent, rank, pool
                at_work = found
                stage.say(f"   /proc has {found} processes with this run's mark in their environment")
        if not story.listen(TURN_S) and ended:
            break
    return at_work


def promises(story: Story, said: dict[str, Any], at_work: int) -> dict[str, bool]:
    """Give each promise, and whether it was kept; `said` is what the record's JSON says."""
    hosts = story.stage.hosts
    agents = {agent["host"]: agent for agent in said.get("agents", ())}
    outcomes = {name: {process["outcome"] for process in agent["processes"]} for name, agent in agents.items()}
    stopped = {name for name, agent in agents.items() if agent["state"] == "stopped" and agent["proof"]}
    failure = said.get("first_failure") or {}
    codes = {host.name: host.ended for host in hosts}
    left = story.stage.scan()
    return {
        "the first failure is rank2 on host c": (failure.get("label"), failure.get("host")) == ("rank2", "c"),
        "no other rank is called a failure": [event.kind for event in story.events].count("child.failed") == 1,
        "the verdict is forced": said.get("verdict") == "forced",
        "rank0 on host a left when asked": outcomes.get("a") == {"terminated"},
        "rank1 on host b had to be killed": "killed" in outcomes.get("b", ()),
        "every host says that it is stopped, with proof": stopped == {host.name for host in hosts},
        f"the agents' exit codes are {codes}": codes == {host.name: host.exit_code for host in hosts},
        f"/proc has {len(left)} processes with the mark; before the failure it had {at_work}": (
            not left and at_work > 0
        ),
    }
