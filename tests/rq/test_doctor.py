"""`coord doctor` says of RQ what would make a stop on it unproved, or impossible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.diagnosis import doctor
from tests.record.servers import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rq.fleet import Fleet


def test_who_works_the_queues(fleet: Fleet) -> None:
    """Hosted workers are well; beside them a plain one is named, until it has gone."""
    fleet.up("coord", "high", n=2)
    fleet.enqueue("tiny", queue="high")
    well = doctor(fleet.lab, given={"RQ_REDIS_URL": fleet.url})["rq"]
    assert (well["status"], well["advice"]) == ("ok", None)
    assert well["found"].startswith("RQ 3.0.")
    assert well["found"].endswith("; 2 workers of agents")
    plain = fleet.up("rq", "high", host="old")
    (name,) = fleet.worker_names("old")
    found = doctor(fleet.lab)["rq"]
    assert (found["status"], name in found["found"], "coord worker" in found["advice"]) == ("warn", True, True)
    plain.stop()
    assert doctor(fleet.lab)["rq"]["status"] == "ok"
    assert fleet.hosts[0].stop() == [0]


def test_rq_is_where_its_url_says(fleet: Fleet) -> None:
    """Nobody there: it can't be told, while the record is well; the record's own Redis is not asked instead."""
    url = f"redis://127.0.0.1:{free_port()}"
    findings = doctor(fleet.lab, given={"RQ_REDIS_URL": url})
    assert (findings["redis"]["status"], findings["rq"]["status"]) == ("ok", "unknown")
    assert url in findings["rq"]["found"]


def test_an_rq_that_is_not_known_fails(fleet: Fleet, tmp_path: Path) -> None:
    """What `coord worker` would refuse to start with."""
    (tmp_path / "sitecustomize.py").write_text(
        "import rq.worker.worker_classes as classes\nclasses.Worker.monitor_work_horse = lambda self, job: None\n"
    )
    found = doctor(fleet.lab, given={"PYTHONPATH": str(tmp_path)})["rq"]
    assert (found["status"], "Worker.monitor_work_horse" in found["found"]) == ("fail", True)
