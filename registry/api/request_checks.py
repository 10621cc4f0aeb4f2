"""Rules that apply to every request before it is routed and before its body is read, each with its exemptions.

A browser sends requests that any web page makes to any address it reaches, also to one on the user's own machine. It
describes them with the headers Origin and Sec-Fetch-Site, which no page can change and no program sends. A page whose
name was changed to resolve to this registry (DNS rebinding) is recognized by its name in the Host header.
"""

import ipaddress
import re
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

from starlette.types import Scope

from registry.api.request.body import JSON_BY_DEFAULT_PATHS
from registry.config.settings import Settings
from registry.config.value_types import is_loopback, origin_of
from registry.errors import OriginRefused, UnknownHost, UnsupportedMediaType

VERSION_PREFIX: Final = "/api/v1"
# Path parameters that clients may percent-encode: an id may contain colons and dots, a hash and a target a colon.
_ENCODABLE_PARAMS: Final = frozenset({"agent_id", "hash", "target"})

Headers = Mapping[bytes, bytes]


class Rule(Enum):
    """The rules that a path can be exempt from."""

    HOST = "the name in the Host header is known"
    CONTENT_TYPE = "a POST request with a body has a Content-Type header"


EXEMPT_PATHS: Final[Mapping[Rule, frozenset[str]]] = MappingProxyType(
    {
        # Load balancers and Kubernetes probe under names of their own.
        Rule.HOST: frozenset({"/health", "/ready"}),
        Rule.CONTENT_TYPE: JSON_BY_DEFAULT_PATHS,
    }
)
"""The paths that a rule does not apply to, without the prefix `/api/v1`."""

_ALL_ADDRESSES: Final = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
_HOST_HEADER: Final = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+?)\.?)(?::[0-9]*)?")
_MAX_SHOWN_CHARS: Final = 253
# Accepted Host headers are remembered, with their ports; the clients of a replica use few.
_MAX_REMEMBERED_HOSTS: Final = 256


def route_path(raw_path: bytes) -> str:
    """Return the path by which a request is routed: the path as sent, without /api/v1 and trailing slashes.

    No other spelling of a path is accepted, so that a rule of a load balancer on a path holds for every request.
    """
    path = raw_path.decode("latin-1").rstrip("/")
    if path.startswith(VERSION_PREFIX) and path[len(VERSION_PREFIX) : len(VERSION_PREFIX) + 1] in ("", "/"):
        path = path[len(VERSION_PREFIX) :]
    return path or "/"


def decode_path_param(name: str, value: str) -> str | None:
    """Return a percent-encoded path parameter decoded, up to its first slash; None if it must not be encoded there."""
    segment, slash, rest = value.partition("/")
    if "%" in rest or ("%" in segment and name not in _ENCODABLE_PARAMS):
        return None
    return f"{unquote(segment)}{slash}{rest}"


class RequestChecks:
    """Checks the origin, the host and the content type of a request; with `any_host` every host is known.

    `allows_pages` states whether responses depend on the origin, because pages of other origins may read them.
    """

    def __init__(self, settings: Settings, *, any_host: bool = False) -> None:
        self.allows_pages = bool(settings.origins)
        self._allowed_origins = {origin.encode() for origin in settings.origins}
        self._own_origins = set[bytes]() if settings.public_url is None else {origin_of(settings.public_url).encode()}
        self._on_loopback = is_loopback(settings.host)
        # No other page knows the token, so a request with it passes under any name unless the names are configured.
        self._any_host = any_host or (settings.auth_token is not None and not settings.hostnames)
        self._hosts = _KnownHosts(settings)
        self._accepted_hosts = set[bytes]()

    def check_origin(self, scope: Scope, headers: Headers) -> bytes | None:
        """Check a request with Origin or Sec-Fetch-Site; return its origin if its page may read the response (CORS).

        Returns None for a page of the registry itself. Raises OriginRefused for a page of any other origin.
        """
        origin = headers.get(b"origin")
        if origin is None:
            site = headers.get(b"sec-fetch-site", b"none")
            if site not in (b"same-origin", b"none"):
                raise OriginRefused(
                    f"Another web page sent this request (Sec-Fetch-Site: {_shown(site)}), and pages may not call this "
                    "registry; open its URL directly, or use a program such as curl"
                )
            return None
        if origin in self._allowed_origins:
            return origin
        if origin in self._own_origins or (
            self._on_loopback and origin == b"%s://%s" % (scope["scheme"].encode(), headers.get(b"host", b"").lower())
        ):
            return None
        raise OriginRefused(
            f"Web pages of the origin {_shown(origin)!r} may not call this registry; to allow it, add the origin to "
            "REGISTRY_ORIGINS"
        )

    def check_request(self, scope: Scope, headers: Headers) -> None:
        """Check the host and the content type. Raises UnknownHost or UnsupportedMediaType.

        Under an unknown host, paths that are exempt from the rule show no details: a page may have changed its name.
        """
        host = headers.get(b"host")
        if host is not None and host not in self._accepted_hosts:
            self._check_host(scope, host)
        if (
            b"content-type" not in headers
            and scope["method"] == "POST"
            and (b"transfer-encoding" in headers or headers.get(b"content-length", b"").strip(b"0"))
            and (scope["path"] not in EXEMPT_PATHS[Rule.CONTENT_TYPE] or _from_browser(headers))
        ):
            raise UnsupportedMediaType(
                "The body has no Content-Type; send it as JSON, with the header Content-Type: application/json"
            )

    def _check_host(self, scope: Scope, host: bytes) -> None:
        if not self._any_host and not self._hosts.contain(host):
            if scope["path"] in EXEMPT_PATHS[Rule.HOST]:
                scope["authorized"] = False
                return
            raise UnknownHost(
                f"{_shown(host)!r} is not a known name of this registry; use another name or its address, or add the "
                "name to REGISTRY_HOSTNAMES"
            )
        if len(self._accepted_hosts) < _MAX_REMEMBERED_HOSTS:
            self._accepted_hosts.add(host)


class _KnownHosts:
    """The names and addresses, with any port, under which the registry is called."""

    def __init__(self, settings: Settings) -> None:
        names = {"localhost", settings.host.lower(), *settings.hostnames}
        if settings.public_url is not None:
            names.add(_name_in(origin_of(settings.public_url).partition("//")[2]))
        self._names = {name.strip("[]") for name in names}
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        self._any_address = settings.host in _ALL_ADDRESSES

    def contain(self, host: bytes) -> bool:
        """Return whether the name or the address in a Host header is known."""
        name = _name_in(host.decode("latin-1").lower())
        if name in self._names or name.endswith(self._suffixes):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # DNS rebinding requires a name, so a page cannot be the origin of an address of this machine.
        return address.is_loopback or self._any_address


def _name_in(host: str) -> str:
    """Return the name or address in a Host header in lower case; '' if the header is invalid."""
    match = _HOST_HEADER.fullmatch(host)
    return "" if match is None else match["address"] or match["name"]


def _from_browser(headers: Headers) -> bool:
    return any(name in (b"origin", b"referer") or name.startswith(b"sec-fetch-") for name in headers)


def _shown(value: bytes) -> str:
    return value[:_MAX_SHOWN_CHARS].decode("latin-1")
