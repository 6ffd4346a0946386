"""What the clerk and the obituary have done, given as plain facts: sweep a job, settle dead workers."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from coord.errors import UsageError
from coord.keyrings import keyring
from coord.keys import check_job_id
from coord.ledger import Ledger
from coord.record import RETAIN_S, Record
from coord.redis_errors import mapped
from coord.render.text import fenced_words
from coord.rq.meta import JOB_ID, text_in_meta
from coord.rq.settle import Settle
from coord.rq.sweep import Sweep
from coord.rq.where import connect, hosted_workers, shown_url

if TYPE_CHECKING:
    from rq.job import Job

    from coord.rq.settle import Settled
    from coord.seal import Keyring

SWEEP_S = 30.0


def sweep(what: dict[str, Any]) -> dict[str, Any]:
    """Sweep a job: `job_id`, `record_url`, `rq_url`, `config`, `who`, `until_s` (monotonic), perhaps `retain_s`."""
    record = Record(what["job_id"], what.get("retain_s") or RETAIN_S, keyring(what.get("secret_file")))
    until_s = what.get("until_s") or time.monotonic() + SWEEP_S
    connection = connect(what.get("rq_url"), what.get("config"))
    ledger = Ledger(what["record_url"])
    try:
        swept = Sweep(connection, ledger, record, what["who"], until_s, again=bool(what.get("again"))).run()
    finally:
        ledger.close()
        connection.close()
    return asdict(swept)


def settle(what: dict[str, Any]) -> dict[str, Any]:
    """Settle dead workers: `workers` or `prefix`, `rq_url`, `config`, `as`, `words`, `record_url`, `job_id`."""
    connection = connect(what.get("rq_url"), what.get("config"))
    ledger = Ledger(what["record_url"]) if what.get("record_url") else None
    try:
        names = set(what.get("workers") or ())
        if prefix := what.get("prefix"):
            with mapped(shown_url(connection)):
                names |= {name for name in hosted_workers(connection) if name.startswith(prefix)}
        settled = Settle(connection, what["as"], what["words"], _Fences(ledger, keyring(what.get("secret_file")))).run(
            names
        )
        if ledger:
            _tally(ledger, what, settled)
    finally:
        connection.close()
        if ledger:
            ledger.close()
    return asdict(settled)


class _Fences:
    """Asks the record, once per name, whether what an RQ job belongs to was shut down."""

    def __init__(self, ledger: Ledger | None, keyring: Keyring | None = None) -> None:
        self._ledger = ledger
        self._keyring = keyring
        self._known: dict[str, str | None] = {}

    def __call__(self, job: Job) -> tuple[str, str] | None:
        raw: Any = job.connection.hget(job.key, "meta")
        names = (text_in_meta(raw or b"", JOB_ID), job.group_id, job.id)
        return next(((name, words) for name in names if name and (words := self._words(name))), None)

    def _words(self, name: str) -> str | None:
        if name not in self._known:
            self._known[name] = self._ask(name)
        return self._known[name]

    def _ask(self, name: str) -> str | None:
        if self._ledger is None:
            return None
        with suppress(UsageError):  # a name that can't be a job's was never shut down
            request = self._ledger.run(Record(check_job_id(name), keyring=self._keyring).fence()).request
            return fenced_words(request) if request else None
        return None


def _tally(ledger: Ledger, what: dict[str, Any], settled: Settled) -> None:
    """Count what was stopped for the job that it belongs to, the rest for the host."""
    for name, count in settled.stopped_of.items():
        if name or what.get("job_id"):
            ledger.run(Record(name or what["job_id"]).tally("stopped", count))
    if settled.requeued and what.get("job_id"):
        ledger.run(Record(what["job_id"]).tally("requeued", settled.requeued))
