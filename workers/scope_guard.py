"""The guardian of a program with a `JobScope`: a small process beside it, which sees to the ranks if the program dies.

It can't be the program's parent, so orphans don't fall to it: it finds them as `sweep` does. Standard library only,
until it comes to that.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

MESSAGE_MAX_BYTES = 32 * 1024
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def main() -> None:
    """Listen to the program until it is over, or dead."""
    for each in IGNORED:
        signal.signal(each, signal.SIG_IGN)  # what ends the program is told by its end
    os.setsid()
    told: dict[str, str] = {}
    with socket.socket(fileno=0) as link:
        while data := link.recv(MESSAGE_MAX_BYTES):
            told[json.loads(data)["kind"]] = data.decode()
    if "over" not in told and "watch" in told:
        from workers.sweep import take_over

        take_over(told)


if __name__ == "__main__":
    try:
        main()
    except ConnectionResetError:
        sys.exit(1)
