"""What the documents say of `coord.child` runs as it stands there, and importing it costs little."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import coord.child
from tests.harness import WAIT_S, Started, surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
IN_MODULE = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", coord.child.__doc__ or "", re.MULTILINE)
LOOP, SERVER = (textwrap.dedent(text) for text in IN_MODULE)
LOOPS = {
    "module": LOOP,
    "README": next(text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "coord.child" in text),
}

PROGRAM = """
import os, sys, time

def say(text):
    print(text, flush=True)

def train(batch):
    if batch == BLOCKS:
        say("ready")
        time.sleep(300)

def save_checkpoint():
    say("saved")

def upload():
    say("uploaded")

class Server:
    def __init__(self):
        self.ends = os.pipe()

    def serve_forever(self):
        say("ready")
        os.read(self.ends[0], 1)
        say("served")

    def shutdown(self):
        os.write(self.ends[1], b"x")

server, batches = Server(), range(3)
"""


@pytest.fixture
def stop_file(tmp_path: Path) -> Iterator[Path]:
    """The place of a stop file that no agent writes."""
    yield tmp_path / "agent-1.json"
    assert not list(tmp_path.glob("*.new"))


@contextlib.contextmanager
def started(example: str, stop_file: Path, blocks: int | None = None) -> Iterator[Started]:
    """Run an example among what it takes for granted; gone afterwards."""
    argv = [sys.executable, "-c", f"BLOCKS = {blocks}\n{PROGRAM}\n{example}"]
    environment = {**surroundings(), "COORD_STOP_FILE": str(stop_file)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as popen:
        try:
            yield Started(popen)
        finally:
            popen.kill()


def ready(program: Started) -> None:
    """Wait until it has nothing to say but `ready` any more."""
    assert program.popen.stdout
    while (line := program.popen.stdout.readline()) != b"ready\n":
        assert line == b"saved\n"


def test_both_documents_show_the_same_example() -> None:
    """Who read the one knows the other."""
    module, readme = (re.sub(r" *#.*", "", text).split() for text in LOOPS.values())
    assert module == readme


@pytest.mark.parametrize("example", LOOPS)
def test_the_loop_runs_to_its_end_when_nothing_is_requested(example: str, stop_file: Path) -> None:
    """Outside of coord, the same code does its work and says nothing of a stop."""
    with started(LOOPS[example], stop_file) as program:
        ended = program.end()
    assert (ended.out, ended.code) == ("saved\n" * 3, 0), ended.err


@pytest.mark.parametrize("example", LOOPS)
def test_the_loop_is_stopped_in_order(example: str, stop_file: Path) -> None:
    """Told and signalled in the midst of a batch, it says why, asks for a minute, gets and uses it; exit code 143."""
    with started(LOOPS[example], stop_file, blocks=1) as program:
        ready(program)
        now_s = time.monotonic()
        stop_file.write_text(json.dumps({"reason": "new release", "kill_at_s": now_s + 50, "kill_max_s": now_s + 500}))
        program.signal(signal.SIGTERM)
        ended = program.end()
    assert re.fullmatch(r"stopping: new release, \d+\.\d s left\nuploaded\n", ended.out), ended
    assert ended.code == 143
    asked = json.loads(stop_file.with_name(f"{stop_file.name}.need-{program.popen.pid}").read_text())
    assert now_s + 60 <= asked["until_s"] <= time.monotonic() + 60


def test_the_server_is_called(stop_file: Path) -> None:
    """A program that can end by itself is called, and ends by itself."""
    with started(SERVER, stop_file) as program:
        ready(program)
        program.signal(signal.SIGTERM)
        ended = program.end()
    assert (ended.out, ended.code) == ("served\n", 0), ended.err


IMPORTS = """
import time
began_s = time.perf_counter()
import json, signal, threading
loaded_s = time.perf_counter()
import coord.child
print(loaded_s - began_s, time.perf_counter() - loaded_s)
"""


def imported(environment: dict[str, str]) -> tuple[float, float]:
    """Give what the modules take in a fresh interpreter that has them compiled, and what `coord.child` adds (s)."""
    argv = [sys.executable, "-c", IMPORTS]
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, timeout=WAIT_S)
    base_s, adds_s = ended.stdout.split()
    return float(base_s), float(adds_s)


def test_importing_it_costs_little(tmp_path: Path) -> None:
    """It adds less than json, threading and signal take, which hardly a program is without."""
    compiled = {**surroundings(), "PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    times = [imported(compiled) for _ in range(7)]  # what else runs on the machine only makes them slower
    assert min(adds_s for _, adds_s in times) < min(base_s for base_s, _ in times)
