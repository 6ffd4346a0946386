"""What of a job's record is believed: all that can be read; with a keyring, what is well signed. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from coord.decode import MessageError, decode_time, report_text, request_from
from coord.seal import Doubt, Refusal

if TYPE_CHECKING:
    from coord.messages import ShutdownRequest
    from coord.seal import Keyring


def believed(keyring: Keyring | None, job_id: str, fields: Any) -> tuple[ShutdownRequest | None, Refusal | None]:
    """Read a request as `decode_request`; with a keyring, one that is not well signed is a refusal instead."""
    if keyring is None:
        return decode_request(fields), None
    try:
        request = decode_request(fields)
    except MessageError:
        return None, Refusal(Doubt.MALFORMED, job_id=job_id)
    doubt = keyring.doubt_request(job_id, request) if request else None
    if request and doubt:
        return None, Refusal(doubt, request.by, job_id)
    return request, None


def decode_request(fields: Any) -> ShutdownRequest | None:
    """Read `body, plan, requested_us, rev, rq, seal, now_us` as scripts return a request; None when there is none."""
    body, plan, requested_us, rev, rq, seal, now_us = fields
    if not body:
        return None
    try:
        told = json.loads(body)
        if not isinstance(told, dict):
            raise MessageError("it is no JSON object")
        return request_from(
            told,
            json.loads(plan),
            requested_us=decode_time(requested_us),
            rev=int(rev),
            elapsed_us=int(now_us) - int(requested_us),
            rq=rq == b"1",
            seal=(seal or b"").decode(),
        )
    except (TypeError, ValueError) as error:
        raise MessageError(f"the record's request is broken: {error}") from error


def doubt_of_report(keyring: Keyring | None, whose: tuple[str, str, str], data: bytes) -> Doubt | None:
    """Tell why an agent's word is not believed. `whose`: job, agent, and the id of the request that the record has."""
    if keyring is None:
        return None
    try:
        text, seal = report_text(data)
    except MessageError:
        return Doubt.MALFORMED
    return keyring.doubt_report(*whose, text, seal=seal)


def doubt_of_swept(keyring: Keyring | None, job_id: str, job: dict[bytes, bytes]) -> Doubt | None:
    """Tell why the word that nothing is left on RQ is not believed, where there is one."""
    if keyring is None or b"rq" not in job or b"rq_due_us" in job or b"rq_lost" in job:
        return None
    who, count, unproved, seal = (
        job.get(name, b"").decode() for name in (b"rq_who", b"rq_unproved_count", b"rq_unproved", b"rq_seal")
    )
    return keyring.doubt_swept(job_id, who, int(count or 0), unproved, seal=seal)


def counts(text: bytes | None) -> dict[str, int]:
    """Read what an agent refused; junk counts for nothing."""
    try:
        told = json.loads(text or b"{}")
        return {str(name): int(count) for name, count in told.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
