"""What must be true in every history, checked each time when it could become false.

The world's own knowledge is the measure: it sees every process, every script, and the record itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from coord.control import MARGIN_S
from coord.plan import Plan
from coord.record import LEASE_S
from tests.sim.network import NEVER_S
from workers.state import Phase

if TYPE_CHECKING:
    from coord.snapshot import Snapshot
    from tests.sim.hosts import Run
    from tests.sim.network import Wire
    from tests.sim.processes import Process
    from tests.sim.world import World

GOOD = {b"clean", b"forced"}
OBEY_MARGIN_S = 0.75  # beyond the plan, on the host: looks, exits, clocks that differ by 1 %
HEAR_S = 0.75  # from a new subscription to the request that the record has, on a link without trouble
WELL_S = LEASE_S + 7.0  # an agent without trouble for so long has renewed its lease, if there is a server
SAY_AGAIN_S = 5.0  # who is forgotten and lives has said so within this time, after another one has
BESIDE = "beside"  # the job that nobody asks to stop


class BrokenError(Exception):
    """An invariant does not hold."""


class Invariants:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.found: list[str] = []
        self.refused: set[str] = set()  # agents whose first join met a fence
        self.joined: set[str] = set()
        self._requests: dict[str, tuple[int, bytes]] = {}  # job -> losses of data so far, body
        self._plans: dict[str, tuple[bytes, Plan]] = {}
        self.requested: set[str] = set()
        self.claimed: set[str] = set()  # jobs of which somebody claims stops that did not happen
        self._members: dict[str | None, set[bytes]] = {}  # request id -> all agents that the record had beside it
        self._forgot_s: dict[str, float] = {}  # when somebody spoke whom the record had forgotten
        self._killed: dict[str, list[Run]] = {}
        self._lost: dict[str, list[str]] = {}

    def broken(self, what: str) -> None:
        """Write down that one does not hold."""
        if not self.world.closed:
            self.world.say("INVARIANT", what)
            self.found.append(what)

    # -- the record ----------------------------------------------------------------------------------------------------

    def runs(self, name: str, keys: list[bytes], args: list[bytes]) -> None:
        """See what the record is like before a script."""
        if not keys[0].endswith(b"}:job"):
            return
        self._forgotten(name, keys, args)
        if name == "join":
            agent_id = args[2].decode()
            if agent_id not in self.joined and agent_id not in self.refused:
                fenced = b"request" in self._job(keys)
                (self.refused if fenced else self.joined).add(agent_id)

    def _forgotten(self, name: str, keys: list[bytes], args: list[bytes]) -> None:
        """See whether somebody speaks whom the record has forgotten: so it may have others, who are waited for."""
        about = b""
        if name == "fail":
            about = json.loads(args[2])["agent_id"].encode()
        elif name in {"join", "enrol"}:
            about = args[2]
        run = self.world.runs.get(about.decode())
        if run and self.world.server.losses and run.name in self.joined:
            job = run.order.job
            if about not in self._agents(job) and (name == "fail" or b"request" in self._job(keys)):
                self._forgot_s[job] = self.world.now_s

    def ran(self, name: str, keys: list[bytes], reply: Any) -> None:
        """Check the record after a script."""
        if name in {"snapshot", "fence", "exists"} or not keys[0].endswith(b"}:job"):
            return
        job = keys[0][len(b"coord:{") : -len(b"}:job")].decode()
        record = self._job(keys)
        if name not in {"beat", "settle"}:
            self.world.say("server", name, job=job, reply=reply[0] if isinstance(reply, list) else reply)
        if request := record.get(b"request"):
            self._set_once(job, request, record)
        if name in {"settle", "host_lost"}:
            self._given_up(job, record)
        # claims can make the record's own verdict too good; who reads it makes it anew of what is signed
        if (verdict := record.get(b"verdict")) in GOOD and job not in self.claimed:
            self.nobody_lives(job, f"the record says {verdict.decode()}")
            killed = [] if self.world.server.losses else self._killed.get(job, [])
            if verdict == b"clean" and any(not run.crashed for run in killed):
                self.broken(f"the record says clean of {job}, though processes were killed")

    def _given_up(self, job: str, record: Any) -> None:
        """Nobody is given up who is well, neither because Redis was away; but for the bound of the shutdown."""
        lost = self.world.server.data.get(f"coord:{{{job}}}:lost".encode())
        known = self._lost.setdefault(job, [])
        now = {name.decode() for name in lost.value} if lost else set()
        new, known[:] = sorted(now - set(known)), now
        if b"request" in record:
            plan_s = Plan.from_list(json.loads(record[b"plan"])).total_s
            if self.world.now_us - int(record[b"requested_us"]) > (plan_s + LEASE_S + MARGIN_S) * 1e6:
                return
        for name in new:
            run = self.world.runs[name]
            if self._well(run):
                self.broken(f"{name} is given up though it is well")

    def _well(self, run: Run) -> bool:
        """Tell whether nothing was wrong with it, or its way to the server, for long."""
        since_s = max(run.joined_s, run.troubled_s, self.world.network.link(run.host.name).troubled_s)
        return run.joined and not run.crashed and not run.ended and self.world.now_s - since_s > WELL_S

    def nobody_lives(self, job: str, why: str) -> None:
        """No verdict but `incomplete` while a process of the job lives."""
        for run in self.world.runs.values():
            if run.order.job == job and run.group.processes and self.known(run) and run.group.living:
                pids = [each.pid for each in run.group.living]
                self.broken(f"{why} of {job} while {pids} of {run.name} live")
                return

    def known(self, run: Run) -> bool:
        """Tell whether the record has to know of it: what it lost with the server, it has from those who knew it.

        Once a request is written again, so are all who had to answer it, or it is said that not all are known.
        """
        if not self.world.server.losses or self.world.now_s - self._forgot_s.get(run.order.job, -NEVER_S) < SAY_AGAIN_S:
            return True
        name = run.name.encode()
        return name in self._agents(run.order.job) or name in self._members.get(self._id_now(run.order.job), ())

    def request_of(self, job: str) -> bytes | None:
        """Give the body of the request that the record has now."""
        item = self.world.server.data.get(f"coord:{{{job}}}:job".encode())
        return item.value.get(b"request") if item else None

    def _id_now(self, job: str) -> str | None:
        body = self.request_of(job)
        return json.loads(body)["id"] if body else None

    def _agents(self, job: str) -> Any:
        item = self.world.server.data.get(f"coord:{{{job}}}:agents".encode())
        return item.value if item else ()

    def _set_once(self, job: str, request: bytes, record: Any) -> None:
        """A request is never replaced, and its plan gets only shorter."""
        self.requested.add(job)
        self._members.setdefault(json.loads(request)["id"], set()).update(self._agents(job))
        losses = self.world.server.losses
        known = self._requests.setdefault(job, (losses, request))
        if known[1] != request and known[0] == losses:
            self.broken(f"the request of {job} was replaced")
        self._requests[job] = (losses, request)
        text = record[b"plan"]
        before = self._plans.get(job)
        if before is None or before[0] != text:
            plan = Plan.from_list(json.loads(text))
            longer = before and (plan.kill_at_s > before[1].kill_at_s or plan.total_s > before[1].total_s)
            if longer and known == (losses, request):
                self.broken(f"the plan of {job} got longer")
            self._plans[job] = (text, plan)

    def _job(self, keys: list[bytes]) -> Any:
        item = self.world.server.data.get(keys[0])
        return item.value if item else {}

    # -- processes -----------------------------------------------------------------------------------------------------

    def starts(self, run: Run) -> None:
        """A child is about to be started: not when its agent joined after the request, or has heard of it."""
        agent = run.agent
        self.world.say(run.name, "starts a child")
        if run.name in self.refused:
            self.broken(f"{run.name} joined after the request, and starts a child")
        elif agent and agent.request is not None:
            self.broken(f"{run.name} has heard of the request, and starts a child")

    def born(self, process: Process) -> None:
        """A process begins: not after a verdict that says that all are gone."""
        run = self.world.runs[process.group.agent_id]
        self.world.say(run.name, "process starts", pid=process.pid)
        record = self.world.server.hash_of(f"coord:{{{process.group.job}}}:job".encode())
        if record.get(b"verdict") in GOOD and self.known(run) and run.order.job not in self.claimed:
            self.broken(f"process {process.pid} of {run.name} starts after the verdict")

    def signalled(self, process: Process, name: str) -> None:
        """A process is signalled: only for a reason that its job, or its own agent, has."""
        run = self.world.runs[process.group.agent_id]
        self.world.say(run.name, name, pid=process.pid)
        alone = run.agent is not None and run.agent.alone is not None
        if process.group.job not in self.requested and not run.local_cause and not alone:
            self.broken(f"process {process.pid} of {run.name} got {name} for no reason")

    def ended(self, process: Process) -> None:
        """A process has gone; was it killed for the request?"""
        run = self.world.runs[process.group.agent_id]
        if process.status[1] == "SIGKILL" and run.order.job in self.requested:
            self._killed.setdefault(run.order.job, []).append(run)

    def presumed(self, snapshot: Snapshot) -> None:
        """Who is presumed to have stopped by itself has: unless it, too, is no more, which nobody can know."""
        for agent in snapshot.lost:
            by_us, run = snapshot.presumed_stopped_us(agent), self.world.runs[agent.info.agent_id]
            over = run.agent is None or run.agent.state.phase is Phase.OVER
            if by_us and by_us < self.world.now_us and not over and not run.crashed and not run.was_frozen:
                self.broken(f"{run.name} is presumed to have stopped, and has not")

    def noted(self, run: Run) -> None:
        """An agent that hears of a request has all gone, or calls it a survivor, when its plan is over."""
        agent = run.agent
        if agent is None or agent.request is None or run.knew_s is not None:
            return
        run.knew_s = self.world.now_s
        self.world.say(run.name, "knows", rev=agent.request.rev)
        wait_s = agent.request.plan.total_s * 1.011 + OBEY_MARGIN_S
        self.world.later(wait_s, self._obeyed, run, self.world.now_s + wait_s)

    def _obeyed(self, run: Run, bound_s: float) -> None:
        agent = run.agent
        if self.world.closed or agent is None or run.crashed or run.ended:
            return
        if run.frozen_s:
            self.world.later(run.frozen_s, self._obeyed, run, bound_s + run.frozen_s)
            run.frozen_s = 0.0
        elif agent.state.phase is not Phase.OVER:
            self.broken(f"{run.name} heard of the request, and is {agent.state.phase} beyond its plan")

    # -- hearing -------------------------------------------------------------------------------------------------------

    def subscribed(self, wire: Wire) -> None:
        """After a new subscription, what the record has is heard at once, and not with the next beat."""
        run = self.world.runs.get(wire.program.name)
        if run and run.joined and run.order.job in self.requested and self._quiet(run):
            data = self.world.server.hash_of(f"coord:{{{run.order.job}}}:job".encode())
            if b"request" in data:
                self.world.later(HEAR_S, self._heard, run, self.world.now_s)

    def _heard(self, run: Run, since_s: float) -> None:
        quiet = self._quiet(run) and max(self.world.troubled_s, run.troubled_s) < since_s
        agent = run.agent
        if quiet and agent and not run.program.dead and not run.ended and agent.request is None:
            self.broken(f"{run.name} subscribed anew, and has not heard what the record has")

    def _quiet(self, run: Run) -> bool:
        link = self.world.network.link(run.host.name)
        now_s = self.world.now_s
        return not link.loss and now_s > max(link.stalled_until_s, link.cut_until_s, run.program.frozen_until_s)

    # -- the job beside ------------------------------------------------------------------------------------------------

    def unharmed(self) -> None:
        """Only the right job was touched."""
        for run in self.world.runs.values():
            if run.order.job != BESIDE or not run.joined:
                continue
            agent = run.agent
            if run.ended or agent is None or agent.state.phase is not Phase.RUNNING or agent.request:
                self.broken(f"{run.name} of the job beside was stopped")
            if len(run.group.living) < run.started:
                self.broken(f"processes of {run.name} of the job beside are gone")
