"""`make demo`: a real batch pipeline on three hosts is stopped by its first failure, and nothing of it is left.

Twice: as RQ jobs that the workers of three hosts run (batch.py), and as ranks under `coord run` (ranks.py).
Three agents play three hosts (COORD_HOST=a, b, c); they know each other only through Redis. Exits 0 only when all of it
was as promised.

The Redis is an embedded server in a directory of the demo's own; both are gone at the end.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from compose.pipeline import batch, ranks
from compose.pipeline.hosts import keep_apart, leave
from compose.pipeline.stage import Stage
from coord.embedded import ensure
from coord.ledger import Ledger

INTERRUPTED = 130
ACTS = (batch.show, ranks.show)


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
        stages: list[Stage] = []
        left: list[int] = []
        try:
            good = show(folder, screen, stages)
        finally:
            left = leave([host for stage in stages for host in stage.hosts], folder)
            if left:
                screen.print(f"[bold red]had to kill what was left of the demo: {left}[/]")
    return good and not left


def show(folder: Path, screen: Console, stages: list[Stage]) -> bool:
    """Show one act after the other; tells whether all were as promised. `stages` gets the stage of each."""
    keep_apart(folder)
    url = ensure()
    good = True
    with closing(Ledger(url)) as ledger:
        ledger.job_ids(0, 1)  # from here on the server has a client, so it stays
        for act in ACTS:
            if stages:
                screen.print()
            stages.append(Stage(folder, url, ledger, screen))
            good &= act(stages[-1])
    return good


if __name__ == "__main__":
    sys.exit(main())
