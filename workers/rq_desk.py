"""The worker's end of its link to the agent: what was asked of us, and what we tell.

A thread listens, since the main thread waits for Redis now and then: a stop is noted, and a drain obeyed, at any time.
When the worker is to leave and its main thread does not get away from Redis within `PATIENCE_S`, while nothing is
executed, the thread ends the process: what it held is in its hands (`rq_hands`), and the agent sees to them.

The messages are in `rq_host`; one JSON object per message, over a SOCK_SEQPACKET pair.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

    from workers.rq_hands import WakeUp

MESSAGE_MAX_BYTES = 32768
PATIENCE_S = 1.0
OVERDUE_S = 1.0  # how long after the end of the whole plan nobody waits for the agent any more
ENOUGH = 4  # times that half of what is too long is cut off


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to become of an execution, and what RQ's Result says of it; `until_s`: when the whole plan ends."""

    outcome: str
    words: str
    until_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent said to a question."""

    word: str
    words: str


class Desk:
    """Owns the link. Messages come from any thread; what is asked of the worker is read by its main thread."""

    def __init__(self, link: socket.socket, wake_up: WakeUp) -> None:
        self.lost = False
        self.draining = False
        self.why: str | None = None  # the worker leaves for, when it is not for the drain
        self.intent: Intent | None = None
        self.settled = False
        self._link = link
        self._wake_up = wake_up
        self._execution: str | None = None
        self._answers: dict[int, Answer] = {}
        self._tickets = itertools.count(1)
        self._state = threading.Lock()
        self._idle_since_s: float | None = time.monotonic()
        self._leave_s: float | None = None
        self._inner = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def receive(self) -> dict[str, Any]:
        """Give the next message; for the first one, before anybody listens. Raises EOFError."""
        data = self._link.recv(MESSAGE_MAX_BYTES)
        if not data:
            raise EOFError("the agent is gone")
        message = json.loads(data)
        assert isinstance(message, dict)
        return message

    def open(self) -> None:
        """Begin to listen; signals stay with the main thread."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        threading.Thread(target=self._listen, name="desk", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def leave(self) -> None:
        """Take nothing more, and be gone soon. Async-signal-safe as far as Python's handlers go: it takes no lock."""
        self.draining = True
        self._leave_s = self._leave_s or time.monotonic()
        self._nudge()
        self._wake_up.ring()

    def tell(self, kind: str, **fields: Any) -> None:
        """Send a message; to an agent that is gone, nothing is said."""
        data = json.dumps({"kind": kind, **fields}).encode()
        for _ in range(ENOUGH):
            if len(data) <= MESSAGE_MAX_BYTES:
                break
            data = json.dumps({"kind": kind, **{name: _half(value) for name, value in fields.items()}}).encode()
            fields = {name: _half(value) for name, value in fields.items()}
        try:
            self._link.send(data)
        except OSError:
            self.lost = True

    def ask(self, **fields: Any) -> int:
        """Ask whether this may be executed; gives the number of the question."""
        ticket = next(self._tickets)
        self.tell("may", ticket=ticket, **fields)
        return ticket

    def answer(self, ticket: int) -> Answer | None:
        """Wait for the answer; None when the agent is gone, or the worker is to leave."""
        while not (self.lost or self.draining) and ticket not in self._answers:
            self._wake_up.wait(None)
        return self._answers.pop(ticket, None) if not (self.lost or self.draining) else None

    def begin(self, execution: str) -> None:
        """From now on something is executed: the process is not ended over our heads."""
        with self._state:
            self._idle_since_s = None
            self._execution = execution
            self.intent, self.settled = None, False

    def finish(self) -> None:
        """Nothing is executed any more, and RQ knows how it ended."""
        with self._state:
            self._idle_since_s = time.monotonic()
            self._execution = None
        if self.draining:
            self._nudge()

    def overdue(self) -> bool:
        """Tell whether the end of the plan by which the execution is stopped is over."""
        return self.intent is not None and time.monotonic() > self.intent.until_s + OVERDUE_S

    def forget(self) -> None:
        """Close this process's copy of the link, in a fork: its end means that the worker ended."""
        self._link.close()
        for end in self._inner:
            os.close(end)

    def _nudge(self) -> None:
        """Have the thread look at the time."""
        with suppress(BlockingIOError):  # full: it is nudged already
            os.write(self._inner[1], b"\0")

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._link.fileno(), select.POLLIN)
        poll.register(self._inner[0], select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(self._wait_ms())}
            if self._inner[0] in ready:
                os.read(self._inner[0], 4096)
            if self._link.fileno() in ready and not self._hear():
                poll.unregister(self._link.fileno())
            self._end_if_stuck()

    def _hear(self) -> bool:
        try:
            self._obey(self.receive())
        except (EOFError, OSError, ValueError, KeyError):  # gone, or not itself any more
            self.lost, self.why = True, self.why or "lost"
            self.leave()
            return False
        self._wake_up.ring()
        return True

    def _obey(self, message: dict[str, Any]) -> None:
        match message["kind"]:
            case "answer":
                self._answers[message["ticket"]] = Answer(message["word"], message.get("words") or "")
            case "stop":
                self._note(message)
            case "settled":
                with self._state:
                    self.settled = self.settled or message["execution"] == self._execution
            case "drain":
                self.leave()

    def _note(self, message: dict[str, Any]) -> None:
        with self._state:
            if message["execution"] == self._execution:
                self.intent = Intent(message["as"], message.get("words") or "", float(message["until_s"]))
        self.tell("noted", execution=message["execution"])

    def _wait_ms(self) -> float | None:
        at_s = self._stuck_at_s()
        return None if at_s is None else max(0.0, at_s - time.monotonic()) * 1000

    def _stuck_at_s(self) -> float | None:
        """Give when the worker should have left; None: it needn't, or is busy."""
        idle_since_s, leave_s = self._idle_since_s, self._leave_s
        return None if idle_since_s is None or leave_s is None else max(idle_since_s, leave_s) + PATIENCE_S

    def _end_if_stuck(self) -> None:
        with self._state:
            at_s = self._stuck_at_s()
            if at_s is not None and time.monotonic() >= at_s:
                self.tell("bye", why=self.why or "drained", clean=False)
                os._exit(0)


def _half(value: Any) -> Any:
    """Cut a text, or a list of texts, to half of its length; keep the rest as it is."""
    if isinstance(value, str) and len(value) > 256:
        return value[: len(value) // 2]
    if isinstance(value, list):
        return [_half(each) for each in value[len(value) // 2 :]]
    return value
