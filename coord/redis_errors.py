"""What redis-py raises, as our errors: the one boundary, for the record and for RQ's own keys."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import redis

from coord.errors import CoordError, UnansweredError, UnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMES = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
# What a server says that works but can't be used now, by words in its error; what it says otherwise follows as it is.
_FORBIDS = ("forbids this user a command", "Allow it keys coord:*, rq:*, channel coord:control, scripts")
_SERVER_SAYS = {
    "mismatch, certificate": ("shows a certificate for another name", "Use that name, or ?ssl_check_hostname=false"),
    "doesn't match": ("shows a certificate for another name", "Use that name, or ?ssl_check_hostname=false"),
    "certificate has expired": ("shows a certificate that has expired", "Renew it"),
    "CERTIFICATE_VERIFY_FAILED": ("shows a certificate that nobody here trusts", "Name its CA: ?ssl_ca_certs=FILE"),
    "certificate required": ("wants a certificate of the client", "Name it: ?ssl_certfile=FILE&ssl_keyfile=FILE"),
    "WRONG_VERSION_NUMBER": ("does not speak TLS", "Use redis:// in place of rediss://"),
    "cluster support disabled": ("is no Cluster", "Use redis:// in place of redis+cluster://"),
    "unknown command 'CLUSTER'": ("is no Cluster", "A sentinel's URL is redis+sentinel://HOST:26379/SERVICE/0"),
    "unknown command 'ZREVRANGE'": ("is a sentinel", "Its URL is redis+sentinel://HOST:26379/SERVICE/0"),
    "unknown command 'ZADD'": ("is a sentinel", "Its URL is redis+sentinel://HOST:26379/SERVICE/0"),
    "unknown command 'EVALSHA'": ("has no scripts", "A sentinel's URL is redis+sentinel://HOST:26379/SERVICE/0"),
    "read only replica": ("is a read-only replica", "Give the address of the primary"),
    "MASTER is down": ("is a replica without a primary", "Give the address of the primary"),
    "o permissions to": _FORBIDS,
    "user executing the script can't": _FORBIDS,  # Redis 7.0, of a command in a script
    "Authentication required": ("wants a password", "Put it into COORD_REDIS_URL: redis://:PASSWORD@host:6379/0"),
    "already authenticated": ("wants a password", "Put it into COORD_REDIS_URL: redis://:PASSWORD@host:6379/0"),
    "invalid username-password": ("refused the password", "Correct it in COORD_REDIS_URL"),
    "invalid password": ("refused the password", "Correct it in COORD_REDIS_URL"),
    "without any password configured": ("has no password, but one was given", "Take it out of COORD_REDIS_URL"),
    "loading the dataset": ("is still loading its data", "Try again in a moment"),
    "unable to persist": ("refuses to write, since it can't save", "Look at the disk of the server"),
    "Not enough good replicas": ("refuses to write, since too few replicas follow it", "Look at its replicas"),
    "used memory": ("refuses to write, since its memory is full", "Raise maxmemory or delete something"),
}


def shown(url: str) -> str:
    """Give the URL as it may be shown: without its password, wherever that stands."""
    hidden = re.sub(r"(?i)(password=)[^&#]*", r"\1***", url)
    # up to the last @, since a password whose signs were not quoted is one, too
    return re.sub(r"^([^/]*//[^/?#@:]*):.*@", r"\1:***@", hidden)


@contextmanager
def mapped(url: str) -> Iterator[None]:
    """Turn what redis-py raises into our errors."""
    try:
        yield
    except redis.exceptions.RedisError as error:
        raise _ours(error, url) from error
    except (TimeoutError, OSError) as error:
        raise _not_reachable(url, error) from error
    except (ValueError, TypeError) as error:  # redis-py has no error of its own for a URL that it can't read
        raise UsageError(
            f"{shown(url)!r} is no Redis URL", "Use redis://, rediss://, unix://, redis+sentinel:// or +cluster://"
        ) from error


def _ours(error: redis.exceptions.RedisError, url: str) -> CoordError:
    text = str(error)
    if isinstance(error, redis.exceptions.AskError):  # a MovedError is one, too
        return UnreachableError(f"Redis at {shown(url)} is one node of a Cluster", "Use redis+cluster://HOST:PORT,...")
    if isinstance(error, redis.exceptions.TryAgainError):
        return UnreachableError(f"Redis at {shown(url)} is moving this job to another node", "Try again in a moment")
    for sign, (what, hint) in _SERVER_SAYS.items():
        if sign in text:
            return UnreachableError(f"Redis at {shown(url)} {what}", hint)
    if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError):
        return _not_reachable(url, error)
    if "user_script" in text:
        return CoordError(f"Redis at {shown(url)} failed in a script: {text}", "This is a defect of coord")
    return UnreachableError(f"Redis at {shown(url)} can't be used: {text.rstrip('.')}", "Look at the server's settings")


def _not_reachable(url: str, error: Exception) -> UnansweredError:
    why = str(error) or type(error).__name__
    tls = url.startswith("rediss")
    # a server with TLS hangs up on who speaks none; one without waits for more of what it takes for a command
    other = re.search("imeout" if tls else "reset by peer|closed", why)
    advice = f"; a server {'without' if tls else 'with'} TLS wants redis{'' if tls else 's'}://" if other else ""
    return UnansweredError(
        f"Redis at {shown(url)} is not reachable ({why.rstrip('.')})",
        f"Start it, or correct --redis-url or COORD_REDIS_URL{advice}",
    )
