"""Runs the record's scripts on one Lua for all servers: each is compiled once.

As a server does it: an error in `redis.call` ends the script, what it wrote before stays; `redis.pcall` gives it.
"""

from __future__ import annotations

import hashlib
import json
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from fakeredis._helpers import SimpleError, SimpleString
from fakeredis.commands_mixins import scripting_mixin

if TYPE_CHECKING:
    from tests.sim.server import ServerSession

SETUP = """
function(call, pcall_, encode, decode, null)
  redis = {call = call, pcall = pcall_}
  cjson = {encode = encode, decode = decode, null = null}
  redis.error_reply = function(text) return {err = text} end
  redis.status_reply = function(text) return {ok = text} end
  redis.sha1hex = nil
end
"""
SET = "function(keys, argv) KEYS = keys; ARGV = argv end"


class Scripts:
    """One Lua. `socket`: whose script runs."""

    def __init__(self, texts: dict[str, str]) -> None:
        """Know scripts by name: the text of each, as the server gets it."""
        self.socket: ServerSession | None = None
        self.last = ""
        self._names = {text.encode(): name for name, text in texts.items()}
        self._lua = scripting_mixin.LUA_MODULE.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self._compiled: dict[bytes, Any] = {}
        self._known: dict[tuple[bytes, str], Any] = {}
        self._set = self._lua.eval(SET)
        encode = scripting_mixin._cjson_lua_to_python
        self._lua.eval(SETUP)(
            self._call,
            self._pcall,
            lambda value: json.dumps(encode(value), separators=(",", ":")).encode(),
            self._decode,
            scripting_mixin._lua_cjson_null,
        )

    def now_s(self) -> float:
        """Give the server's time."""
        return time.time()

    def name_of(self, script: bytes) -> str:
        """Give its file's name; a planted fault goes by the name of what it replaces."""
        return self._names.get(script, "?")

    @staticmethod
    def sha_of(script: bytes) -> bytes:
        """Give Redis' name for it."""
        return sha_of(script)

    def run(self, socket: ServerSession, script: bytes, keys: list[bytes], args: list[bytes]) -> Any:
        """Run one. Raises SimpleError."""
        function = self._compiled.get(script)
        if function is None:
            function = self._compiled[script] = self._lua.compile(script)
        self.socket, self.last = socket, self.name_of(script)
        socket._script_resp = 2
        self._set(self._lua.table_from(keys), self._lua.table_from(args))
        try:
            result = function()
        except SimpleError:
            raise
        except scripting_mixin.LUA_MODULE.LuaError as error:
            raise SimpleError(f"ERR user_script: {error}") from error
        finally:
            socket._script_resp = None
        return _to_redis(result)

    def _call(self, *words: Any) -> Any:
        socket = self.socket
        assert socket is not None
        if words[0] == b"EXPIRE":  # most of what scripts call, and the same each time
            return socket.expire_soon(words[1], int(words[2]))
        function, signature = socket._name_to_func(words[0].decode().lower())
        args = [word if type(word) is bytes else _number(word) for word in words[1:]]
        return self._to_lua(socket.run_in_script(function, signature, args))

    def _pcall(self, *words: Any) -> Any:
        try:
            return self._call(*words)
        except SimpleError as error:
            return self._lua.table_from({b"err": error.value.encode()})

    def _decode(self, text: bytes) -> Any:
        value = scripting_mixin._cjson_python_to_lua(json.loads(text))
        return self._lua.table_from(value, recursive=True) if isinstance(value, dict | list) else value

    def _to_lua(self, value: Any) -> Any:
        if type(value) is bytes or type(value) is int:
            return value
        if value is None:
            return False
        if type(value) is list:
            return self._lua.table_from([self._to_lua(each) for each in value])
        if isinstance(value, SimpleString):
            return self._lua.table_from({b"ok": value.value})
        if isinstance(value, SimpleError):
            raise value
        raise TypeError(f"a script was given {value!r}")


def _to_redis(value: Any) -> Any:
    if type(value) is bytes or type(value) is int:
        return value
    if isinstance(value, bool):
        return 1 if value else None
    if isinstance(value, float):
        return int(value)
    if value is None:
        return None
    if (text := value[b"err"]) is not None:
        return SimpleError(text.decode())
    if (text := value[b"ok"]) is not None:
        return SimpleString(text)
    found: list[Any] = []
    while (each := value[len(found) + 1]) is not None:
        found.append(_to_redis(each))
    return found


def _number(word: Any) -> bytes:
    if type(word) in {int, float}:
        return b"%.17g" % word
    raise SimpleError("ERR Lua redis lib command arguments must be strings or integers")


@cache
def sha_of(script: bytes) -> bytes:
    """Give Redis' name for a script."""
    return hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()
