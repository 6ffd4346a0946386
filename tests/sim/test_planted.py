"""Negative controls: with a guard of coord taken away, a history soon shows what it was for."""

from __future__ import annotations

import os

import pytest

from tests.sim.faults import FAULTS, found_after
from tests.sim.many import story

HISTORIES = 2000
SELDOM = {"no_patience", "forgetful"}  # hundreds of histories each: minutes


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Among as many histories as each run of the tests plays, one finds the fault."""
    if fault in SELDOM and not os.environ.get("COORD_TEST_SELDOM"):
        pytest.skip("takes minutes: set COORD_TEST_SELDOM=1 to look for it")
    found = found_after(fault, 0, HISTORIES)
    assert found, f"{HISTORIES} histories did not find that {FAULTS[fault].__doc__}"
    with capsys.disabled():
        print(f"\n{fault}: found by history {found[0]}: {found[1].found[0]}")  # noqa: T201
    assert f"--seed {found[1].seed}" in story(found[1])
