"""`python -m tests.sim --seed N` plays one history and shows it; `--count` plays many, on all processors."""

from __future__ import annotations

import argparse
import os
import sys

from tests.sim.history import play
from tests.sim.many import soak, story


def main() -> int:
    """Play; 1 when an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the history, or the first one")
    parser.add_argument("--count", type=int, default=1, help="how many histories")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.count == 1:
        ended = play(options.seed)
        say(story(ended, last=None))
        return int(bool(ended.found))
    bad = soak(options.seed, options.count, options.processes, say)
    say(f"{options.count} histories from seed {options.seed}; not held: {[ended.seed for ended in bad] or 'none'}")
    return int(bool(bad))


def say(text: str) -> None:
    """Show it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
