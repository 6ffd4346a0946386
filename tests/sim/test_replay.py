"""A history is its number: what happened once happens again, in this process and in another."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.history import play
from tests.sim.many import story

SEEDS = range(7000, 7030)
ROOT = Path(__file__).parent.parent.parent


def digest(seed: int) -> str:
    return hashlib.sha256(story(play(seed), last=None).encode()).hexdigest()


def test_a_seed_replays_exactly() -> None:
    """The whole trace, with all its times, is the same twice, whatever was played between."""
    first = {seed: digest(seed) for seed in SEEDS}
    assert {seed: digest(seed) for seed in reversed(SEEDS)} == first
    assert len(set(first.values())) == len(SEEDS)


@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_another_process_plays_the_same(hash_seed: str) -> None:
    """No order depends on addresses or on Python's hashes of texts."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    for seed in SEEDS[:4]:
        argv = [sys.executable, "-m", "tests.sim", "--seed", str(seed)]
        shown = subprocess.run(argv, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
        assert shown == story(play(seed), last=None) + "\n"
