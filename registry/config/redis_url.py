"""The URL of Redis: a single server, a unix socket, a set of Sentinels, or a cluster."""

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
# The URL path of each topology, with its groups for the Sentinel service and the database.
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
    """A parsed Redis URL; its representation shows no password.

    `nodes` are the server, the Sentinels or the cluster's seed nodes; `path` is the path of the socket. `tls_options`
    have the names of redis-py's parameters; None without TLS. `service_name` is the name of the server in Sentinel, and
    `sentinel_…` are the credentials for Sentinel.
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
    """Parse the URL of Redis. Raises ValueError with the expected format; the message repeats no secret."""
    try:
        url = urlsplit(text)
        topology, tls = _SCHEMES[url.scheme]
        user, at, hosts = url.netloc.rpartition("@")
        path = re.fullmatch(_PATH_PATTERNS[topology], url.path)
        if path is None or url.fragment or not re.fullmatch(r"[a-z][!-~]+", text):
            raise ValueError(_EXPECTED_FORMAT)  # noqa: TRY301 - one message for every invalid URL
        nodes = () if topology == "socket" else _parse_nodes(hosts, topology)
    except (KeyError, ValueError) as error:
        raise ValueError(_EXPECTED_FORMAT) from error
    if topology == "socket" and hosts:
        raise ValueError(_EXPECTED_FORMAT)
    username, _, password = user.partition(":") if at else ("", "", "")
    options = _parse_options(url, topology, tls=tls)
    groups = path.groupdict()
    return RedisUrl(
        topology=topology,
        nodes=nodes,
        path=unquote(url.path) if topology == "socket" else "",
        db=int(groups.get("db") or options.pop("db", "0")),
        username=unquote(username) or options.pop("username", None),
        password=unquote(password) or options.pop("password", None),
        service_name=unquote(groups.get("service") or ""),
        sentinel_username=options.pop("sentinel_username", None),
        sentinel_password=options.pop("sentinel_password", None),
        tls_options=MappingProxyType({name: _option_value(name, value) for name, value in options.items()})
        if tls
        else None,
    )


def _parse_nodes(hosts: str, topology: Topology) -> tuple[HostPort, ...]:
    has_many_nodes = topology in {"sentinel", "cluster"}
    return tuple(_parse_node(host, topology) for host in (hosts.split(",") if has_many_nodes else [hosts]))


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
_SUPPORTED_OPTIONS: Final = (
    "db, username, password; with Sentinel also sentinel_username, sentinel_password; with TLS also ssl_ca_certs, "
    "ssl_certfile, ssl_keyfile, ssl_password, ssl_cert_reqs, ssl_check_hostname"
)


def _parse_options(url: SplitResult, topology: Topology, *, tls: bool) -> dict[str, str]:
    """Return the options in the query string of a Redis URL. Raises ValueError with the first invalid option."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        is_supported = name in _OPTION_VALIDATORS and (tls or not name.startswith("ssl_"))
        is_supported = is_supported and (topology == "sentinel" or not name.startswith("sentinel_"))
        is_supported = is_supported and not (topology == "cluster" and name == "db")
        if not is_supported or name in found:
            raise ValueError(f"unknown or repeated option {name!r}; supported: {_SUPPORTED_OPTIONS}")
        if not _OPTION_VALIDATORS[name](value):
            raise ValueError(f"invalid value of option {name!r}")
        found[name] = value
    return found


def _option_value(name: str, value: str) -> str | bool:
    return value.lower() in _TRUE_WORDS if name == "ssl_check_hostname" else value
