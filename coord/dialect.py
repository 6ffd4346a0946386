"""How a server takes our scripts: by their names or whole; those that only read, by commands for that if it may be.

Who may not write reads with EVALSHA_RO, which servers have from Redis 7 on. Knows no connection: who has one asks for
the first command, and on an error for the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from coord.record import Call

    Command = tuple[str | int | float, ...]

READ_ONLY = "_RO"
READING = frozenset({"snapshot", "fence", "exists"})  # scripts that change nothing


class Dialect:
    """What one server was found to take. `script(name)`: a script's text, and its name at the server."""

    def __init__(self, script: Callable[[str], tuple[str, str]], *, read_only: bool) -> None:
        """`read_only`: begin with the commands that only read; the others are tried where it refuses these."""
        self._script = script
        self._suffix = READ_ONLY if read_only else ""
        self._decided = False

    def first(self, call: Call[Any]) -> Command:
        """Give the command to begin with."""
        return ("EVALSHA" + self._reading(call), self._script(call.script)[1], len(call.keys), *call.keys, *call.args)

    def then(self, call: Call[Any], tried: Command, error: redis.ResponseError) -> Command:
        """Give the command to go on with; raises the error when there is none."""
        if isinstance(error, redis.exceptions.NoScriptError):
            return (str(tried[0]).replace("SHA", ""), self._script(call.script)[0], *tried[2:])
        if call.script not in READING or not _refused(error):
            raise error
        if not self._decided:
            self._suffix, self._decided = "" if self._suffix else READ_ONLY, True
        if str(tried[0]).endswith(READ_ONLY) == (self._suffix == READ_ONLY):
            raise error
        return self.first(call)

    def sort(
        self, calls: Sequence[Call[Any]], tried: Mapping[int, Command], said: Sequence[Any], into: dict[int, Any]
    ) -> dict[int, Command]:
        """Put answers and errors of many commands, by the place of their call, `into`; give those to go on with."""
        again = {}
        for (place, command), reply in zip(tried.items(), said, strict=True):
            into[place] = reply
            if isinstance(reply, redis.ResponseError):
                try:
                    again[place] = self.then(calls[place], command, reply)
                except redis.ResponseError as error:
                    into[place] = error
        return again

    def _reading(self, call: Call[Any]) -> str:
        return self._suffix if call.script in READING else ""


def _refused(error: redis.ResponseError) -> bool:
    """Tell whether the server has no such command, or not for this user; what a script may not do is another matter."""
    text = str(error)
    return "nknown command" in text or ("o permissions to run" in text and "script" not in text)
