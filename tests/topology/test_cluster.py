"""A record in a Cluster: its slot moves to another node, or its primary dies, in the middle of a shutdown."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from coord import routes
from coord.coordinator import new_request
from coord.errors import UnreachableError
from coord.ledger import Ledger
from coord.messages import Cause
from coord.record import Record
from tests.harness import until
from tests.record.servers import REDIS
from tests.topology.servers import VALKEY, cluster
from tests.topology.stops import all_is_told, begin, stop

if TYPE_CHECKING:
    from coord.record import Answer, Call
    from tests.topology.conftest import LabAt
    from tests.topology.servers import Cluster, Node, Park

MOVING_S = 1.0


class Move:
    """Moves a job's slot to another primary, step by step, as redis-cli --cluster reshard does."""

    def __init__(self, six: Cluster, job: str) -> None:
        self.six = six
        self.slot = six.slot(job)
        self.source = six.owner(job)
        self.target = next(
            node for node in six.nodes[:3] if node is not self.source and node.ask("ROLE")[0] == "master"
        )
        self.source_id, self.target_id = six.node_id(self.source), six.node_id(self.target)

    def begin(self) -> None:
        """From now on, what is not at the source may be at the target."""
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source_id)
        self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target_id)

    def keys(self, most: int = 1000) -> int:
        """Move keys; gives how many."""
        keys = self.source.ask("CLUSTER", "GETKEYSINSLOT", self.slot, most)
        if keys:
            self.source.ask("MIGRATE", "127.0.0.1", self.target.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def end(self) -> None:
        """The slot is the target's."""
        for node in (self.target, self.source, *self.six.nodes):
            if node.ask("ROLE")[0] == "master":
                node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self.target_id)


def requested(ledger: Ledger, job: str) -> Call[Answer]:
    """Have a request in the record; gives the call that made it."""
    wish = new_request(job, Cause.OPERATOR, "test", "")
    call = Record(job).request(wish, None, fence_unknown=True)
    ledger.run(call)
    return call


def test_agents_and_callers_across_it(six: Cluster, lab_at: LabAt, job: str) -> None:
    """Agents and callers at any node are of one record, and hear each other through any node."""
    with lab_at(six.url) as lab:
        all_is_told(stop(lab, job).end())
        assert [each["job_id"] for each in lab.call("jobs", "--json").json["jobs"]][:1] == [job]


@pytest.mark.parametrize("kind", [REDIS, VALKEY])
def test_a_primary_is_killed_after_the_request(servers: Park, lab_at: LabAt, job: str) -> None:
    """The node that has the job dies: signals go on meanwhile, and the caller is told all by the next primary."""
    six = cluster(servers)
    with lab_at(six.url) as lab:
        stopping = stop(lab, job)
        owner = six.owner(job)
        replicas = [node for node in six.nodes if _follows(node, owner)]
        counting = Ledger(six.url, min_replicas=len(replicas))
        until(lambda: counting.copies(Record(job).snapshot()) == 1, "the replica to have the request")
        counting.close()
        owner.kill()
        all_is_told(stopping.end())
        assert six.owner(job) in replicas


def test_the_jobs_slot_moves_during_the_shutdown(six: Cluster, lab_at: LabAt, job: str) -> None:
    """While its keys are between two nodes, who asks is told to try again, and does; signals do not wait for it."""
    with lab_at(six.url) as lab:
        stopping = stop(lab, job)
        move = Move(six, job)
        move.begin()
        assert move.keys(3) == 3
        time.sleep(MOVING_S)  # what happens meanwhile finds the keys in two places
        assert move.keys()
        time.sleep(MOVING_S)  # and now all at the other node, which is not known to have them
        move.end()
        all_is_told(stopping.end())
    assert six.owner(job) is move.target


def test_a_request_while_the_slot_moves(six: Cluster, lab_at: LabAt, job: str) -> None:
    """Made while the keys are between two nodes, it waits for their arrival, and is obeyed."""
    with lab_at(six.url) as lab:
        runs = begin(lab, job)
        move = Move(six, job)
        move.begin()
        move.keys(1)
        caller = lab.start("shutdown", "--job-id", job, "--json")
        time.sleep(MOVING_S)
        assert caller.running
        move.keys()
        move.end()
        ended = caller.end(60)
        for run in runs:
            run.end(60)
    all_is_told(ended)


def test_scripts_wait_for_the_slot_and_reads_go_after_the_key(six: Cluster, job: str) -> None:
    """Between two nodes a single key is found where it is (ASK); a script that needs all of them waits (TRYAGAIN)."""
    ledger, record = Ledger(six.url), Record(job)
    requested(ledger, job)
    move = Move(six, job)
    move.begin()
    move.keys()
    assert [event.kind for event in ledger.events(record, "0", 0.0)][:1] == ["shutdown.requested"]
    with ThreadPoolExecutor(1) as pool:
        snapshot = pool.submit(ledger.run, record.snapshot())
        time.sleep(MOVING_S)
        assert not snapshot.done()
        move.end()
        assert snapshot.result() is not None
    assert ledger.events(record, "0", 0.0)
    ledger.close()


def test_without_patience_or_redirections_it_fails(six: Cluster, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: who does not wait is told that the job is moving; who goes nowhere else finds nothing."""
    ledger, record = Ledger(six.url), Record(job)
    requested(ledger, job)
    move = Move(six, job)
    move.begin()
    move.keys()
    monkeypatch.setattr(ledger._redis._router, "patience_s", 0.0)  # type: ignore[attr-defined]
    with pytest.raises(UnreachableError, match="moving this job"):
        ledger.run(record.snapshot())
    monkeypatch.setattr(routes, "HOPS_MAX", 0)
    with pytest.raises(UnreachableError, match="one node of a Cluster"):
        ledger.events(record, "0", 0.0)
    monkeypatch.undo()
    move.end()
    assert ledger.run(record.snapshot())
    ledger.close()


def test_replicas_of_the_right_node_are_counted(six: Cluster, job: str) -> None:
    """`--min-replicas` asks the node that has the job, also just after its slot was moved."""
    ledger = Ledger(six.url, min_replicas=1)
    call = requested(ledger, job)
    assert ledger.copies(call) == 1
    move = Move(six, job)
    move.begin()
    move.keys()
    move.end()
    assert until(lambda: ledger.copies(call) == 1, "the target's replica to have it")
    ledger.close()


def test_one_node_by_its_own_address(six: Cluster, lab_at: LabAt, job: str) -> None:
    """Who gives one node's address in place of the Cluster's is told so in one line, if the job is not there."""
    stranger = next(node for node in six.nodes[:3] if node is not six.owner(job))
    with lab_at(f"redis://{stranger.place}/0") as lab:
        ended = lab.call("status", "--job-id", job)
    assert ended.code == 4
    assert "redis+cluster://" in ended.err
    assert len(ended.said) == 1


def _follows(node: Node, owner: Node) -> bool:
    role = node.ask("ROLE")
    return bool(role[0] == "slave" and role[2] == owner.port)
