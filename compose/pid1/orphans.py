"""Makes orphans and goes on working, like a program that starts daemons and forgets them.

    python orphans.py [COUNT [STAYING [WORK_S]]]

Each of COUNT orphans is forked twice, in a session of its own. STAYING of them live on; the others end at once, or a
little later, each at its own time. Then, for WORK_S seconds, it says now and then what /proc shows, as a line of JSON.

It has no handler for signals, as most programs. Standard library only; `python -c "$(cat orphans.py)"` will do.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

COUNT = 1000
STAYING = 50
STEP_S = 0.003  # from the end of one to the end of the next: the last one ends some seconds after the first
LINE_S = 0.1  # between two lines
LONG_S = 600  # bounded all the same: nobody has to stop it


def main(count: int = COUNT, staying: int = STAYING, work_s: int = LONG_S) -> None:
    """Make them, then count."""
    for number in range(count):
        orphan(LONG_S if number < staying else number % 2 * number * STEP_S)  # every other one ends at once
    end_s = time.monotonic() + work_s
    while time.monotonic() < end_s:
        print(json.dumps({"made": count, **look()}), flush=True)
        time.sleep(LINE_S)


def orphan(lives_s: float) -> None:
    """Start one: its parent, whom we wait for, ends at once."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork() == 0:
        time.sleep(lives_s)
    os._exit(0)


def look() -> dict[str, int]:
    """Count who is alive and has our program's name, ourselves among them; and all zombies, whoever left them."""
    name = Path("/proc/self/comm").read_text()
    found: Counter[str] = Counter(alive=0, zombies=0)
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # it went meanwhile
            if folder.name.isdigit():
                dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                found["zombies"] += dead
                found["alive"] += not dead and (folder / "comm").read_text() == name
    return dict(found)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
