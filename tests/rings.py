"""Secrets for tests, and keyrings of them."""

from __future__ import annotations

from coord.redis_clock import RedisClock
from coord.seal import Keyring

OURS, NEXT, OTHERS = "our own secret, 27 bytes long", "the next one, 26 bytes long", "somebody else's, 27 bytes.."


def ring(*secrets: str, ahead_s: float = 0.0) -> Keyring:
    """Give a keyring; `ahead_s`: of a host whose clock is so far ahead, until it hears Redis' time."""
    clock = RedisClock()
    wall = clock._wall
    clock._wall = lambda: wall() + ahead_s
    return Keyring([secret.encode() for secret in secrets or (OURS,)], clock)
