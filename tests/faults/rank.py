"""A child that notes when it was asked to leave: `python rank.py NOTE LINGERS_S`.

In monotonic time, of which a machine has one.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

LONG_S = 600  # bounded all the same: a test that fails must not leave it for ever


def leave(*_: object) -> None:
    """Note it, and go."""
    asked_s = time.monotonic()
    note.write_text(str(asked_s))
    time.sleep(float(sys.argv[2]))
    sys.exit(0)


note = Path(sys.argv[1])
signal.signal(signal.SIGTERM, leave)
note.touch()
time.sleep(LONG_S)
