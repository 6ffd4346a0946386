"""What happens when a program with a scope forks: the agent's thread stands still, and the child is rid of it all.

A thread does not come along into a child, but the locks that it holds do; so it waits at a place where it holds none.
What the program alone may have is closed in the child: as long as any copy is open, the other end takes it for alive.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

engines: set[Callable[[], Callable[[], None] | None]] = set()  # each has a thread stand still; gives what lets it go on
private: set[socket.socket] = set()  # closed in a child
in_child: list[Callable[[], None]] = []

_standing: dict[int, list[Callable[[], None]]] = {}  # by the thread that forks: several may, at one instant


def close(end: socket.socket) -> None:
    """Close one that was private."""
    private.discard(end)
    end.close()


def _before() -> None:
    standing = _standing[threading.get_ident()] = []
    standing.extend(go_on for park in list(engines) if (go_on := park()))


def _after_in_parent() -> None:
    for go_on in _standing.pop(threading.get_ident(), ()):
        go_on()


def _after_in_child() -> None:
    _standing.clear()
    engines.clear()
    for end in private:
        end.close()
    private.clear()
    for forget in in_child:
        forget()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
