"""A host may be stopped at any instant, on a busy queue of tiny jobs: nothing is lost, and nothing left `started`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.rq.host_stops import HostStops

if TYPE_CHECKING:
    from tests.rq.fleet import Fleet

GIVEN = os.environ.get("COORD_TEST_HOST_STOPS")  # 500 by hand
STOPS = int(GIVEN or "20")
SEED = int(os.environ.get("COORD_TEST_SEED", "1"))
STOCK_MAX = 100  # about every fifth loses a job
QUEUES = [("default",), ("high", "default")]

pytestmark = pytest.mark.timeout(120 + 10 * STOPS)


@pytest.mark.parametrize("queues", QUEUES, ids=["one-queue", "two-queues"])
def test_stock_loses_jobs(fleet: Fleet, queues: tuple[str, ...]) -> None:
    """The negative control: `rq worker`, stopped the same way, soon has a job in no place or in nobody's hands."""
    stops = HostStops(fleet, "rq", queues, SEED)
    for found in stops.one_by_one(max(STOPS, STOCK_MAX)):
        if found.faults and found.stops >= (STOPS if GIVEN else 1):
            break
    print(f"rq worker, {len(queues)} queues: {stops.found}")  # noqa: T201
    assert stops.found.faults


@pytest.mark.parametrize("queues", QUEUES, ids=["one-queue", "two-queues"])
def test_no_job_is_lost_whatever_the_instant(fleet: Fleet, queues: tuple[str, ...]) -> None:
    """Every job ran at least once and is in exactly one place; none is `started`; no worker is registered any more."""
    found = HostStops(fleet, "coord", queues, SEED).run(STOPS)
    print(f"coord worker, {len(queues)} queues: {found}")  # noqa: T201
    assert found.faults == {}
    assert not found.never_ran
    assert not found.registered
    assert not found.hung
    assert found.codes == {0}
