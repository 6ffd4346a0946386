"""Which server a test runs on: the embedded one and Debian's, by turns, since most of a test's time is waiting.

With COORD_TEST_EVERY_KIND set, each of them runs on both: 106 tests in place of 73.
"""

from __future__ import annotations

import os

import pytest

EVERY = bool(os.environ.get("COORD_TEST_EVERY_KIND"))
KINDS = ("valkey", "redis")


def kinds(turn: int = 0) -> tuple[str, ...]:
    """Give those whose turn it is."""
    return KINDS if EVERY else (KINDS[turn % len(KINDS)],)


def on_kind(turn: int = 0) -> pytest.MarkDecorator:
    """Have a test on the server whose turn it is."""
    return pytest.mark.parametrize("kind", kinds(turn))
