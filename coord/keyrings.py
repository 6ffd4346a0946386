"""Where a fleet's secrets come from: a file, or the environment; never an argument, which everybody there can see."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from coord.errors import UsageError
from coord.redis_clock import RedisClock
from coord.seal import SECRET_MIN_BYTES, Keyring

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = "COORD_SECRET_FILE"
SECRET = "COORD_SECRET"  # noqa: S105  # the name of a variable
SECRETS_MAX = 16


def keyring(secret_file: str | None = None) -> Keyring | None:
    """Read the secrets: from this file, else COORD_SECRET_FILE, else COORD_SECRET; None when there is none of them.

    One secret per line, at least 16 bytes each; the first signs, all verify. Raises UsageError.
    """
    if path := secret_file or os.environ.get(FILE):
        return _keyring(_read(Path(path)), str(path))
    if text := os.environ.get(SECRET):
        return _keyring(text, SECRET)
    return None


def without_secret(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of what is not ours: without the secret. A file's path stays: its mode protects it."""
    return {name: value for name, value in environment.items() if name != SECRET}


def with_file(environment: Mapping[str, str], secret_file: str | None) -> dict[str, str]:
    """Give the environment of a helper of ours that is to find the same secrets."""
    return {**environment, **({FILE: secret_file} if secret_file else {})}


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            found = os.fstat(file.fileno())
            if stat.S_IMODE(found.st_mode) & (stat.S_IRWXO | stat.S_IWGRP):
                raise UsageError(f"the secret file {path} is open to others", f"Run chmod 600 {path}")
            return file.read()
    except OSError as error:
        raise UsageError(f"can't read the secret file {path}: {error.strerror}") from error


def _keyring(text: str, where: str) -> Keyring:
    lines = [line.strip() for line in text.split("\n")]
    secrets = [line.encode(errors="surrogateescape") for line in lines if line and not line.startswith("#")]
    if not secrets:
        raise UsageError(f"{where} holds no secret", "One per line; make one with: openssl rand -hex 32")
    if len(secrets) > SECRETS_MAX:
        raise UsageError(f"{where} holds {len(secrets)} secrets", f"At most {SECRETS_MAX}")
    if any(len(secret) < SECRET_MIN_BYTES for secret in secrets):
        raise UsageError(
            f"{where} holds a secret of less than {SECRET_MIN_BYTES} bytes", "Make one with: openssl rand -hex 32"
        )
    return Keyring(secrets, RedisClock())
