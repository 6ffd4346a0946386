"""Where each RQ job is, read from its keys at one instant by no code of RQ or coord, and without side effects.

RQ's own counts clean up while they count: to look with them can fail and retry jobs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import redis

REGISTRIES = {  # what the key is called: what RQ's status of a job is, that is in it
    "finished": {"finished"},
    "failed": {"failed", "stopped"},
    "canceled": {"canceled"},
    "deferred": {"deferred"},
    "scheduled": {"scheduled"},
    "ready": {"ready_to_enqueue"},
    "wip": {"started"},
    "rate_limited": {"rate_limited"},
}
# where a job may be while nobody works: `wip`, `intermediate` and `hand` are somebody's
REST = {"queue", *REGISTRIES} - {"wip"}
ENDED = {"finished", "failed", "canceled"}
HANDS = "coord:rq:hand:"
LOOK = """
local found, statuses = {}, {}
local function list(place, key)
  for _, id in ipairs(redis.call('LRANGE', key, 0, -1)) do table.insert(found, {place, id}) end
end
for _, queue in ipairs(cjson.decode(ARGV[1])) do
  list('queue:' .. queue, 'rq:queue:' .. queue)
  list('intermediate:' .. queue, 'rq:queue:' .. queue .. ':intermediate')
  for _, name in ipairs(cjson.decode(ARGV[2])) do
    for _, id in ipairs(redis.call('ZRANGE', 'rq:' .. name .. ':' .. queue, 0, -1)) do
      table.insert(found, {name .. ':' .. queue, id})
    end
  end
end
for _, key in ipairs(redis.call('KEYS', ARGV[3] .. '*')) do list('hand:' .. string.sub(key, #ARGV[3] + 1), key) end
for _, key in ipairs(redis.call('KEYS', 'rq:rl:*:rate_limited')) do
  for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do table.insert(found, {'rate_limited:' .. key, id}) end
end
for _, id in ipairs(cjson.decode(ARGV[4])) do
  table.insert(statuses, {id, redis.call('HGET', 'rq:job:' .. id, 'status') or 'no hash'})
end
return cjson.encode({found, statuses, redis.call('SMEMBERS', 'rq:workers')})
"""


@dataclass(frozen=True)
class State:
    """All that RQ knows of some jobs: job -> places (`queue:high`, `wip:high`, ...), job -> status; workers' names."""

    places: Mapping[str, tuple[str, ...]]
    status: Mapping[str, str]
    workers: tuple[str, ...]

    def at(self, kind: str) -> set[str]:
        """Give the jobs in places of one kind: `queue`, `wip`, `finished` ..."""
        return {job for job, places in self.places.items() if any(_kind(place) == kind for place in places)}

    def counts(self) -> dict[str, int]:
        """Count the jobs by status."""
        counts: dict[str, int] = defaultdict(int)
        for status in self.status.values():
            counts[status] += 1
        return dict(counts)


def look(connection: redis.Redis, queues: Collection[str], jobs: Collection[str]) -> State:
    """Read it in one script: nothing moves meanwhile."""
    arguments = (json.dumps(list(queues)), json.dumps(list(REGISTRIES)), HANDS, json.dumps(list(jobs)))
    answer: Any = connection.eval(LOOK, 0, *arguments)
    found, statuses, workers = json.loads(answer)
    places: dict[str, list[str]] = defaultdict(list)
    wanted = set(jobs)
    for place, member in found:
        # a member of `wip` is a job and its execution, with a colon between them
        job = member.rpartition(":")[0] if _kind(place) == "wip" else member
        if job in wanted:
            places[job].append(place)
    names = tuple(str(name).removeprefix("rq:worker:") for name in workers)
    return State({job: tuple(places[job]) for job in places}, dict(statuses), names)


def faults(state: State, *, at_rest: bool = True) -> dict[str, str]:
    """Give job -> what is wrong for each that is not in exactly one place, with the status of that place.

    `at_rest`: nobody works on these queues any more, so nothing may be in anybody's hands either.
    """
    found = {job: _fault(state.places.get(job, ()), status, at_rest=at_rest) for job, status in state.status.items()}
    return {job: fault for job, fault in found.items() if fault}


def _fault(places: tuple[str, ...], status: str, *, at_rest: bool) -> str:
    if len(places) != 1:
        return f"{status}, in {' and '.join(places) or 'no place: lost'}"
    (place,) = places
    kind = _kind(place)
    if at_rest and kind not in REST:
        return f"{status}, stranded in {place}"
    allowed = REGISTRIES.get(kind, {"queued"} if at_rest else {"queued", "started"})
    return "" if status in allowed else f"{status}, but in {place}"


def _kind(place: str) -> str:
    return place.partition(":")[0]
