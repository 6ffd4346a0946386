"""Certificates of a private authority, made by openssl for one test."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Authority:
    """A private authority, and what it signed for 127.0.0.1."""

    folder: Path

    @property
    def ca(self) -> str:
        """The certificate that clients are to trust."""
        return str(self.folder / "ca.pem")

    def words(self, name: str = "server") -> dict[str, str]:
        """Give what a server's configuration says of TLS; it asks its clients for no certificate."""
        return {
            "tls-port": "yes",
            "tls-ca-cert-file": self.ca,
            "tls-cert-file": str(self.folder / f"{name}.pem"),
            "tls-key-file": str(self.folder / f"{name}.key"),
            "tls-auth-clients": "no",
            "tls-replication": "yes",
        }

    def sign(self, name: str, host: str) -> None:
        """Make a key and a certificate for a host or an address."""
        kind = "IP" if host[0].isdigit() else "DNS"
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={kind}:{host}\n")
        request = (
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-subj",
            f"/CN={name}",
            "-out",
            f"{name}.csr",
        )
        openssl(self.folder, "req", *request)
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        openssl(
            self.folder,
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            *signer,
            "-extfile",
            extensions.name,
            "-out",
            f"{name}.pem",
        )


def authority(folder: Path) -> Authority:
    """Make one."""
    folder.mkdir()
    names = ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=a private authority")
    openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names)
    made = Authority(folder)
    made.sign("server", "127.0.0.1")
    made.sign("other", "elsewhere.example")
    return made


def openssl(folder: Path, *words: str) -> None:
    """Run it."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not on PATH: apt-get install openssl")
    done = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
