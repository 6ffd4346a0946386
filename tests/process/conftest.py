"""The two ways of keeping processes together: what is promised holds in both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from workers.cgroups import Cgroup, NoCgroupError, home, usable

if TYPE_CHECKING:
    from tests.harness import Lab

MODES = ("cgroup", "subreaper")


def why_no_cgroup() -> str | None:
    """Say why this machine can't have a cgroup per child; None: it can."""
    try:
        trial = Cgroup.make(home(), "coord-trial")
        usable(trial)
        trial.remove()
    except NoCgroupError as error:
        return f"cgroups can't be used here: {error}"
    return None


NO_CGROUP = why_no_cgroup()


@pytest.fixture(params=MODES)
def containment(request: pytest.FixtureRequest, lab: Lab) -> str:
    """Have the lab's commands keep their processes together in one of the two ways."""
    if request.param == "cgroup" and NO_CGROUP:
        pytest.skip(NO_CGROUP)
    lab.environment["COORD_CONTAINMENT"] = request.param
    return str(request.param)
