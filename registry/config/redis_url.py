"""Where Redis is, as one URL: a single server, a unix socket, a set of Sentinels, or a cluster."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

Topology = Literal["server", "socket", "sentinel", "cluster"]
HostPort = tuple[str, int]

_SCHEMES: Final[Mapping[str, tuple[Topology, bool]]] = MappingProxyType(
    {
        "redis": ("server", False),
        "rediss": ("server", True),
        "unix": ("socket", False),
        "redis+sentinel": ("sentinel", False),
        "rediss+sentinel": ("sentinel", True),
        "redis+cluster": ("cluster", False),
        "rediss+cluster": ("cluster", True),
    }
)
_DEFAULT_PORT, _DEFAULT_SENTINEL_PORT = 6379, 26379
# The paths each form may have, and what of it names a service and a database.
_PATH_PATTERNS: Final = {
    "server": r"/?(?P<db>[0-9]{0,5})/?",
    "socket": r"/.+",
    "sentinel": r"/(?P<service>[^/]+)(/(?P<db>[0-9]{0,5}))?",
    "cluster": r"/?0?",
}
_EXPECTED_FORMAT: Final = (
    "expected redis://host:6379/0, rediss:// for TLS, unix:///path/to/socket, "
    "redis+sentinel://host:26379,host:26379/service or redis+cluster://host:6379,host:6379; a special character of a "
    "password is percent-encoded (%40 for @)"
)


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A URL, read. `nodes` are the server, the Sentinels or the cluster's seeds; `path` is the socket's.

    `tls_options` are the options that were given, by the names redis-py has for them; None without TLS. `service_name`
    is what the Sentinels call the server, and `sentinel_…` are who we are to them. Printing it shows no password.
    """

    topology: Topology
    nodes: tuple[HostPort, ...] = ()
    path: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls_options: Mapping[str, str | bool] | None = field(default=None, repr=False)
    service_name: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)


def parse_redis_url(text: str) -> RedisUrl:
    """Read a URL. Raises ValueError with what is expected; it never repeats what may be secret."""
    try:
        url = urlsplit(text)
        form, tls = _SCHEMES[url.scheme]
        user, at, hosts = url.netloc.rpartition("@")
        path = re.fullmatch(_PATH_PATTERNS[form], url.path)
        if path is None or url.fragment or not re.fullmatch(r"[a-z][!-~]+", text):
            raise ValueError(_EXPECTED_FORMAT)  # noqa: TRY301 - one message for all that is no such URL
        nodes = () if form == "socket" else _parse_nodes(hosts, form)
    except (KeyError, ValueError) as error:
        raise ValueError(_EXPECTED_FORMAT) from error
    if form == "socket" and hosts:
        raise ValueError(_EXPECTED_FORMAT)
    username, _, password = user.partition(":") if at else ("", "", "")
    options = _parse_options(url, form, tls=tls)
    named = path.groupdict()
    return RedisUrl(
        topology=form,
        nodes=nodes,
        path=unquote(url.path) if form == "socket" else "",
        db=int(named.get("db") or options.pop("db", "0")),
        username=unquote(username) or options.pop("username", None),
        password=unquote(password) or options.pop("password", None),
        service_name=unquote(named.get("service") or ""),
        sentinel_username=options.pop("sentinel_username", None),
        sentinel_password=options.pop("sentinel_password", None),
        tls_options=MappingProxyType({name: _option_value(name, value) for name, value in options.items()})
        if tls
        else None,
    )


def _parse_nodes(hosts: str, topology: Topology) -> tuple[HostPort, ...]:
    several = topology in {"sentinel", "cluster"}
    return tuple(_parse_node(host, topology) for host in (hosts.split(",") if several else [hosts]))


def _parse_node(text: str, topology: Topology) -> HostPort:
    url = urlsplit(f"//{text}")
    port = url.port
    if not url.hostname or port == 0 or "," in text or "@" in text:
        raise ValueError(_EXPECTED_FORMAT)
    return url.hostname, port or (_DEFAULT_SENTINEL_PORT if topology == "sentinel" else _DEFAULT_PORT)


_TRUE_WORDS: Final = ("true", "yes", "1")
_FALSE_WORDS: Final = ("false", "no", "0")
_OPTION_VALIDATORS: Final[Mapping[str, Callable[[str], bool]]] = MappingProxyType(
    {
        "db": lambda value: re.fullmatch(r"[0-9]{1,5}", value) is not None,
        "username": bool,
        "password": bool,
        "ssl_ca_certs": bool,
        "ssl_certfile": bool,
        "ssl_keyfile": bool,
        "ssl_password": bool,
        "ssl_cert_reqs": lambda value: value in {"none", "required"},
        "ssl_check_hostname": lambda value: value.lower() in {*_TRUE_WORDS, *_FALSE_WORDS},
        "sentinel_username": bool,
        "sentinel_password": bool,
    }
)


def _parse_options(url: SplitResult, topology: Topology, *, tls: bool) -> dict[str, str]:
    """Return the query's options. Raises ValueError naming the first that does not fit here."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        fits = name in _OPTION_VALIDATORS and (tls or not name.startswith("ssl_"))
        fits = fits and (topology == "sentinel" or not name.startswith("sentinel_"))
        fits = fits and not (topology == "cluster" and name == "db")
        if not fits or name in found:
            others = (
                "db, username, password, sentinel_username and sentinel_password with Sentinel; with TLS ssl_ca_certs, "
            )
            others += "ssl_certfile, ssl_keyfile, ssl_password, ssl_cert_reqs and ssl_check_hostname"
            raise ValueError(f"its option {name!r} is not known here, or given twice; known are {others}")
        if not _OPTION_VALIDATORS[name](value):
            raise ValueError(f"its option {name!r} has a value that cannot be used")
        found[name] = value
    return found


def _option_value(name: str, value: str) -> str | bool:
    return value.lower() in _TRUE_WORDS if name == "ssl_check_hostname" else value
