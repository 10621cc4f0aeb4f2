"""What the environment says of the agent that this process is; it comes before what the code says."""

import os
import socket
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from mcp_mesh_client.config import TOKEN_ENV, URL_ENV, check_token, read_urls
from mcp_mesh_client.errors import InvalidData
from mcp_mesh_client.validation import check_id

NAME_ENV = "MCP_MESH_AGENT_NAME"
NAMESPACE_ENV = "MCP_MESH_NAMESPACE"
ENDPOINT_ENV = "MCP_MESH_ENDPOINT"
HOST_ENV = "MCP_MESH_HTTP_HOST"
PORT_ENV = "MCP_MESH_HTTP_PORT"
INTERVAL_ENV = "MCP_MESH_HEALTH_INTERVAL"
TIMEOUT_ENV = "MCP_MESH_CALL_TIMEOUT"
AUTO_ENV = "MCP_MESH_AUTO_RUN"

_DEFAULT_INTERVAL, _DEFAULT_TIMEOUT, _LONGEST = 5.0, 30.0, 24 * 3600.0
_WORDS = {"true": True, "1": True, "false": False, "0": False}
_PORTS = 65_535

LOOPBACK = "127.0.0.1"
_LOOPBACK_6 = "::1"
# For who is told to be found from elsewhere.
_EVERYWHERE, _EVERYWHERE_4 = "::", "0.0.0.0"  # noqa: S104


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables, read and checked; None where one is not set. Durations are seconds."""

    name: str = "agent"
    registry_url: str | None = None
    namespace: str | None = None
    endpoint: str | None = None
    host: str | None = None
    port: int | None = None
    health_interval: float | None = None
    call_timeout: float = _DEFAULT_TIMEOUT
    auto_run: bool = True

    @property
    def found_by(self) -> str | None:
        """The host by which others find this process, if that is said."""
        return self.host if self.endpoint is None else host_of(self.endpoint)


def read_environment() -> Environment:
    """Read the variables. Raises InvalidData naming the one that is wrong."""
    host, port, interval = _host(), _port(), _seconds(INTERVAL_ENV)
    auto = os.environ.get(AUTO_ENV, "true").lower()
    if auto not in _WORDS:
        raise InvalidData(AUTO_ENV, f"{AUTO_ENV}: expected true or false, not {auto!r:.100}")
    return Environment(
        name=check_id(os.environ.get(NAME_ENV) or "agent", NAME_ENV),
        registry_url=_registry_url(),
        namespace=os.environ.get(NAMESPACE_ENV) or None,
        endpoint=_endpoint(host, port),
        host=host,
        port=port,
        health_interval=interval,
        call_timeout=_seconds(TIMEOUT_ENV) or _DEFAULT_TIMEOUT,
        auto_run=_WORDS[auto],
    )


def new_agent_id(name: str) -> str:
    """Return an id that no other process has: the name and eight hexadecimal digits."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def check_endpoint(endpoint: object, field: str) -> str:
    """Return where an agent answers. Raises InvalidData for what is no URL of a host."""
    try:
        parts = urlsplit(endpoint) if isinstance(endpoint, str) else urlsplit("")
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise InvalidData(field, f"{field}: expected http or https and a host, not {endpoint!r:.100}")
    return str(endpoint)


def url_of(host: str, port: int) -> str:
    """Return the URL of a host, which may be an address of either kind, and a port."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def host_of(endpoint: str) -> str | None:
    """Return the host of a URL."""
    return urlsplit(endpoint).hostname


def listening_host(host: str | None) -> str:
    """Return where to listen so that this host is reached: on its own loopback, or everywhere for all others."""
    if host in (None, "localhost", LOOPBACK):
        return LOOPBACK
    if host == _LOOPBACK_6:
        return _LOOPBACK_6
    return _EVERYWHERE if socket.has_dualstack_ipv6() else _EVERYWHERE_4


def check_interval(seconds: object, field: str = "health_interval") -> float:
    """Return the seconds between two heartbeats. Raises InvalidData for what is no such number."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _LONGEST:
        raise InvalidData(field, f"{field}: expected seconds above 0 and at most {_LONGEST:g}, not {seconds!r:.100}")
    return float(seconds)


def heartbeat_interval(said: float | None, environment: Environment) -> float:
    """Return the seconds between two heartbeats."""
    return environment.health_interval or said or _DEFAULT_INTERVAL


def _registry_url() -> str | None:
    """Return where the registry is. The token is the client's to read, but here it is looked at before all runs."""
    if token := os.environ.get(TOKEN_ENV):
        check_token(token, TOKEN_ENV)
    if url := os.environ.get(URL_ENV):
        read_urls(url, URL_ENV)
    return url or None


def _endpoint(host: str | None, port: int | None) -> str | None:
    """Return where others find this process, if all of that is said: as a URL, or as a host and a port."""
    if given := os.environ.get(ENDPOINT_ENV):
        return check_endpoint(given, ENDPOINT_ENV)
    return None if host is None or port is None else url_of(host, port)


def _host() -> str | None:
    """Return by which host others find this process; the port may be one that it has yet to get."""
    host = os.environ.get(HOST_ENV)
    if not host:
        return None
    check_endpoint(url_of(host, 1), HOST_ENV)
    return host


def _port() -> int | None:
    text = os.environ.get(PORT_ENV)
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or not 0 < int(text) <= _PORTS:
        raise InvalidData(PORT_ENV, f"{PORT_ENV}: expected a port from 1 to {_PORTS}, not {text!r:.100}")
    return int(text)


def _seconds(name: str) -> float | None:
    text = os.environ.get(name)
    if not text:
        return None
    try:
        return check_interval(float(text), name)
    except InvalidData:
        raise
    except ValueError:
        raise InvalidData(name, f"{name}: expected a number of seconds, not {text!r:.100}") from None
