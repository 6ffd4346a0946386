"""A way to Redis that tests can block: a proxy on a socket of its own. Frozen, nothing passes; cut, nobody is there."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Strait:
    """Give `url` to what is to be cut off; `frozen` and `cut` last until `open`."""

    def __init__(self, server: str, folder: Path) -> None:
        self._server = server.removeprefix("unix://")
        self._path = folder / "strait.sock"
        self.url = f"unix://{self._path}"
        self._frozen = False
        self._over = False
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._todo: list[str] = ["listen"]
        self._listener: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._do()

    def freeze(self) -> None:
        """Let nothing pass: connections stay, and say nothing."""
        self._do("freeze")

    def cut(self) -> None:
        """Close everything, and refuse new connections."""
        self._do("cut")

    def open(self) -> None:
        """Let all pass again."""
        self._do("listen", "thaw")

    def close(self) -> None:
        """End the proxy."""
        self._do("cut", "end")
        self._thread.join()
        self._selector.close()
        for each in (self._wake, self._woken):
            each.close()

    def _do(self, *what: str) -> None:
        self._done = threading.Event()
        self._todo += what
        self._wake.send(b"\0")
        assert self._done.wait(30)

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    self._woken.recv(100)
                    for what in self._todo:
                        getattr(self, f"_{what}")()
                    self._todo.clear()
                    self._done.set()
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    self._pass(key.fileobj)  # type: ignore[arg-type]

    def _accept(self) -> None:
        assert self._listener
        with contextlib.suppress(OSError):
            one, _ = self._listener.accept()
            other = socket.socket(socket.AF_UNIX)
            other.connect(self._server)
            for here, there in ((one, other), (other, one)):
                self._pairs[here] = there
                if not self._frozen:
                    self._selector.register(here, selectors.EVENT_READ)

    def _pass(self, here: socket.socket) -> None:
        if here not in self._pairs:
            return
        with contextlib.suppress(OSError):
            if data := here.recv(65536):
                self._pairs[here].sendall(data)
                return
        self._part(here)

    def _part(self, here: socket.socket) -> None:
        for each in (here, self._pairs[here]):
            self._pairs.pop(each)
            with contextlib.suppress(KeyError):
                self._selector.unregister(each)
            each.close()

    def _freeze(self) -> None:
        self._frozen = True
        for each in self._pairs:
            self._selector.unregister(each)

    def _thaw(self) -> None:
        if self._frozen:
            self._frozen = False
            for each in self._pairs:
                self._selector.register(each, selectors.EVENT_READ)

    def _cut(self) -> None:
        if self._listener:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._path.unlink()
            self._listener = None
        while self._pairs:
            self._part(next(iter(self._pairs)))

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self._path))
            self._listener.listen(100)
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _end(self) -> None:
        self._over = True
