"""What an agent tells its guardian, over a socket pair. Standard library only.

`watch`: what an heir has to know; the guardian is ready for it when it answers. `stopping`: when hold-outs are killed.
`over`: nothing is left to take over.
"""

from __future__ import annotations

import contextlib

TYPE_CHECKING = False  # typing and json are slow to import, and a guardian needs neither
if TYPE_CHECKING:
    import socket

MESSAGE_MAX_BYTES = 32 * 1024


class Link:
    """The agent's end; `end` None: nobody guards."""

    def __init__(self, end: socket.socket | None = None) -> None:
        self.end = end

    def tell(self, kind: str, **facts: object) -> None:
        """Tell the guardian, if there is one."""
        import json

        # one that died can't be told; what its death means, its agent learns in other ways
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.end:
                self.end.send(json.dumps({"kind": kind, **facts}).encode())

    def answer(self) -> None:
        """Wait for the guardian's answer, if there is one."""
        with contextlib.suppress(ConnectionResetError):
            if self.end:
                self.end.recv(MESSAGE_MAX_BYTES)


guardian = Link()  # of the agent that this process is, since its guardian forked it; `workers.guardian` sets its end
