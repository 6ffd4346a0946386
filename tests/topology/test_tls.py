"""TLS with a private authority: to one server, a Sentinel's service, a Cluster; and what is said when it fails."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from coord.errors import UNREACHABLE, USAGE
from tests.cli.words import complaint
from tests.harness import until
from tests.record.servers import free_port
from tests.topology.servers import Park, park, watched
from tests.topology.stops import all_is_told, stop
from tests.topology.tls import Authority, authority

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.topology.conftest import LabAt
    from tests.topology.servers import Node

SECRET = "sesame-17"  # noqa: S105  # of servers that live for one test


@pytest.fixture(scope="module")
def trusted() -> Iterator[Authority]:
    """The authority that signed the servers' certificates."""
    with TemporaryDirectory(prefix="coord-") as folder:
        yield authority(Path(folder) / "trusted")


@pytest.fixture(scope="module")
def stranger() -> Iterator[Authority]:
    """Another one, that signed nothing."""
    with TemporaryDirectory(prefix="coord-") as folder:
        yield authority(Path(folder) / "stranger")


@pytest.fixture(scope="module")
def secured(trusted: Authority) -> Iterator[Node]:
    """A server that speaks TLS only."""
    with TemporaryDirectory(prefix="coord-") as folder, park(Path(folder)) as place:
        yield place.start(trusted.words())


def test_a_private_authority(secured: Node, trusted: Authority, lab_at: LabAt, job: str) -> None:
    """With its certificate named in the URL, agents and callers use the server."""
    with lab_at(f"rediss://{secured.place}/0?ssl_ca_certs={trusted.ca}") as lab:
        all_is_told(stop(lab, job).end())


@pytest.mark.parametrize(
    ("url", "says", "advises"),
    [
        ("rediss://{place}/0", "certificate that nobody here trusts", "ssl_ca_certs"),
        ("rediss://{place}/0?ssl_ca_certs={stranger}", "certificate that nobody here trusts", "ssl_ca_certs"),
        ("rediss+cluster://{place}?ssl_ca_certs={stranger}", "certificate that nobody here trusts", "ssl_ca_certs"),
        (
            "rediss+sentinel://{place}/mine?ssl_ca_certs={stranger}",
            "certificate that nobody here trusts",
            "ssl_ca_certs",
        ),
        ("redis://{place}/0", "not reachable", "with TLS wants rediss://"),
    ],
)
def test_one_clear_line(secured: Node, stranger: Authority, lab_at: LabAt, url: str, says: str, advises: str) -> None:
    """Who does not trust the server, or does not speak TLS, is told so in one line, at once, whatever was called."""
    given = url.format(place=secured.place, stranger=stranger.ca)
    with lab_at("unix:///nowhere") as lab:
        for args in (("status",), ("shutdown", "--job-id", "J"), ("run", "--job-id", "J", "--", "true")):
            line = complaint(lab.call(*args, COORD_REDIS_URL=given), UNREACHABLE)
            assert says in line
            assert advises in line


def test_a_certificate_for_another_name(servers: Park, trusted: Authority, lab_at: LabAt, job: str) -> None:
    """It is refused, unless the URL says that names do not matter."""
    node = servers.start(trusted.words("other"))
    url = f"rediss://{node.place}/0?ssl_ca_certs={trusted.ca}"
    with lab_at("unix:///nowhere") as lab:
        assert "for another name" in complaint(lab.call("jobs", COORD_REDIS_URL=url), UNREACHABLE)
        ended = lab.call("run", "--job-id", job, "--", "true", COORD_REDIS_URL=f"{url}&ssl_check_hostname=false")
    assert ended.code == 0, ended.err


def test_a_server_without_tls(servers: Park, lab_at: LabAt) -> None:
    """Who speaks TLS to one that does not is told so."""
    node = servers.start({})
    with lab_at("unix:///nowhere") as lab:
        assert "without TLS wants redis://" in complaint(
            lab.call("jobs", COORD_REDIS_URL=f"rediss://{node.place}"), UNREACHABLE
        )


def test_a_file_that_is_not_there(lab_at: LabAt) -> None:
    """A certificate that can't be read is said to be so."""
    with lab_at("unix:///nowhere") as lab:
        ended = lab.call("jobs", COORD_REDIS_URL=f"rediss://127.0.0.1:{free_port()}?ssl_ca_certs=/nowhere/ca.pem")
    assert ended.code in {UNREACHABLE, USAGE}
    assert len(ended.err.splitlines()) == 1


def test_sentinels_and_servers_behind_tls(servers: Park, trusted: Authority, lab_at: LabAt, job: str) -> None:
    """`rediss+sentinel` is TLS to both; a failover goes well through it, with a password besides."""
    service = watched(servers, trusted.words(), password=SECRET, parameters=f"?ssl_ca_certs={trusted.ca}")
    with lab_at(service.url) as lab:
        stopping = stop(lab, job)
        key = f"coord:{{{job}}}:job"
        until(lambda: service.replica.ask("HEXISTS", key, "request"), "the replica to have the request")
        service.primary.kill()
        ended = stopping.end()
        all_is_told(ended)
        assert SECRET not in ended.err + ended.out


def test_a_cluster_behind_tls(servers: Park, trusted: Authority, lab_at: LabAt, job: str) -> None:
    """`rediss+cluster` is TLS to every node; here one has all slots."""
    words = {"cluster-enabled": "yes", "tls-cluster": "yes", "cluster-port": str(free_port())}
    node = servers.start({**trusted.words(), **words})
    node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    until(lambda: "ok" in str(node.ask("CLUSTER", "INFO")), "the Cluster to serve its slots")
    with lab_at(f"rediss+cluster://{node.place}?ssl_ca_certs={trusted.ca}") as lab:
        assert until(lambda: lab.call("run", "--job-id", job, "--", "true").code == 0, "the Cluster to serve its slots")
        assert lab.call("shutdown", "--job-id", job).code == 0
