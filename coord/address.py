"""URLs that name more than one server: `redis+sentinel://h1,h2/SERVICE/DB`, `redis+cluster://h1,h2`. Pure.

Each server of them is spoken to by a URL of its own, with the same credentials and parameters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode

from coord.errors import UsageError

KINDS = {"sentinel": 26379, "cluster": 6379}  # and where they listen when the URL does not say
SEEDS_MAX = 100
QUOTED = "In a password, / ? # @ are %2F %3F %23 %40; use"
FORM = {
    "sentinel": "redis+sentinel://[USER:PASSWORD@]HOST[:26379],HOST/SERVICE/DB",
    "cluster": "redis+cluster://[USER:PASSWORD@]HOST[:6379],HOST",
}


@dataclass(frozen=True, slots=True)
class Topology:
    """What such a URL says. `seeds`: HOST:PORT of the sentinels, or of some nodes; parts stay quoted as they came."""

    kind: str
    tls: bool
    seeds: tuple[str, ...]
    login: str  # USER:PASSWORD, or nothing
    service: str
    db: int
    parameters: tuple[tuple[str, str], ...]

    def server_url(self, place: str) -> str:
        """Give the URL of one server at HOST:PORT, to which keys and channels belong."""
        rest = [(name, value) for name, value in self.parameters if not name.startswith("sentinel_")]
        return self._url(place, self.login, rest)

    def sentinel_url(self, place: str) -> str:
        """Give the URL of a sentinel: with credentials of its own, `sentinel_username` and `sentinel_password`."""
        own = {name: value for name, value in self.parameters if name.startswith("sentinel_")}
        user, password = own.get("sentinel_username", ""), own.get("sentinel_password", "")
        login = f"{quote(user, safe='')}:{quote(password, safe='')}" if user or password else ""
        rest = [(name, value) for name, value in self.parameters if name not in own]
        return self._url(place, login, rest, db=0)

    def _url(self, place: str, login: str, parameters: list[tuple[str, str]], db: int | None = None) -> str:
        scheme = "rediss" if self.tls else "redis"
        query = f"?{urlencode(parameters)}" if parameters else ""
        return f"{scheme}://{f'{login}@' if login else ''}{place}/{self.db if db is None else db}{query}"


def topology(url: str) -> Topology | None:
    """Read a URL; None when it names one server. Raises UsageError that says what is wrong, and shows no password."""
    found = re.match(r"(redis|rediss)\+(\w+)://(?:([^/?#]*)@)?([^/?#@]*)(/[^?#]*)?(?:\?([^#]*))?(?:#.*)?$", url)
    kind = found[2] if found else ""
    if found is None or kind not in KINDS:
        if re.match(r"\w*\+", url):
            raise UsageError(
                "this is no URL of a Sentinel or a Cluster", f"Use {FORM['sentinel']} or {FORM['cluster']}"
            )
        return None
    parameters = tuple(parse_qsl(found[6] or "", keep_blank_values=True))
    parts = [unquote(part) for part in (found[5] or "").split("/") if part]
    service, db = _names(kind, parts, dict(parameters).get("db", ""))
    return Topology(
        kind=kind,
        tls=found[1] == "rediss",
        seeds=_seeds(kind, found[4]),
        login=found[3] or "",
        service=service,
        db=db,
        parameters=tuple((name, value) for name, value in parameters if name != "db"),
    )


def place(host: str, port: int | str) -> str:
    """Give HOST:PORT; an IPv6 address gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _seeds(kind: str, hosts: str) -> tuple[str, ...]:
    found = []
    for number, each in enumerate(hosts.split(","), 1):
        parts = re.fullmatch(r"(\[[0-9a-fA-F:.%]+\]|[^\s:\[\]]+)(?::(\d{1,5}))?", each)
        if parts is None or not 0 < int(parts[2] or 1) < 65536:
            # what stands there is not shown: it may be of a password with an unquoted / or ?
            raise UsageError(f"host {number} of the URL is no HOST or HOST:PORT", f"{QUOTED} {FORM[kind]}")
        found.append(f"{parts[1]}:{parts[2] or KINDS[kind]}")
    if len(found) > SEEDS_MAX:
        raise UsageError(f"the URL names {len(found)} hosts", f"At most {SEEDS_MAX}; a few are enough")
    return tuple(dict.fromkeys(found))


def _names(kind: str, parts: list[str], db: str) -> tuple[str, int]:
    """Give the service and the number of the database."""
    if kind == "sentinel":
        if not parts:
            raise UsageError("the URL does not say which service the sentinels watch", f"Use {FORM[kind]}")
        service, parts = parts[0], parts[1:]
    else:
        service = ""
    number = db or (parts[0] if parts else "0")
    if len(parts) > 1 or not number.isdecimal():
        raise UsageError("the URL does not end in the number of a database", f"{QUOTED} {FORM[kind]}")
    if kind == "cluster" and int(number):
        raise UsageError("a Cluster has no database but 0", f"Use {FORM[kind]}")
    return service, int(number)
