"""One process of a crowd: agents, bare subscribers or bare writers, each with connections of its own.

Agents have bare sockets, so that thousands of them leave two processors to the server; what they send and take is the
product's, byte for byte: `Record` makes it, `decode_control` reads it.
Spoken to on stdin and stdout: says `ready`, does its part, and prints what it saw as one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from coord.decode import decode_control
from coord.keys import CONTROL_CHANNEL
from coord.ledger import script_text
from coord.messages import AgentInfo, AgentReport, AgentState, Outcome, ProcessReport
from coord.plan import Plan
from coord.record import BEAT_S, Call, Moment, Record

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWERED = b"*1\r\n$2\r\nok\r\n"
WAIT_S = 120.0
BARE = b"bench:bare"
PIPELINE = 250  # commands


class Agent:
    """One agent of the job as the server sees it: it has two connections, joins, beats, hears, and answers."""

    def __init__(self, path: str, record: Record, number: int) -> None:
        self.heard_s: float | None = None
        self.told_s: float | None = None
        self._record = record
        self._info = AgentInfo(f"h{number}-4240-x{number}", f"h{number}", "rank", 4240, "python train.py")
        self.ear, self.hand = _greeted(path), _greeted(path)
        self._answers = b""
        _ask(self.ear, b"SUBSCRIBE", CONTROL_CHANNEL.encode())
        self.hand.sendall(_packed_call(record.join(self._info, Plan.of())))
        _read(self.hand, b"joined\r\n")
        self.hand.sendall(self._word(AgentState.RUNNING, "agent.running", Outcome.RUNNING))
        _read(self.hand, ANSWERED)
        self._beat = _packed_call(record.beat(self._info.agent_id))

    def beat(self) -> None:
        """Keep the lease."""
        if self.heard_s is None:
            self.hand.sendall(self._beat)

    def listen(self) -> None:
        """Take what is published."""
        message = self.ear.recv(65536)
        if decode_control(message[message.index(b"{") : message.rindex(b"}") + 1]).job_id == self._record.job_id:
            self._answer()

    def take(self) -> None:
        """Take answers: to a beat, which may tell of the request, or to the last word."""
        self._answers = (self._answers + self.hand.recv(65536))[-4096:]
        if self.heard_s and self._answers.endswith(ANSWERED):
            self.told_s = time.monotonic()
        elif b"exists" in self._answers:
            self._answer()

    def _answer(self) -> None:
        if self.heard_s is None:
            self.heard_s = time.monotonic()
            self.hand.sendall(self._word(AgentState.STOPPED, "agent.stopped", Outcome.TERMINATED, 0.001))

    def _word(self, state: AgentState, kind: str, outcome: Outcome, age_s: float | None = None) -> bytes:
        process = ProcessReport(4242, "rank", "python train.py --rank 3", outcome, None, "SIGTERM" if age_s else None)
        report = AgentReport(state, "subreaper" if age_s else None, (process,))
        moments = (Moment(kind, 0.0, {outcome: 1}),)
        return _packed_call(
            self._record.report(self._info, report, kind, moments=moments, signal_age_s=age_s, gone_age_s=age_s)
        )


def agents(path: str, job_id: str, first: int, count: int) -> dict[str, Any]:
    """Be agents until all have answered; gives when each heard, and when its report was in, by CLOCK_MONOTONIC."""
    record = Record(job_id, 3600)
    poll = select.epoll()
    crowd: list[Agent] = []
    does: dict[int, Callable[[], None]] = {}
    beats: list[tuple[float, int]] = []
    for number in range(first, first + count):
        agent = Agent(path, record, number)
        for connection, do in ((agent.ear, agent.listen), (agent.hand, agent.take)):
            poll.register(connection, select.EPOLLIN)
            does[connection.fileno()] = do
        heapq.heappush(beats, (time.monotonic() + BEAT_S, len(crowd)))
        crowd.append(agent)
        _beat_due(crowd, beats)
    say("ready")
    while crowd[0].told_s is None or any(agent.told_s is None for agent in crowd):
        _beat_due(crowd, beats)
        for number, _ in poll.poll(max(0.0, beats[0][0] - time.monotonic())):
            does[number]()
    return {"heard": [agent.heard_s for agent in crowd], "told": [agent.told_s for agent in crowd]}


def _beat_due(crowd: list[Agent], beats: list[tuple[float, int]]) -> None:
    """Have those beat whose time has come."""
    while beats[0][0] <= time.monotonic():
        due_s, place = beats[0]
        crowd[place].beat()
        heapq.heapreplace(beats, (due_s + BEAT_S, place))


def ears(path: str, count: int) -> dict[str, Any]:
    """Be bare subscribers; gives when each had the whole message."""
    crowd = [_connected(path) for _ in range(count)]
    poll = select.epoll()
    for ear in crowd:
        ear.sendall(b"SUBSCRIBE %s\r\n" % BARE)
        while not ear.recv(4096).endswith(b":1\r\n"):
            pass
        poll.register(ear, select.EPOLLIN)
    by_number = {ear.fileno(): ear for ear in crowd}
    got: dict[int, bytes] = dict.fromkeys(by_number, b"")
    heard: list[float] = []
    say("ready")
    while len(heard) < count:
        for number, _ in poll.poll(WAIT_S):
            got[number] += by_number[number].recv(65536)
            if got[number].endswith(b"\n"):
                heard.append(time.monotonic())
    return {"heard": heard}


def writers(path: str, first: int, count: int, report: bytes, event: bytes) -> dict[str, Any]:
    """Write `count` reports and events on one connection, pipelined; gives when that began and when it had ended."""
    connection = _connected(path)
    say("ready")
    sys.stdin.readline()
    began_s = time.monotonic()
    for start in range(first, first + count, PIPELINE):
        numbers = range(start, min(start + PIPELINE, first + count))
        connection.sendall(
            b"".join(
                _packed(b"HSET", BARE + b":reports", b"%d" % n, report)
                + _packed(b"XADD", BARE + b":events", b"MAXLEN", b"~", b"10000", b"*", b"detail", event)
                for n in numbers
            )
        )
        lines, wanted = b"", 3 * len(numbers)  # a whole number; a length and an id
        while lines.count(b"\r\n") < wanted:
            lines += connection.recv(65536)
    return {"began": began_s, "ended": time.monotonic()}


def say(what: str) -> None:
    """Tell who started us."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def _packed_call(call: Call[Any]) -> bytes:
    words = (*call.keys, *call.args)
    return _packed(b"EVALSHA", SHAS[call.script], b"%d" % len(call.keys), *(str(word).encode() for word in words))


SHAS = {
    name: hashlib.sha1(script_text(name).encode(), usedforsecurity=False).hexdigest().encode()
    for name in ("join", "beat", "report")
}


def _ask(connection: socket.socket, *words: bytes) -> None:
    """Send one command whose answer fits one packet, and take that."""
    connection.sendall(_packed(*words))
    if not connection.recv(65536):
        raise RuntimeError("the server closed the connection")


def _read(connection: socket.socket, word: bytes) -> None:
    """Take an answer that has this word, and fits one packet."""
    answer = b""
    while word not in answer:
        part = connection.recv(65536)
        if not part or (answer + part).startswith(b"-"):
            raise RuntimeError(f"the server answered {answer + part!r}")
        answer += part


def _greeted(path: str) -> socket.socket:
    """Connect, and say what redis-py says."""
    connection = _connected(path)
    _ask(connection, b"HELLO", b"3")
    _ask(connection, b"CLIENT", b"SETNAME", b"coord")
    return connection


def _packed(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)  # before the time limit: with one, it would not wait for the server to accept
    connection.settimeout(WAIT_S)
    return connection


def main() -> None:
    """Be what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("agents", "ears", "writers"))
    parser.add_argument("path")
    parser.add_argument("--job", default="")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--report", default="")
    parser.add_argument("--event", default="")
    given = parser.parse_args()
    match given.part:
        case "agents":
            seen = agents(given.path, given.job, given.first, given.count)
        case "ears":
            seen = ears(given.path, given.count)
        case _:
            seen = writers(given.path, given.first, given.count, given.report.encode(), given.event.encode())
    say(json.dumps(seen))


if __name__ == "__main__":
    main()
