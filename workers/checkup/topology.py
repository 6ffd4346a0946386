"""The sentinels or the Cluster behind the URL: whether a primary that dies is replaced, and what each of them sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coord.errors import CoordError
from coord.finding import Finding, Status, by_importance, fail, ok, unknown, warn
from coord.ledger import Ledger
from coord.redis_errors import shown
from coord.render.text import plural
from workers.checkup.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.places import Surroundings

SENTINELS_MIN = 3  # two can't outvote one that is wrong
SLOTS = 16384


def topology(ledger: Ledger) -> Finding:
    """Tell what is behind the URL. Raises CoordError when nobody there answers."""
    seen = ledger.look_around()
    if seen is None:
        return ok("one server: when it is away, requests wait for it")
    return _sentinels(seen) if seen.kind == "sentinel" else _cluster(seen)


def of_each(server: Server, ledger: Ledger, ask: Callable[[Server], Finding]) -> Finding:
    """Ask each server that holds some of the record; gives the most important answer, and whose it is."""
    urls = ledger.primaries()
    if len(urls) == 1:
        return ask(server)
    findings = []
    for url in urls:
        one = Ledger(url)
        try:
            finding = ask(Server(one, url))
        except CoordError as error:
            finding = unknown(error.message, error.hint)
        finally:
            one.close()
        findings.append((url, finding))
    worst = by_importance(finding for _, finding in findings)[0]
    where = [shown(url) for url, finding in findings if finding.status is worst.status]
    if worst.status is Status.OK:
        return worst
    return Finding(worst.status, f"{worst.found} (at {', '.join(where)})", worst.advice)


def _sentinels(around: Surroundings) -> Finding:
    answers = {place: said for place, said in around.seen.items() if isinstance(said, dict)}
    silent = [f"{place} ({said})" for place, said in around.seen.items() if isinstance(said, str)]
    if not answers:
        return fail(f"no sentinel answers: {'; '.join(silent)}", "Start them, or correct the URL")
    newest = max(answers.values(), key=lambda said: int(said.get("config-epoch", 0)))
    primary = f"{newest.get('ip')}:{newest.get('port')}"
    others, replicas = int(newest.get("num-other-sentinels", 0)), int(newest.get("num-slaves", 0))
    quorum, down_s = int(newest.get("quorum", 0)), int(newest.get("down-after-milliseconds", 0)) / 1000
    found = (
        f"{plural(others + 1, 'sentinel')}, of which {len(answers)} of {len(around.seen)} named answered; "
        f"quorum {quorum}; primary {primary}, {plural(replicas, 'replica')}; down after {down_s:g} s"
    )
    if len(answers) < max(quorum, (others + 1) // 2 + 1) and silent:
        return fail(f"{found}: too few for a failover: {'; '.join(silent)}", "Start the others")
    if "down" in newest.get("flags", ""):
        return fail(f"{found}: the primary is down ({newest['flags']})", "Look at it; a failover may be under way")
    if len({(said.get("ip"), said.get("port")) for said in answers.values()}) > 1:
        return warn(f"{found}: the sentinels do not agree on the primary", "Look again in a moment")
    if silent:
        return warn(f"{found}: silent: {'; '.join(silent)}", "Start it, or take it out of the URL")
    if not replicas:
        return warn(f"{found}: nobody can take over", "Add a replica")
    if others + 1 < SENTINELS_MIN:
        return warn(f"{found}: with fewer than three, one that is gone stops failovers", "Run three sentinels")
    return ok(found)


def _cluster(around: Surroundings) -> Finding:
    silent = [f"{place} ({said})" for place, said in around.seen.items() if isinstance(said, str)]
    broken = [
        place for place, said in around.seen.items() if isinstance(said, dict) and said.get("cluster_state") != "ok"
    ]
    served = sum(last - first + 1 for first, last, _ in around.shards)
    primaries = {places[0]: len(places) - 1 for _, _, places in around.shards}
    alone = [place for place, replicas in primaries.items() if not replicas]
    found = f"Cluster of {plural(len(around.seen), 'node')}: {len(primaries)} hold keys, {served:,} of {SLOTS:,} slots"
    if broken or served < SLOTS:
        return fail(f"{found}; down, says {', '.join(broken) or 'nobody'}", "Run redis-cli --cluster check")
    if silent:
        return warn(f"{found}; silent: {'; '.join(silent)}", "Start it; agents may be told to go there")
    if alone:
        return warn(f"{found}; without a replica: {', '.join(alone)}", "Add replicas: a node that dies takes its jobs")
    return ok(f"{found}, each with a replica")
