"""The guardian of a program with a `JobScope`: a small process beside it, which sees to the ranks if the program dies.

It can't be the program's parent, so orphans don't fall to it: it finds them as `sweep` does. All signals are blocked
when it is started. Standard library only, until it comes to that.
"""

from __future__ import annotations

import select
import socket
import sys

MESSAGE_MAX_BYTES = 32 * 1024


def main(program: int | None) -> None:
    """Listen to the program until it is dead. `program`: its pidfd; without one, the end of the link has to say so."""
    told: dict[str, str] = {}
    with socket.socket(fileno=0) as link:
        link.setblocking(False)  # noqa: FBT003
        poll = select.poll()
        for fd in {link.fileno(), link.fileno() if program is None else program}:
            poll.register(fd, select.POLLIN)
        alive = True
        while alive:
            alive = program not in {fd for fd, _ in poll.poll()}
            alive = _hear(link, told) and alive
    if "watch" in told:
        from workers.sweep import take_over

        take_over(told)


def _hear(link: socket.socket, told: dict[str, str]) -> bool:
    """Keep the last message of each kind; False once there can be no more."""
    try:
        while data := link.recv(MESSAGE_MAX_BYTES):
            text = data.decode()
            told[text.partition('"kind": "')[2].partition('"')[0]] = text  # what `Link.tell` writes, always first
    except BlockingIOError:
        return True
    except ConnectionResetError:
        pass
    return False


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
