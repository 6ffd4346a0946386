"""How processes can be kept together here, and proved to be gone: cgroups, pidfds, and who inherits orphans."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from coord.finding import fail, ok, unknown, warn
from workers import signals
from workers.cgroups import PREFIX, Cgroup, NoCgroupError, home, usable
from workers.checkup.orphan import WAIT_S, Orphan
from workers.containment import Choice
from workers.mounts import mounts
from workers.proc import read_stat

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.finding import Finding
    from workers.checkup.orphan import Fate


def proof(choice: Choice) -> Finding:
    """Tell which proof `coord run` would give, and why this one."""
    if choice is Choice.SUBREAPER:
        return ok("subreaper, as asked for")
    try:
        _tried_cgroup()
    except NoCgroupError as error:
        if choice is Choice.CGROUP:
            return fail(f"a cgroup was asked for, but {error.message}", error.hint)
        return ok(f"subreaper, since {error.message}")
    return ok("cgroup, one per command: the kernel says when it is empty, and kills it at one instant")


def cgroup(choice: Choice) -> Finding:
    """Tell where cgroups are mounted, and whether ours may be divided."""
    layout = _layout()
    try:
        folder = _tried_cgroup()
    except NoCgroupError as error:
        found = f"{layout}: {error.message}"
        return ok(f"{found}; not asked for") if choice is Choice.SUBREAPER else warn(found, error.hint)
    return ok(f"{layout}: {folder} may be divided, and has cgroup.kill")


def pidfds() -> Finding:
    """Tell whether processes can be held by pidfds."""
    refused = signals.refusals()
    if not refused:
        return ok("processes are held by pidfds")
    said = " and ".join(f"{call} is refused ({why})" for call, why in refused.items())
    return warn(
        f"{said}: processes are held by pid and start time, and looked at often",
        f"Allow {' and '.join(refused)} in the sandbox (seccomp), or use Linux 5.3 or newer",
    )


def orphans() -> Callable[[], Finding]:
    """Try who inherits what our own death leaves, and whether it reaps. Gives the check that tells, some time later."""
    if os.getpid() == 1:
        return lambda: ok("this process is PID 1, as `coord run` would be: that reaps orphans")
    try:
        orphan = Orphan()
    except OSError as error:
        why = str(error)
        return lambda: unknown(f"no orphan could be made: {why}", "")
    return lambda: _told(orphan.fate())


def _told(fate: Fate) -> Finding:
    stat = read_stat(fate.heir_pid)
    heir = f"{'PID 1' if fate.heir_pid == 1 else f'process {fate.heir_pid}'} ({stat.name if stat else '?'})"
    if fate.reaped:
        where = ", our parent," if os.getppid() == fate.heir_pid else ""
        return ok(f"{heir}{where} inherits orphans and reaps them")
    return warn(
        f"{heir} inherits orphans and has not reaped one within {WAIT_S:.0f} s: zombies pile up",
        "Give the container an init (docker run --init, compose: init: true), or start it with `coord run`",
    )


def _layout() -> str:
    match bool(mounts("cgroup")), bool(mounts("cgroup2")):
        case False, False:
            return "not mounted"
        case True, False:
            return "v1 only"
        case False, True:
            return "v2"
        case _:
            return "v1 and v2 (hybrid)"


def _tried_cgroup() -> str:
    """Make a cgroup as an agent does, and take it away. Gives the folder it was made in. Raises NoCgroupError."""
    parent = home()
    trial = Cgroup.make(parent, f"{PREFIX}doctor-{os.getpid()}")
    held = trial.hold()  # an agent that starts now clears away what nobody holds
    try:
        usable(trial)
        trial.emptied()  # the child that tried it leaves it a moment after its end
        trial.remove()
    finally:
        if held is not None:
            os.close(held)
    return parent
