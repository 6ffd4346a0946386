"""What the killed leave behind: noted before they are killed, looked for when they are gone, swept if wanted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from coord.messages import LEFT_BEHIND_MAX, LeftBehind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workers.belongings import Belonging

LOOK_S = 0.2  # how long a kill may wait for what the hold-outs have to be noted


class Aftermath:
    """Use: `note` those who are about to end by force, then `conclude`. `sweep_shm`: remove what only they had."""

    def __init__(self, *, sweep_shm: bool = False) -> None:
        self.sweep_shm = sweep_shm
        self._since = time.time()
        self._items: dict[tuple[str, str, int], Belonging] = {}

    def note(self, pids: Iterable[int]) -> None:
        """Note what these processes have that may outlive them."""
        from workers.inspection import inspect

        for item in inspect(pids, LOOK_S).items:
            self._items[item.kind, item.name, item.inode] = item

    def conclude(self) -> tuple[LeftBehind, ...]:
        """Give what of it is still there, now that they are gone, and after the sweep."""
        if not self._items:
            return ()
        from workers.belongings import Inventory
        from workers.leftovers import still_there
        from workers.sweep_shm import sweep

        left = still_there(Inventory(tuple(self._items.values())))
        if self.sweep_shm:
            swept = sweep(left, self._since)
            handled = {(item.kind, item.name) for item in (*swept.removed, *swept.kept)}
            left = (*(item for item in left if (item.kind, item.name) not in handled), *swept.kept)
        return tuple(LeftBehind(**cast("dict[str, Any]", item.to_dict())) for item in left[:LEFT_BEHIND_MAX])
