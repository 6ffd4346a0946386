"""compose/PLATFORMS.md: each example in it is taken at its word, as far as this machine can."""

from __future__ import annotations

import configparser
import http.server
import json
import re
import shlex
import shutil
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from coord.cli.worker import MARGIN_S, command
from tests.harness import COORD, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Lab
    from workers.rq_order import RQOrder

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "compose/PLATFORMS.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE = re.compile(r'(?:terminationGracePeriodSeconds|"stopTimeout"|TimeoutStopSec|stop_grace_period)[:=] ?(\d+)')
SHELL = re.compile(r"coord worker ([a-z].*)")
LIST = re.compile(r'"?(?:args|command)"?: (\["worker".*?\])')


@dataclass(frozen=True)
class Example:
    """One fenced block. `commands`: what `coord worker` is told in it; `patience_s`: when its platform kills."""

    kind: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """Find them, however the platform writes commands."""
        found = [shlex.split(line) for line in SHELL.findall(self.text)]
        return found + [json.loads(line)[1:] for line in LIST.findall(self.text)]

    @property
    def patience_s(self) -> float | None:
        """Give it, where the example says it."""
        found = PATIENCE.search(self.text)
        return float(found[1]) if found else None


EXAMPLES = [Example(*found) for found in FENCE.findall(PAGE.read_text())]
REFUSED = [each for each in EXAMPLES if each.kind == "console"]
OTHERS = [each for each in EXAMPLES if each.kind != "console"]
TOLD = [
    *((each, told) for each in OTHERS for told in each.commands),
    *((Example("", line), shlex.split(line)) for line in SHELL.findall((ROOT / "Procfile").read_text())),
]


@pytest.mark.parametrize(("example", "told"), TOLD, ids=lambda each: " ".join(each) if isinstance(each, list) else "")
def test_what_a_platform_is_told_is_accepted_and_fits(
    monkeypatch: pytest.MonkeyPatch, example: Example, told: list[str]
) -> None:
    """Every `coord worker` is accepted, checks a budget, and is done before the seconds of its own example are over."""
    orders: list[RQOrder] = []
    monkeypatch.setattr("workers.rq_host.run_workers", lambda order, *_: orders.append(order))
    result = CliRunner().invoke(command, told, standalone_mode=False)
    assert result.exception is None, result.output
    (order,) = orders
    plan = order.manner.plan
    takes_s = order.warm_s + plan.kill_max_s + plan.kill_wait_s + MARGIN_S
    assert {"--platform", "--budget"} & set(told)
    if example.patience_s is not None:
        assert takes_s <= float(told[told.index("--budget") + 1].rstrip("s")) <= example.patience_s


def test_every_platform_has_its_example() -> None:
    """The page's examples were found, with the seconds of those that have them; and the Procfile's."""
    assert [example.patience_s for example, _ in TOLD] == [None, 60, 120, 90, None, 60, None]


def test_what_does_not_fit_is_refused_in_these_words(lab: Lab) -> None:
    """The refusal that the page shows is what the command says, and nothing was started."""
    (example,) = REFUSED
    asked, *words = example.text.splitlines()
    ended = lab.call(*shlex.split(asked.removeprefix("$ coord ")))
    assert ended.code == 2
    assert ended.said == [" ".join(words)]


@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.kind == "json"])
def test_json_is_json(example: Example) -> None:
    """What is said to be JSON is."""
    assert json.loads(example.text)


@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.kind == "ini"])
def test_systemd_accepts_the_unit(example: Example, tmp_path: Path) -> None:
    """The unit has the settings that the page explains, and systemd finds nothing wrong with it."""
    unit = configparser.ConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(example.text)
    assert (unit["Service"]["KillMode"], unit["Service"]["Delegate"]) == ("mixed", "yes")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    path = tmp_path / "coord-worker.service"
    path.write_text(example.text.replace("/srv/app/.venv/bin/coord", COORD).replace("User=app", "User=root"))
    verified = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    complaints = [line for line in verified.stderr.splitlines() if path.name in line]
    assert not complaints


@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.kind == "yaml"])
def test_yaml_is_indented_as_yaml(example: Example) -> None:
    """No tabs, two spaces a level, and each line a key, an item or a mapping."""
    for line in example.text.splitlines():
        assert re.fullmatch(r"(  )*(- )?([A-Za-z_]+:( .+)?|\{.+\})", line), line


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl here")
def test_kubernetes_understands_the_deployment() -> None:
    """Kubernetes' own parser finds in the example what the page says of it."""
    (example,) = (each for each in EXAMPLES if "kind: Deployment" in each.text)
    pod = kustomized(example.text)["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == example.patience_s
    assert [container["args"][1:] for container in pod["containers"]] == example.commands


def kustomized(text: str) -> Any:
    """Have kubectl read a resource, which needs no cluster, and give it as it understood it."""
    with scratch("resource.yaml", text) as folder:
        kustomization = {"resources": ["resource.yaml"], "kind": "Kustomization"}
        (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
        read = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True).stdout
        asked = ["kubectl", "patch", "--local", "-f", "-", "-p", "{}", "-o", "json"]
        return json.loads(subprocess.run(asked, input=read, capture_output=True, text=True, check=True).stdout)


@contextmanager
def scratch(name: str, text: str) -> Iterator[Path]:
    """Give a folder with one file."""
    with TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(text)
        yield Path(folder)


@pytest.mark.parametrize("path", sorted(ROOT.glob("compose/*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell(path: Path) -> None:
    """Every script is POSIX shell, and stops at the first thing that goes wrong."""
    subprocess.run(["sh", "-n", path], check=True)
    assert "\nset -eu\n" in path.read_text()


def test_files_that_the_page_names_are_there() -> None:
    """No link of the page leads nowhere."""
    links = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE.read_text())
    assert links
    assert not [link for link in links if not (PAGE.parent / link).exists()]


def test_the_image_has_what_its_commands_need() -> None:
    """Of the pipeline, the image has the ranks and the nightly batch; nothing that it copies is kept from the build."""
    copied = re.findall(r"(compose/pipeline/\S+\.py)", (ROOT / "compose/Dockerfile").read_text())
    assert copied == ["compose/pipeline/rank.py", "compose/pipeline/nightly.py"]
    assert {f"!{path}" for path in copied} <= set((ROOT / ".dockerignore").read_text().splitlines())


# -- spot.sh -----------------------------------------------------------------------------------------------------------


class Metadata(http.server.BaseHTTPRequestHandler):
    """An instance's metadata, as EC2 gives it to who asks with a token. `noticed`: the instance will be taken away."""

    noticed = False
    asked = 0

    def do_PUT(self) -> None:
        """Give a token."""
        self._answer(200, "token-of-today")

    def do_GET(self) -> None:
        """Tell of the notice."""
        Metadata.asked += 1
        known = self.headers["X-aws-ec2-metadata-token"] == "token-of-today"
        if not known or not self.path.endswith("/meta-data/spot/instance-action"):
            self._answer(401, "")
        elif Metadata.noticed:
            self._answer(200, json.dumps({"action": "terminate", "time": "2026-11-22T08:02:00Z"}))
        else:
            self._answer(404, "")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


def test_a_spot_notice_runs_the_command(lab: Lab, tmp_path: Path) -> None:
    """spot.sh waits as long as there is no notice, also while nobody answers, and then becomes the command."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Metadata)
    url = f"http://127.0.0.1:{server.server_port}/latest"
    told = tmp_path / "told"
    watch = lab.start(
        *(str(ROOT / "compose/spot.sh"), "touch", str(told)), program="sh", METADATA=url, LOOK_S="0.05", no_proxy="*"
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        until(lambda: Metadata.asked > 2, "spot.sh to ask")
        assert watch.running
        assert not told.exists()
        Metadata.noticed = True
        assert watch.end().code == 0
        assert told.exists()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_control_a_command_that_does_not_fit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: an example with more seconds than its platform gives fails the check."""
    with pytest.raises(AssertionError):
        test_what_a_platform_is_told_is_accepted_and_fits(
            monkeypatch, Example("", "stop_grace_period: 10s"), ["q", "--warm", "30s", "--budget", "60s"]
        )
