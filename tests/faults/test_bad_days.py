"""The server is there, and refuses: agents live on, commands say why in one line, and nothing is half done.

Once it works again, everything is obeyed and told that waited for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from coord.errors import UNREACHABLE
from coord.record import BEAT_S
from tests.faults.days import on_days
from tests.faults.stage import told
from tests.harness import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.days import Day
    from tests.faults.stage import Stage
    from tests.harness import Ended

STOPPED = 143


def refused(ended: Ended, day: Day) -> None:
    """One line that says why and what to do, and the exit code for it."""
    assert ended.code == UNREACHABLE, ended.err
    (line,) = ended.said
    assert day.says in line
    assert "defect" not in line
    assert ". " in line, "it says what to do"


@on_days()
def test_a_request_on_a_bad_day_is_refused_whole(stage: Stage, day: Day, tmp_path: Path) -> None:
    """Whoever asks for a stop or a start is told 4 and why; nothing of it was done; agents wait, and obey the next."""
    rank = stage.begin("a")
    with day.lasts(stage.outage):
        mark = tmp_path / "started"
        calls = [
            stage.follow(),
            stage.lab.start("run", "--job-id", stage.job, "--", "touch", str(mark)),
            stage.lab.start("status", "--job-id", stage.job, "--json"),
        ]
        asked, started, read = [told(call) for call in calls]
        refused(asked, day)
        refused(started, day)
        assert not mark.exists()
        if day.reads:
            assert (read.code, read.json["state"], read.json["request"]) == (0, "running", None)
        else:
            refused(read, day)
        time.sleep(BEAT_S)  # a heartbeat fails
        assert rank.run.running
    document = until(lambda: stage.lab.status(stage.job), "the record")
    assert (document["state"], document["request"], document["verdict"]) == ("running", None, None)
    assert [agent["host"] for agent in document["agents"]] == ["a"]
    assert rank.asked_s is None
    ended = stage.shutdown()
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    assert rank.end().code == STOPPED
