"""Somebody who may speak to the server, and has no secret: says what agents and followers must not believe."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis.asyncio

from coord.errors import CoordError
from coord.keys import CONTROL_CHANNEL
from coord.ledger import AsyncLedger
from coord.messages import AgentReport, AgentState, Cause, ShutdownRequest, dump
from coord.plan import Plan
from coord.record import Record
from coord.redis_clock import RedisClock
from coord.seal import Keyring
from tests.sim.clock import EPOCH_S, Program
from tests.sim.draw import JOB
from tests.sim.invariants import BESIDE
from tests.sim.network import URL

if TYPE_CHECKING:
    from tests.sim.world import World

OWN_SECRET = b"nobody has this one"
EVERY_S = 1.5


class Forger:
    """One of them; its own way to the server is good."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.program = Program("forger", world.host("forger").clock, "forger")
        self._heard: list[bytes] = []

    def start(self) -> None:
        """Begin."""
        world = self.world
        world.spawn(self.program, self._main())

    async def _main(self) -> None:
        tries = (self._unsigned, self._by_another_key, self._altered, self._replayed, self._claims)
        rng = self.world.rng
        while self.world.healed_s is None:
            await asyncio.sleep(rng.uniform(0.1, EVERY_S))
            with suppress(redis.exceptions.RedisError, CoordError):
                client = redis.asyncio.Redis.from_url(URL)
                try:
                    await rng.choice(tries)(client)
                finally:
                    await client.aclose()

    async def _unsigned(self, client: Any) -> None:
        await client.publish(CONTROL_CHANNEL, self._message(self._request()))

    async def _by_another_key(self, client: Any) -> None:
        request = self._request()
        seal = Keyring([OWN_SECRET], RedisClock(wall=lambda: EPOCH_S + self.world.now_s)).sign_request(
            request.job_id, request
        )
        await client.publish(CONTROL_CHANNEL, self._message(request, seal))

    async def _altered(self, client: Any) -> None:
        """Put a good seal under another job's request."""
        for message in self.world.server.published[-1:]:
            told = json.loads(message)
            told["request"]["job_id"] = BESIDE
            await client.publish(CONTROL_CHANNEL, dump(told))

    async def _replayed(self, client: Any) -> None:
        for message in self.world.server.published[-3:]:
            await client.publish(CONTROL_CHANNEL, message)

    async def _claims(self, client: Any) -> None:
        """Claim that an agent has stopped."""
        del client
        runs = [run for run in self.world.runs.values() if run.order.job == JOB and run.joined and not run.ended]
        if not runs:
            return
        run = self.world.rng.choice(runs)
        ledger = AsyncLedger(URL)
        try:
            said = AgentReport(AgentState.STOPPED, "cgroup")
            self.world.invariants.claimed.add(JOB)
            await ledger.run(Record(JOB).report(run.info, said, "agent.stopped", gone_age_s=0.0))
            self.world.say("forger", "claims", agent=run.name)
        finally:
            await ledger.close()

    def _request(self) -> ShutdownRequest:
        job = self.world.rng.choice((BESIDE, BESIDE, JOB))
        return ShutdownRequest(f"{self.world.rng.random()}", job, Cause.OPERATOR, "mallory", "because", Plan.now())

    def _message(self, request: ShutdownRequest, seal: str = "") -> str:
        self.world.say("forger", "forges", job=request.job_id, signed=bool(seal))
        message = {
            "v": 1,
            "kind": "request",
            "rev": 1,
            "requested_us": self.world.now_us,
            "elapsed_us": 0,
            "plan": request.plan.to_list(),
            "request": json.loads(request.body()),
        }
        return dump(message | ({"seal": seal} if seal else {}))
