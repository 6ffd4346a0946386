"""Runs in the private namespaces: starts the network and a Redis, and then RQ's tests with the arguments given."""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PORT = 6379  # as RQ's tests have it
START_S = 20.0
SUITE_S = 1500.0  # about four minutes on two cores
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # netdevice(7)


def main() -> int:
    """Give pytest's exit code; 124 when it took too long."""
    loopback_up()
    for stale in Path(tempfile.gettempdir()).glob(".rq_sentinel*"):
        stale.unlink()  # of a run that was ended: a test would take it for its own
    with tempfile.TemporaryDirectory() as folder:
        options = ("--port", str(PORT), "--databases", "32", "--save", "", "--appendonly", "no", "--dir", folder)
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(["redis-server", *options], stdout=log)
        try:
            wait_for_server()
            return run_tests()
        finally:
            server.kill()
            server.wait()


def run_tests() -> int:
    """Run them in a group of their own: some signal theirs."""
    plugins = ("-p", "no:cacheprovider", "-p", "substitute")
    command = [sys.executable, "-m", "pytest", *plugins, *sys.argv[1:]]
    with subprocess.Popen(command, start_new_session=True) as tests:
        try:
            return tests.wait(SUITE_S)
        except subprocess.TimeoutExpired:
            tests.kill()
            return 124


def loopback_up() -> None:
    """A new network namespace has a loopback that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def wait_for_server() -> None:
    """Wait until it listens."""
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError("redis-server does not listen")


if __name__ == "__main__":
    sys.exit(main())
