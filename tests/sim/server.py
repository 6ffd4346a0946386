"""The server: fakeredis behind the virtual network, with its restarts, and with what it may lose by them.

Requests come as bytes and answers go as bytes (RESP2 and RESP3), so that all of redis-py is the real one.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import hiredis
from fakeredis import FakeServer
from fakeredis._helpers import NoResponse, SimpleError
from fakeredis._socket._fakesocket import FakeSocket
from fakeredis._socket._resp import convert_to_resp2

from tests.sim.fake import Data, InOrder, encoded

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.sim.lua import Scripts
    from tests.sim.network import Network, Wire

VERSION = (7, 4)


class Server:
    """One server. `ran(script, keys, reply)` is called after each script."""

    def __init__(self, network: Network, scripts: Scripts, ran: Callable[[str, list[bytes], Any], None]) -> None:
        self.network = network
        self.scripts = scripts
        self.ran = ran
        self.before: Callable[[str, list[bytes], list[bytes]], None] = lambda *_: None  # called before each script
        self.subscribed: Callable[[Wire], None] = lambda _: None  # called after each subscription
        self.losses = 0  # how often data was lost
        self.published: list[bytes] = []  # by scripts
        self.push_loss = self.push_twice = 0.0  # share of published messages that are lost or come twice
        self.push_late_s = 0.0  # how late a published message may come, whatever comes before it
        self.sessions: dict[ServerSession, None] = {}  # in the order in which they came
        self._kept: dict[bytes, Any] | None = None
        self._fake = _fake()
        self.start()

    @property
    def rng(self) -> Random:
        """Where chance comes from."""
        return self.network.rng

    @property
    def data(self) -> Any:
        """Database 0, by key."""
        return self._fake.dbs[0]._dict

    def hash_of(self, key: bytes) -> dict[bytes, bytes]:
        """Give a hash as the record has it now."""
        item = self.data.get(key)
        return dict(item.value.getall()) if item else {}

    # -- its bad days --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen."""
        self.network.open = self._open

    def stop(self) -> None:
        """Go down: every connection breaks; scripts are forgotten."""
        self.network.open = None
        for session in list(self.sessions):
            session.wire.break_off()
            session.gone()
        self._fake.script_cache.clear()

    def keep(self) -> None:
        """Write all data down: what a restart with loss comes back with."""
        self._kept = copy.deepcopy(self.data)

    def lose(self) -> None:
        """Come back with what was last written down: nothing, if nothing was."""
        self.losses += 1
        self.data.clear()
        self.data.update(self._kept or {})
        self._kept = copy.deepcopy(self._kept)

    def flush_scripts(self) -> None:
        """SCRIPT FLUSH."""
        self._fake.script_cache.clear()

    def _open(self, wire: Wire) -> ServerSession:
        session = ServerSession(self, self._fake, wire)
        self.sessions[session] = None
        return session


class ServerSession(FakeSocket):
    """The server's end of one connection."""

    def __init__(self, server: Server, fake: FakeServer, wire: Wire) -> None:
        super().__init__(fake, 0, client_class=FakeSocket)
        self.server = server
        self.wire = wire
        self.fake = fake
        self.over = False
        self._requests = hiredis.Reader()
        self._waiting: tuple[Callable[[bool], Any], Callable[[Any], Any] | None] | None = None
        self._backlog: list[list[bytes]] = []
        self._replying = False

    def __hash__(self) -> int:
        """Do not depend on an address: who is told first must be the same each time."""
        return int(self._client_info["id"])

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def subscribed(self) -> bool:
        """Tell whether it listens to channels."""
        return bool(self._pubsub)

    def feed(self, data: bytes) -> None:
        """Take bytes, and do what they ask for."""
        self._requests.feed(data)
        while not self.over:
            fields = self._requests.gets()
            if fields is False:
                return
            self._backlog.append(fields)
            self._work()

    def gone(self) -> None:
        """The connection has ended."""
        if not self.over:
            self.over = True
            self.server.sessions.pop(self, None)
            self._cleanup(self.fake)
            self.fake.sockets.remove(self)
            self._stop_waiting()

    def _work(self) -> None:
        while self._backlog and not self._waiting and not self.over:
            self._execute(self._backlog.pop(0))

    def _execute(self, fields: list[bytes]) -> None:
        name = fields[0].decode().lower()
        if name in {"script", "client", "config"} and len(fields) > 1:
            name, fields = f"{name} {fields[1].decode().lower()}", fields[1:]
        self.server.scripts.socket = self
        self._db.time = self.server.scripts.now_s()
        try:
            function, signature = self._name_to_func(name)
            result = self._run_command(function, signature, fields[1:], from_script=False)
        except SimpleError as error:
            result = error
        if not isinstance(result, NoResponse):
            self.wire.answer(encoded(result, self._client_info.protocol_version))
        if name in {"eval", "evalsha"} and not isinstance(result, SimpleError):
            keys = fields[3 : 3 + int(fields[2])]
            self.server.ran(self.server.scripts.last, keys, result)

    def put_response(self, msg: Any) -> None:
        """Send what was published, or that a subscription stands."""
        server, kind = self.server, b">" if self._client_info.protocol_version == 3 else b"*"
        data = kind + encoded(msg, self._client_info.protocol_version)[1:]
        if msg[0] != b"message":
            self.wire.answer(data)
            self.server.subscribed(self.wire)
            return
        rng, late_s = server.rng, server.push_late_s
        copies = 0 if rng.random() < server.push_loss else 1 + (rng.random() < server.push_twice)
        for _ in range(copies):
            self.wire.answer(data, rng.random() * late_s, in_order=not late_s)

    # -- what blocks ---------------------------------------------------------------------------------------------------

    def _blocking(self, timeout: float | None, func: Any, shape: Any = None) -> Any:
        result = func(True)  # noqa: FBT003  # fakeredis wants it so: the first look
        if result is not None:
            return result if shape is None else shape(result)
        self._waiting = func, shape
        self._db.add_change_callback(self._look_again)
        if timeout:
            loop = self.server.network.loop
            loop.after(timeout, self.server.network.nowhere, self._waited, self._waiting)
        return NoResponse()

    def _look_again(self) -> None:
        """Something was written; it is looked at when who wrote it is through."""
        network = self.server.network
        network.loop.after(0.0, network.nowhere, self._look, self._waiting)

    def _look(self, waiting: Any) -> None:
        if self._waiting is None or waiting is not self._waiting:
            return
        result = self._waiting[0](False)  # noqa: FBT003
        if result is not None:
            self._end_waiting(result)

    def _waited(self, waiting: Any) -> None:
        if waiting is self._waiting:
            self._end_waiting(None)

    def _end_waiting(self, result: Any) -> None:
        _, shape = self._waiting or (None, None)
        self._stop_waiting()
        result = result if shape is None else shape(result)
        self.wire.answer(encoded(result, self._client_info.protocol_version))
        self._work()

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting = None
            self._db.remove_change_callback(self._look_again)

    # -- scripts -------------------------------------------------------------------------------------------------------

    def eval(self, script: bytes, numkeys: int, *words: bytes) -> Any:
        """EVAL, by functions that are compiled once."""
        scripts = self.server.scripts
        self.fake.script_cache[scripts.sha_of(script)] = script
        name = scripts.name_of(script)
        keys, args = list(words[:numkeys]), list(words[numkeys:])
        self.server.before(name, keys, args)
        return scripts.run(self, script, keys, args)

    def run_in_script(self, function: Any, signature: Any, args: list[bytes]) -> Any:
        """Run one command of a script: as `_run_command`, but for notices that nobody gets."""
        if signature.name == "publish":
            self.server.published.append(args[1])
        try:
            found = signature.apply(args, self._db, self.version)
            if len(found) == 1:
                return found[0]
            words, items = found
            result = convert_to_resp2(function(*words))
        except SimpleError as error:
            return error
        for item in items:
            item.writeback()
        return result

    def expire_soon(self, key: bytes, seconds: int) -> int:
        """EXPIRE."""
        item = self._db.get(key)
        if item is None:
            return 0
        item.expireat = self._db.time + seconds
        return 1


def _fake() -> FakeServer:
    fake = FakeServer(version=VERSION, server_type="redis")
    fake.dbs = defaultdict(Data)
    fake.subscribers = defaultdict(InOrder)  # type: ignore[arg-type]
    return fake
