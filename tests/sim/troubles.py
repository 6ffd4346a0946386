"""Does what goes wrong, and heals it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.heirs import Heir
from tests.sim.invariants import BESIDE

if TYPE_CHECKING:
    from tests.sim.draw import Trouble
    from tests.sim.hosts import Run
    from tests.sim.people import Person
    from tests.sim.world import Host, World


class Troubles:
    """In one world."""

    def __init__(self, world: World, people: list[Person]) -> None:
        self.world = world
        self.people = people

    def happens(self, trouble: Trouble) -> None:
        """Let one happen."""
        self.world.say("TROUBLE", trouble.kind, host=trouble.host, lasts_s=round(trouble.lasts_s, 3))
        if trouble.kind in {"restart", "amnesia", "flush", "push"}:
            self.world.troubled_s = self.world.now_s
        getattr(self, f"_{trouble.kind}")(trouble)
        until_s = self.world.now_s + trouble.lasts_s
        link = self.world.network.link(trouble.host)
        link.troubled_s = max(link.troubled_s, until_s)
        for run in self._runs(trouble.host):
            run.troubled_s = max(run.troubled_s, until_s)

    def heal(self) -> None:
        """From now on nothing goes wrong any more."""
        world = self.world
        world.say("TROUBLE", "is over")
        world.troubled_s = world.healed_s = world.now_s
        for link in world.network.links.values():
            link.loss = 0.0
            link.cut_until_s = min(link.cut_until_s, world.now_s)
            link.stalled_until_s = min(link.stalled_until_s, world.now_s)
        server = world.server
        server.push_loss = server.push_twice = server.push_late_s = 0.0
        server.start()

    def inherit(self, host: Host) -> None:
        """The next agent on a host sees to what others left there: in cgroups, it can be proved to be gone."""
        estates, host.estates = host.estates, []
        for run in estates:
            run.heir = Heir(run, proof=self.world.rng.choice((None, "cgroup")))
            run.heir.start()

    def _runs(self, host: str) -> list[Run]:
        """Give the runs on a host that have not ended."""
        return [run for run in self.world.runs.values() if run.host.name == host and not run.ended]

    def _reset(self, trouble: Trouble) -> None:
        for wire in [wire for wire in self.world.network.wires if wire.program.host == trouble.host]:
            wire.break_off()

    def _loss(self, trouble: Trouble) -> None:
        link = self.world.network.link(trouble.host)
        link.loss = self.world.rng.choice((0.02, 0.1, 0.3))
        self.world.later(trouble.lasts_s, setattr, link, "loss", 0.0)

    def _stall(self, trouble: Trouble) -> None:
        link = self.world.network.link(trouble.host)
        link.stalled_until_s = max(link.stalled_until_s, self.world.now_s + trouble.lasts_s)

    def _cut(self, trouble: Trouble) -> None:
        link = self.world.network.link(trouble.host)
        link.cut_until_s = max(link.cut_until_s, self.world.now_s + trouble.lasts_s)

    def _deaf(self, trouble: Trouble) -> None:
        for session in self.world.server.sessions:
            if session.subscribed and session.wire.program.host == trouble.host:
                session.wire.deaf = True

    def _push(self, trouble: Trouble) -> None:
        server, rng = self.world.server, self.world.rng
        server.push_loss, server.push_twice = rng.choice((0.0, 0.3, 1.0)), rng.choice((0.0, 0.5))
        server.push_late_s = rng.choice((0.0, 0.1, 3.0))
        self.world.later(trouble.lasts_s, self._push_well)

    def _push_well(self) -> None:
        server = self.world.server
        server.push_loss = server.push_twice = server.push_late_s = 0.0

    def _agent(self, trouble: Trouble) -> None:
        for run in self._runs(trouble.host)[:1]:
            run.crash(guarded=True)

    def _pair(self, trouble: Trouble) -> None:
        for run in self._runs(trouble.host)[:1]:
            run.crash(guarded=False)

    def _power(self, trouble: Trouble) -> None:
        host = self.world.hosts.get(trouble.host)
        if host is None:
            return
        for wire in [wire for wire in self.world.network.wires if wire.program.host == host.name]:
            wire.deaf = True
        for run in self._runs(host.name):
            run.power_off()
        for person in self.people:
            if person.program.host == host.name:
                self.world.kill(person.program)
        host.estates.clear()
        host.down = True
        self.world.later(trouble.lasts_s, self._up, host)

    def _up(self, host: Host) -> None:
        host.down = False

    def _person(self, _trouble: Trouble) -> None:
        for person in self.people[-1:]:
            self.world.kill(person.program)

    def _restart(self, trouble: Trouble) -> None:
        self.world.server.stop()
        self.world.later(trouble.lasts_s, self._start)

    def _start(self) -> None:
        self.world.troubled_s = self.world.now_s
        self.world.server.start()

    def _amnesia(self, trouble: Trouble) -> None:
        server = self.world.server
        if self.world.rng.random() < 0.5:
            server.keep()
            wait_s = self.world.rng.choice((0.001, 0.1, 1.0))
        else:
            wait_s = 0.0
        self.world.later(wait_s, self._forget, trouble.lasts_s)

    def _forget(self, lasts_s: float) -> None:
        server = self.world.server
        self.world.troubled_s = self.world.now_s
        if self.world.healed_s is None:
            server.stop()
            server.lose()
            self.world.later(lasts_s, self._start)

    def _flush(self, _trouble: Trouble) -> None:
        self.world.server.flush_scripts()

    def _freeze(self, trouble: Trouble) -> None:
        for run in self._runs(trouble.host)[:1]:
            if run.order.job != BESIDE:
                run.program.frozen_until_s = self.world.now_s + trouble.lasts_s
                run.frozen_s += trouble.lasts_s
                run.was_frozen = True
