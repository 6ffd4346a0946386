"""Two network namespaces and one cable: the server's host, and host b. The cable can be pulled."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER_IP, HOST_IP = "10.203.0.1", "10.203.0.2"  # nobody else's: no packet leaves these namespaces
PORT = 6379
DEVICE = "cable"


@dataclass(frozen=True)
class Link:
    """The two hosts. What of a file system they see is all the same."""

    server: str
    host: str

    @property
    def url(self) -> str:
        """The server, as host b reaches it."""
        return f"redis://{SERVER_IP}:{PORT}/0"

    @property
    def at_server(self) -> tuple[str, ...]:
        """Stands before a command that runs on the server's host."""
        return _within(self.server)

    @property
    def at_host(self) -> tuple[str, ...]:
        """Stands before a command that runs on host b."""
        return _within(self.host)

    def pull(self) -> None:
        """Let no packet through, and tell nobody."""
        _ip("-n", self.server, "link", "set", DEVICE, "down")

    def plug(self) -> None:
        """Put it back."""
        _ip("-n", self.server, "link", "set", DEVICE, "up")


@contextmanager
def linked() -> Iterator[Link]:
    """Give the two, joined by a cable; skips where that can't be, and says why."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces are root's alone")
    for program in ("ip", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH: apt-get install iproute2 util-linux")
    name = f"coord-{secrets.token_hex(4)}"
    link = Link(f"{name}-server", f"{name}-b")
    made = []
    try:
        for each in (link.server, link.host):
            try:
                _ip("netns", "add", each)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
            made.append(each)
        _ip("link", "add", DEVICE, "netns", link.server, "type", "veth", "peer", "name", DEVICE, "netns", link.host)
        for each, address in ((link.server, SERVER_IP), (link.host, HOST_IP)):
            _ip("-n", each, "addr", "add", f"{address}/30", "dev", DEVICE)
            _ip("-n", each, "link", "set", DEVICE, "up")
        yield link
    finally:
        for each in made:
            _ip("netns", "del", each)


def _within(namespace: str) -> tuple[str, ...]:
    return ("nsenter", f"--net=/run/netns/{namespace}", "--")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
