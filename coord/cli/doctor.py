"""`coord doctor`: what coord can do on this host, and what should be mended."""

from __future__ import annotations

import json
from typing import Any

import click

from coord.cli import options as opt
from coord.errors import OK, OWN_ERROR


@click.command(
    "doctor",
    epilog="""\b
Exit codes: 0 nothing fails (there may be warnings) · 1 something fails · 2 usage
\b
Each finding is ok, warn, fail or unknown, and says what to do unless all is well. Nothing is changed: a trial job
is recorded, which no list shows, and is gone within a minute.
\b
Examples:
  coord doctor                                       before the first job on a host
  coord doctor --redis-url redis://redis:6379        also: is this Redis good for coord?
  coord doctor --json | jq '.findings[] | select(.status != "ok")'
""",
)
@opt.containment
@opt.as_json
@opt.common
def command(json_: bool, containment: str, **rest: Any) -> int:
    """Say what coord can do on this host and with this Redis, and what should be mended."""
    from coord.finding import Status
    from coord.keyrings import keyring
    from workers.checkup import check_up
    from workers.containment import Choice

    chosen = opt.settings(rest)
    keys = keyring(chosen.secret_file)
    findings = check_up(Choice(containment), chosen.by, lambda: opt.redis_url(chosen), keys)
    if json_:
        from coord.render.document import findings_document

        click.echo(json.dumps(findings_document(chosen.host, findings)))
    else:
        from coord.render.findings import findings_view

        screen = opt.screen()
        for part in findings_view(chosen.host, findings):
            screen.print(part)
    return OWN_ERROR if any(finding.status is Status.FAIL for finding in findings) else OK
