"""How soon a job is stopped that was asked to while its agent was cut off: from the moment the way is free again.

The agent is a real `coord run`; the first signal is seen by the end of its `sleep`, through a pidfd.
"""

from __future__ import annotations

import random
import select
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from coord.coordinator import Coordinator
from tests.bench.onlooker import children
from tests.bench.program import program
from tests.bench.site import BIN, ROOT
from tests.outage import DURABLE, Outage
from tests.strait import Strait, ears

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.site import Site

AWAY_S = 3.0  # longer than a beat, shorter than a lease
BEFORE_S = 1.0
GONE_S = 60.0


def measure_recovery(site: Site, *, runs: int, progress: Callable[[str], None]) -> dict[str, list[float]]:
    """Give, for each kind of cut, ms from the link's return to the end of the job's process."""
    figures: dict[str, list[float]] = {name: [] for name in CUTS}
    for run in range(runs):
        for name, cut in CUTS.items():
            progress(f"recovery, {name}: run {run + 1} of {runs}")
            figures[name].append(_one(site, cut, f"{site.token}.recovery.{run}.{list(CUTS).index(name)}"))
    return figures


class Way:
    """A server, and a proxy before the agent."""

    def __init__(self, folder: Path) -> None:
        self.outage = Outage(folder, config=DURABLE)
        self.outage.start()
        (folder / "way").mkdir()
        self.strait = Strait(self.outage.url, folder / "way")
        self.asked: Callable[[], object] = lambda: None

    def dropped(self) -> float:
        """Every connection is closed, and new ones are refused, until the link is back."""
        self.strait.cut()
        self._ask_meanwhile()
        self.strait.open()
        return time.monotonic()

    def frozen(self) -> float:
        """Nothing passes, and nothing is closed, until it does."""
        self.strait.freeze()
        self._ask_meanwhile()
        self.strait.open()
        return time.monotonic()

    def half_open(self) -> float:
        """The server's side of every connection is gone, without a word; new ones pass at once."""
        self.strait.forget()
        back_s = time.monotonic()
        self.asked()
        return back_s

    def deaf(self) -> float:
        """The same of the subscription alone."""
        self.strait.forget(ears)
        back_s = time.monotonic()
        self.asked()
        return back_s

    def restarted(self) -> float:
        """The server is killed right after it has acknowledged the request, and is started again with what it wrote."""
        self.strait.freeze()
        self.asked()
        self.outage.kill()
        time.sleep(AWAY_S * random.random())
        self.outage.start()
        self.strait.open()
        return time.monotonic()

    def _ask_meanwhile(self) -> None:
        time.sleep(AWAY_S * random.random())
        self.asked()
        time.sleep(AWAY_S * random.random())

    def close(self) -> None:
        """End both."""
        self.strait.close()
        self.outage.close()


CUTS: dict[str, Callable[[Way], float]] = {
    "connections dropped, none taken": Way.dropped,
    "nothing passes": Way.frozen,
    "half-open": Way.half_open,
    "half-open subscription": Way.deaf,
    "server killed, and started again": Way.restarted,
}


def _one(site: Site, cut: Callable[[Way], float], mark: str) -> float:
    with _way() as way, ExitStack() as stack:
        argv = (str(BIN / "coord"), "run", "--job-id", mark, "--", "sleep", "1000")
        environment = site.environment(mark, COORD_HOST="h", COORD_REDIS_URL=way.strait.url)
        stack.enter_context(program(argv, environment, cwd=ROOT))
        (pidfd,) = stack.enter_context(children(mark, 1))
        coordinator = stack.enter_context(Coordinator(way.outage.url, by="bench", retain_s=3600))
        way.asked = lambda: coordinator.request(mark)
        time.sleep(BEFORE_S + 2.0 * random.random())  # anywhere between two beats
        back_s = cut(way)
        _until_gone(pidfd)
        return (time.monotonic() - back_s) * 1000


@contextmanager
def _way() -> Iterator[Way]:
    with TemporaryDirectory(prefix="coord-bench-") as name:
        way = Way(Path(name))
        try:
            yield way
        finally:
            way.close()


def _until_gone(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(GONE_S * 1000):
        raise RuntimeError(f"the job was not stopped within {GONE_S:.0f} s")
