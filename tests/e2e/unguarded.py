"""`coord` without one of its guards, for negative controls: `python unguarded.py GUARD run ...`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from unittest.mock import patch

from coord import ledger, memory
from coord.__main__ import main
from coord.seal import Keyring

if TYPE_CHECKING:
    from collections.abc import Callable

SILENCE = "NOW_US - last[2] > SILENCE_US"


def impatient() -> None:
    """A lease that has ended has ended, whatever became of the server meanwhile."""
    text = ledger.script_text

    def changed(name: str) -> str:
        assert text(name).count(SILENCE) == 1
        return text(name).replace(SILENCE, "false")

    patch.object(ledger, "script_text", changed).start()


def forgetful() -> None:
    """What the server does not know any more was never there."""
    patch.object(memory, "lost", lambda _before, _now: False).start()


def credulous() -> None:
    """What is not signed is believed as if it were."""
    patch.object(Keyring, "doubt_broadcast", lambda *_: None).start()
    patch.object(Keyring, "doubt_request", lambda *_: None).start()


GUARDS: dict[str, Callable[[], None]] = {
    each.__name__.replace("_", "-"): each for each in (impatient, forgetful, credulous)
}

if __name__ == "__main__":
    GUARDS[sys.argv.pop(1)]()
    main()
