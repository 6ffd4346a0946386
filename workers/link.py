"""What an agent tells its guardian, over a socket pair that came into being when the guardian forked.

`watch`: what an heir has to know; the guardian becomes a subreaper, and answers. `stopping`: when hold-outs are killed.
`over`: nothing is left to take over. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

MESSAGE_MAX_BYTES = 32 * 1024

_ends: list[socket.socket] = []  # the agent's end; empty when nobody guards


def open_to(guardian: socket.socket) -> None:
    """Have a guardian from now on."""
    _ends.append(guardian)


def tell(kind: str, **facts: object) -> None:
    """Tell the guardian, if there is one; wait for its answer to `watch`."""
    for end in _ends:
        # a guardian that died can't be told; the kernel has sent us SIGTERM for that
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            end.send(json.dumps({"kind": kind, **facts}).encode())
            if kind == "watch":
                end.recv(MESSAGE_MAX_BYTES)
