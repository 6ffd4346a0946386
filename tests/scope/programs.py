"""Programs with a `JobScope`: `python tests/scope/programs.py BODY '{"context": ..., "scope": {...}, ...}'`.

Each runs a body in a scope, and tells how that ended, and what is different in the program afterwards.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from coord.child import Stop
from tests.scope.bodies import BODIES
from tests.scope.calls import CALLS
from tests.scope.facts import tell
from tests.scope.pools import POOLS
from tests.scope.ranks import nothing
from workers import JobScope, beside, forks
from workers.interrupts import Interrupts
from workers.prctl import is_subreaper
from workers.scoped_job import ScopedJob
from workers.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext


def main(body: Callable[[JobScope, dict[str, Any]], object], options: dict[str, Any]) -> None:
    """Run it.

    `handler`: the program has one of its own for SIGTERM; `thread`: the block is another thread's; `off`: a guard.
    """
    context = warmed_up(options)
    if "handler" in options:
        signal.signal(signal.SIGTERM, lambda *_: tell("handled"))
    if "off" in options:
        GUARDS[options["off"]]()
    before = traces()
    if "thread" in options:
        thread = threading.Thread(target=scoped, args=(context, body, options))
        thread.start()
        thread.join()
    else:
        scoped(context, body, options)
    after = traces()
    tell("traces", **{name: [before[name], after[name]] for name in before if before[name] != after[name]})


def scoped(context: BaseContext, body: Callable[[JobScope, dict[str, Any]], object], options: dict[str, Any]) -> None:
    """Run the body in a scope."""
    try:
        with JobScope(context=context, **options["scope"]) as scope:
            body(scope, options)
    except BaseException as error:
        tell_end(error)
        if "through" in options:
            raise
    else:
        tell("ended", error=None)


def no_nudges() -> None:
    """Have the main thread not be told of a stop."""
    kind: Any = Interrupts
    kind.nudge = lambda _self: None


def no_fence() -> None:
    """Have nobody look whether a stop has begun; and nobody be asked to leave, which could be faster."""
    job, stop, tree = cast("tuple[Any, Any, Any]", (ScopedJob, Stop, Tree))
    admit, send = job.admit, tree.send
    job.admit = lambda *args: admit(*args) is not None
    job.stop_file = stop.requested = None
    tree.send = lambda self, name, keys: send(self, name, keys if name == "SIGKILL" else ())


def early_looks() -> None:
    """Have the agent look who is there just before it is told of a child."""
    job: Any = ScopedJob
    admit = job.admit

    def late(self: Any, *args: Any) -> Any:
        self._engine.call(self._kept.look)
        return admit(self, *args)

    job.admit = late


def no_pidfd() -> None:
    """Have the guardian learn of the program's death by the end of its link alone."""
    module: Any = beside
    module.hold = lambda _pid: None


def no_pidfd_nor_fork_hook() -> None:
    """And have that end stay in forked ranks."""
    no_pidfd()
    module: Any = forks
    module.private = type("Nothing", (set,), {"add": lambda *_: None})()


GUARDS = {
    "nudge": no_nudges,
    "fence": no_fence,
    "first look": early_looks,
    "pidfd": no_pidfd,
    "pidfd and fork hook": no_pidfd_nor_fork_hook,
}


def warmed_up(options: dict[str, Any]) -> BaseContext:
    """Give the context of ranks, once the helpers of multiprocessing are there, which stay until the program ends."""
    context: BaseContext = multiprocessing.get_context(options.get("context", "fork"))
    process = cast("Any", context).Process(target=nothing)
    process.start()
    process.join()
    process.close()
    return context


def traces() -> dict[str, Any]:
    """Give what a program has that a scope must leave as it was."""
    gc.collect()
    children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return {
        "fds": {path.name: str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()},
        "children": sorted(pid for pids in children for pid in pids),
        "threads": sorted(each.name for each in threading.enumerate()),
        "subreaper": is_subreaper(),
        "signals": {each.name: str(signal.getsignal(each)) for each in signal.Signals},
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }


def tell_end(error: BaseException) -> None:
    """Tell how a block was left."""
    failure, request = getattr(error, "failure", None), getattr(error, "request", None)
    failure_names = ("host", "label", "pid", "exit_code", "signal", "stderr_tail")
    tell(
        "ended",
        error=type(error).__name__,
        text=str(error),
        code=getattr(error, "code", None),
        notes=getattr(error, "__notes__", []),
        trace=str(error.__cause__) if error.__cause__ else None,
        context=type(error.__context__).__name__ if error.__context__ else None,
        failure=failure and {name: getattr(failure, name) for name in failure_names},
        request=request and {name: getattr(request, name) for name in ("cause", "by", "reason")},
    )


if __name__ == "__main__":
    main({**BODIES, **CALLS, **POOLS}[sys.argv[1]], json.loads(sys.argv[2]))
