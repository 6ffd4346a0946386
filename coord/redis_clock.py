"""Redis' time, as this process knows it: what an answer said last, and the monotonic clock since; else the host's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class RedisClock:
    """Behind by what an answer took on its way, never ahead. The clocks give seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._offset_us: int | None = None

    def now_us(self) -> int:
        """Give it as far as it is known."""
        if self._offset_us is None:
            return round(self._wall() * 1e6)
        return round(self._monotonic() * 1e6) + self._offset_us

    def learn(self, now_us: int) -> None:
        """Take what an answer of the server said."""
        self._offset_us = now_us - round(self._monotonic() * 1e6)
