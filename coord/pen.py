"""Signs what is written into a job's record, where there are secrets, and takes in what has to be known for that. Pure.

The plan is signed with the request, so it must be known: that which the job's agents declared, as the last answer had
it. The record compares, and says when it has to be signed anew.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from coord.belief import believed
from coord.errors import UsageError
from coord.messages import dump
from coord.plan import Plan

if TYPE_CHECKING:
    from coord.messages import ShutdownRequest
    from coord.seal import Keyring, Refusal

DEFAULT_PLAN = dump(Plan.of().to_list())  # for a job of which no agent declared one


class Pen:
    """For one job. Without a keyring nothing is signed, and all is believed."""

    def __init__(self, job_id: str, keyring: Keyring | None) -> None:
        self._job_id = job_id
        self._keyring = keyring
        self._declared = DEFAULT_PLAN

    @property
    def keys(self) -> str:
        """The names of the keys; '' when there are none."""
        return self._keyring.ids if self._keyring else ""

    def request(self, wish: ShutdownRequest, plan: Plan | None) -> tuple[str, str, int]:
        """Give the plan as JSON, the seal, and whether the plan is what is taken for the job's own."""
        if self._keyring is None:
            return dump(plan.to_list()) if plan else "", "", 0
        text = dump(plan.to_list()) if plan else self._declared
        whole = replace(wish, plan=Plan.from_list(json.loads(text)))
        return text, self._keyring.sign_request(self._job_id, whole), int(plan is None)

    def again(self, request: ShutdownRequest) -> str:
        """Seal a request that there is: made more urgent, or to be sent once more."""
        return self._keyring.sign_request(self._job_id, request) if self._keyring else ""

    def report(self, agent_id: str, request_id: str, report: str) -> str:
        """Seal an agent's word."""
        return self._keyring.sign_report(self._job_id, agent_id, request_id, report) if self._keyring else ""

    def swept(self, who: str, unproved_count: int, unproved: str) -> str:
        """Seal the word that RQ was swept."""
        return self._keyring.sign_swept(self._job_id, who, unproved_count, unproved) if self._keyring else ""

    def learn(self, now_us: bytes) -> None:
        """Take in what time it is."""
        if self._keyring:
            self._keyring.clock.learn(int(now_us))

    def read(self, fields: Any) -> tuple[ShutdownRequest | None, Refusal | None]:
        """Read the request in an answer, or why it is not to be obeyed. Raises MessageError without a keyring."""
        *asked, declared = fields
        self.learn(asked[-1])
        if self._keyring and declared != self._declared.encode():
            with suppress(ValueError, UsageError):
                Plan.from_list(json.loads(declared or DEFAULT_PLAN))
                self._declared = declared.decode() or DEFAULT_PLAN
        return believed(self._keyring, self._job_id, asked)
