"""Bodies with processes of the program's own: pools beside the scope, and in its ranks; and forks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from tests.scope.facts import tell, wait_for
from tests.scope.ranks import LONG_S, failing, nothing

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers import JobScope

METHODS = ("fork", "spawn", "forkserver")
FORKS = 500


def square(number: int) -> int:
    return number * number


def check(pool: ProcessPoolExecutor) -> None:
    assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]


def rank_with_pool() -> None:
    """Has a pool of its own, and is in the midst of its work."""
    with ProcessPoolExecutor(2) as pool:
        check(pool)
        tell("ready", workers=list(pool._processes))
        list(pool.map(time.sleep, [LONG_S] * 2))


def executors(scope: JobScope, _options: dict[str, Any]) -> None:
    """Pools of the program, begun before the scope, in it, and used after a rank has failed."""
    pools = [ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) for method in METHODS]
    for pool in pools:
        check(pool)
    workers = [set(pool._processes) for pool in pools]
    scope.spawn(rank_with_pool)
    wait_for("ready")
    for pool in pools:
        check(pool)
    scope.spawn(failing)
    try:
        time.sleep(LONG_S)
    finally:
        for pool in pools:
            check(pool)
        assert [set(pool._processes) for pool in pools] == workers, "nobody's workers were touched"
        tell("well")
        for pool in pools:
            pool.shutdown()


def terminated(scope: JobScope, _options: dict[str, Any]) -> None:
    """Processes of the program's own, in the block but not of the job: signals do to them what they do anywhere."""
    context = multiprocessing.get_context("fork")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        process = context.Process(target=waits, args=(number,))
        process.start()
        wait_for(f"waits-{int(number)}")
        os.kill(process.pid or 0, number)
        process.join()
        assert process.exitcode == (1 if number == signal.SIGINT else -number), process.exitcode
    scope.spawn(nothing)
    own = context.Process(target=sys.exit, args=(7,))
    own.start()
    assert scope.join()
    assert not scope.stopping
    own.join()
    assert own.exitcode == 7


def waits(number: int) -> None:
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115  # Ctrl-C is to end it with a traceback
    tell(f"waits-{number}")
    time.sleep(LONG_S)


def forking(scope: JobScope, _options: dict[str, Any]) -> None:
    """Fork again and again while the agent's thread has a lot to do."""
    for _ in range(20):
        scope.popen(["sleep", str(LONG_S)])
    times = []
    for number in range(FORKS):
        began_s = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            os._exit(number % 200)
        times.append(time.perf_counter() - began_s)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == number % 200
        if number % 20 == 0:
            scope.popen(["true"])
    times.sort()
    tell("forked", median_ms=1000 * times[FORKS // 2], max_ms=1000 * times[-1])
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        check(pool)
    sys.exit(0)


POOLS: dict[str, Callable[[JobScope, dict[str, Any]], None]] = {
    each.__name__: each for each in (executors, terminated, forking)
}
