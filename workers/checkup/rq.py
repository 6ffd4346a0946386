"""RQ, where it is used: whether its workers can be hosted here, and who else works its queues. Reads only."""

from __future__ import annotations

import os
import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

from rq.version import VERSION

from coord.address import topology
from coord.finding import fail, ok, warn
from coord.redis_errors import mapped, shown
from coord.render.text import plural
from coord.rq.where import connect, hosted_workers, plain_workers, queue_names, worker_key
from workers.rq_fits import misfit

if TYPE_CHECKING:
    from coord.finding import Finding

OLDEST = (6, 2)  # it has LMOVE
NAMES_MAX = 3


def rq(record_url: str) -> Finding:
    """Look at RQ where it would be found: RQ_REDIS_URL, else the record's Redis. Raises CoordError."""
    if words := misfit():
        return fail(words, "Install RQ 3.0")
    given = os.environ.get("RQ_REDIS_URL")
    if not given and topology(record_url):
        return ok(f"RQ {VERSION}; it has no queues here, since it speaks to one server: see RQ_REDIS_URL")
    url = given or record_url
    with closing(connect(url)) as connection, mapped(url):
        server: Any = connection.info("server")
        queues, hosted = queue_names(connection), hosted_workers(connection)
        plain = sorted(name for name in plain_workers(connection, hosted) if connection.exists(worker_key(name)))
    version = server["redis_version"]  # Valkey says which Redis it is like
    found = f"RQ {VERSION}; {plural(len(queues), 'queue')} at {shown(url)}"
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
        return fail(f"{found}, a Redis {version}: too old for `coord worker`", "Use Redis 6.2 or newer, or Valkey")
    if plain:
        some = ", ".join(plain[:NAMES_MAX]) + (" ..." if len(plain) > NAMES_MAX else "")
        return warn(
            f"{found}; {plural(len(plain), 'plain RQ worker')} ({some}): stops of what they run are not proved",
            "Start `coord worker` in their place",
        )
    return ok(f"{found}; {plural(len(hosted), 'worker')} of agents")
