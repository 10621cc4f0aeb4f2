"""Where Redis is, as one URL: a single server, a unix socket, a set of Sentinels, or a cluster."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

Form = Literal["server", "socket", "sentinel", "cluster"]
Node = tuple[str, int]

_FORMS: Final[Mapping[str, tuple[Form, bool]]] = MappingProxyType(
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
_PORT, _SENTINEL_PORT = 6379, 26379
# The paths each form may have, and what of it names a service and a database.
_PATHS: Final = {
    "server": r"/?(?P<db>[0-9]{0,5})/?",
    "socket": r"/.+",
    "sentinel": r"/(?P<service>[^/]+)(/(?P<db>[0-9]{0,5}))?",
    "cluster": r"/?0?",
}
_EXPECTED: Final = (
    "expected redis://host:6379/0, rediss:// for TLS, unix:///path/to/socket, "
    "redis+sentinel://host:26379,host:26379/service or redis+cluster://host:6379,host:6379; a special character of a "
    "password is percent-encoded (%40 for @)"
)


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A URL, read. `nodes` are the server, the Sentinels or the cluster's seeds; `path` is the socket's.

    `tls` are the options that were given, by the names redis-py has for them; None without TLS. `service` is what the
    Sentinels call the server, and `sentinel_…` are who we are to them. Printing it shows no password.
    """

    form: Form
    nodes: tuple[Node, ...] = ()
    path: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Mapping[str, str | bool] | None = field(default=None, repr=False)
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)


def parse_redis_url(text: str) -> RedisUrl:
    """Read a URL. Raises ValueError with what is expected; it never repeats what may be secret."""
    try:
        url = urlsplit(text)
        form, tls = _FORMS[url.scheme]
        user, at, hosts = url.netloc.rpartition("@")
        path = re.fullmatch(_PATHS[form], url.path)
        if path is None or url.fragment or not re.fullmatch(r"[a-z][!-~]+", text):
            raise ValueError(_EXPECTED)  # noqa: TRY301 - one message for all that is no such URL
        nodes = () if form == "socket" else _nodes(hosts, form)
    except (KeyError, ValueError) as error:
        raise ValueError(_EXPECTED) from error
    if form == "socket" and hosts:
        raise ValueError(_EXPECTED)
    username, _, password = user.partition(":") if at else ("", "", "")
    options = _options(url, form, tls=tls)
    named = path.groupdict()
    return RedisUrl(
        form=form,
        nodes=nodes,
        path=unquote(url.path) if form == "socket" else "",
        db=int(named.get("db") or options.pop("db", "0")),
        username=unquote(username) or options.pop("username", None),
        password=unquote(password) or options.pop("password", None),
        service=unquote(named.get("service") or ""),
        sentinel_username=options.pop("sentinel_username", None),
        sentinel_password=options.pop("sentinel_password", None),
        tls=MappingProxyType({name: _truth(name, value) for name, value in options.items()}) if tls else None,
    )


def _nodes(hosts: str, form: Form) -> tuple[Node, ...]:
    several = form in {"sentinel", "cluster"}
    return tuple(_node(host, form) for host in (hosts.split(",") if several else [hosts]))


def _node(text: str, form: Form) -> Node:
    url = urlsplit(f"//{text}")
    port = url.port
    if not url.hostname or port == 0 or "," in text or "@" in text:
        raise ValueError(_EXPECTED)
    return url.hostname, port or (_SENTINEL_PORT if form == "sentinel" else _PORT)


_TRUE: Final = ("true", "yes", "1")
_FALSE: Final = ("false", "no", "0")
_KNOWN: Final[Mapping[str, Callable[[str], bool]]] = MappingProxyType(
    {
        "db": lambda value: re.fullmatch(r"[0-9]{1,5}", value) is not None,
        "username": bool,
        "password": bool,
        "ssl_ca_certs": bool,
        "ssl_certfile": bool,
        "ssl_keyfile": bool,
        "ssl_password": bool,
        "ssl_cert_reqs": lambda value: value in {"none", "required"},
        "ssl_check_hostname": lambda value: value.lower() in {*_TRUE, *_FALSE},
        "sentinel_username": bool,
        "sentinel_password": bool,
    }
)


def _options(url: SplitResult, form: Form, *, tls: bool) -> dict[str, str]:
    """Return the query's options. Raises ValueError naming the first that does not fit here."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        fits = name in _KNOWN and (tls or not name.startswith("ssl_"))
        fits = fits and (form == "sentinel" or not name.startswith("sentinel_"))
        fits = fits and not (form == "cluster" and name == "db")
        if not fits or name in found:
            others = (
                "db, username, password, sentinel_username and sentinel_password with Sentinel; with TLS ssl_ca_certs, "
            )
            others += "ssl_certfile, ssl_keyfile, ssl_password, ssl_cert_reqs and ssl_check_hostname"
            raise ValueError(f"its option {name!r} is not known here, or given twice; known are {others}")
        if not _KNOWN[name](value):
            raise ValueError(f"its option {name!r} has a value that cannot be used")
        found[name] = value
    return found


def _truth(name: str, value: str) -> str | bool:
    return value.lower() in _TRUE if name == "ssl_check_hostname" else value
