"""What `coord doctor` looks at on this host and on its Redis. Each check tries or asks one thing, and leaves no trace.

A check is a function without arguments that gives a finding; one that fails hides no other.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from coord.errors import CoordError
from coord.finding import Finding, by_importance, fail, unknown
from coord.ledger import Ledger
from coord.messages import one_line
from workers.checkup import keeping, limits, places, system
from workers.checkup.server import Server
from workers.checkup.topology import of_each, topology
from workers.checkup.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.seal import Keyring
    from workers.containment import Choice

    Check = Callable[[], Finding]


def check_up(choice: Choice, by: str, redis_url: Callable[[], str], keyring: Keyring | None = None) -> list[Finding]:
    """Look at everything; the most important first. `choice`: of `--containment`; `by`: who asks. Raises nothing."""
    orphans = keeping.orphans()  # what becomes of one shows while we look at everything else
    found = [*_examined(_host_checks(choice)), *_examined(_server_checks(by, redis_url, keyring))]
    return by_importance([*found, _examine("pid-1", orphans)])


def _host_checks(choice: Choice) -> dict[str, Check]:
    return {
        "proof": lambda: keeping.proof(choice),
        "cgroup": lambda: keeping.cgroup(choice),
        "pidfd": keeping.pidfds,
        "proc": places.proc,
        "open-files": limits.open_files,
        "processes": limits.processes,
        "runtime-dir": places.runtime_directory,
        "shared-memory": places.shared_memory,
        "system": system.system,
    }


def _server_checks(by: str, redis_url: Callable[[], str], keyring: Keyring | None) -> dict[str, Check]:
    """Without a server there is nothing more to ask it."""
    ledger = None
    try:
        url = redis_url()
        ledger = Ledger(url)
        server = Server(ledger, url)
        server.reach()
    except CoordError as error:
        found, advice = error.message, error.hint
        around = {"topology": partial(topology, ledger)} if ledger and ledger.many else {}
        return {"redis": lambda: fail(found, advice), **around, "clock": system.clock}
    trial = Trial(url, by, keyring)
    return {
        "redis": server.kind,
        "record": trial.record,
        "channel": trial.channel,
        "topology": lambda: topology(ledger),
        "persistence": lambda: of_each(server, ledger, Server.persistence),
        "eviction": lambda: of_each(server, ledger, Server.eviction),
        "latency": server.latency,
        "output-buffers": lambda: of_each(server, ledger, Server.output_buffers),
        "connections": lambda: of_each(server, ledger, Server.connections),
        "rq": lambda: _rq(url),
        "clock": lambda: system.clock(server.ahead_s()),
    }


def _rq(url: str) -> Finding:
    from workers.checkup.rq import rq  # which may be one that can't even be imported

    return rq(url)


def _examined(checks: dict[str, Check]) -> list[Finding]:
    return [_examine(name, check) for name, check in checks.items()]


def _examine(name: str, check: Check) -> Finding:
    try:
        finding = check()
    except CoordError as error:
        finding = unknown(error.message, error.hint)
    except Exception as error:  # noqa: BLE001  # whatever it is, the other checks say what they have found
        finding = unknown(f"can't be told: {type(error).__name__}: {error}", "")
    return replace(finding, name=name, found=one_line(finding.found), advice=one_line(finding.advice))
