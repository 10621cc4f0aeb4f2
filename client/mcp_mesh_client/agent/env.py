"""The environment variables that configure the agent; they take precedence over the code."""

import os
import socket
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from mcp_mesh_client.config import TOKEN_ENV, URL_ENV, check_token, parse_urls
from mcp_mesh_client.errors import InvalidData
from mcp_mesh_client.request_validation import check_id

NAME_ENV = "MCP_MESH_AGENT_NAME"
NAMESPACE_ENV = "MCP_MESH_NAMESPACE"
ENDPOINT_ENV = "MCP_MESH_ENDPOINT"
HOST_ENV = "MCP_MESH_HTTP_HOST"
PORT_ENV = "MCP_MESH_HTTP_PORT"
HEALTH_INTERVAL_ENV = "MCP_MESH_HEALTH_INTERVAL"
CALL_TIMEOUT_ENV = "MCP_MESH_CALL_TIMEOUT"
AUTO_RUN_ENV = "MCP_MESH_AUTO_RUN"

_DEFAULT_HEALTH_INTERVAL_S, _DEFAULT_CALL_TIMEOUT_S, _MAX_DURATION_S = 5.0, 30.0, 24 * 3600.0
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_MAX_PORT = 65_535

LOOPBACK_IPV4 = "127.0.0.1"
_LOOPBACK_IPV6 = "::1"
# The addresses on which agents with a public host listen.
_ANY_IPV6, _ANY_IPV4 = "::", "0.0.0.0"  # noqa: S104


@dataclass(frozen=True, slots=True)
class AgentEnvironment:
    """The parsed environment variables of the agent; None for a variable that is not set. Durations are seconds."""

    name: str = "agent"
    registry_url: str | None = None
    namespace: str | None = None
    endpoint: str | None = None
    host: str | None = None
    port: int | None = None
    health_interval: float | None = None
    call_timeout: float = _DEFAULT_CALL_TIMEOUT_S
    auto_run: bool = True

    @property
    def public_host(self) -> str | None:
        """The host in the agent's URL for callers, if an environment variable sets it."""
        return self.host if self.endpoint is None else endpoint_host(self.endpoint)


def read_environment() -> AgentEnvironment:
    """Read the environment variables of the agent. Raises InvalidData that names an invalid variable."""
    host, port, interval = _read_host(), _read_port(), _read_seconds(HEALTH_INTERVAL_ENV)
    auto = os.environ.get(AUTO_RUN_ENV, "true").lower()
    if auto not in _BOOLEANS:
        raise InvalidData(AUTO_RUN_ENV, f"{AUTO_RUN_ENV}: expected true or false, not {auto!r:.100}")
    return AgentEnvironment(
        name=check_id(os.environ.get(NAME_ENV) or "agent", NAME_ENV),
        registry_url=_read_registry_url(),
        namespace=os.environ.get(NAMESPACE_ENV) or None,
        endpoint=_read_endpoint(host, port),
        host=host,
        port=port,
        health_interval=interval,
        call_timeout=_read_seconds(CALL_TIMEOUT_ENV) or _DEFAULT_CALL_TIMEOUT_S,
        auto_run=_BOOLEANS[auto],
    )


def new_agent_id(name: str) -> str:
    """Return a unique agent id: the name and eight hexadecimal digits."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def check_endpoint(endpoint: object, field: str) -> str:
    """Validate the endpoint of an agent and return it. Raises InvalidData if it is not a URL with a host."""
    try:
        parts = urlsplit(endpoint) if isinstance(endpoint, str) else urlsplit("")
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise InvalidData(field, f"{field}: expected http or https and a host, not {endpoint!r:.100}")
    return str(endpoint)


def http_url(host: str, port: int) -> str:
    """Return the http URL of a port on a host name, IPv4 or IPv6 address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def endpoint_host(endpoint: str) -> str | None:
    """Return the host in a URL."""
    return urlsplit(endpoint).hostname


def listening_host(host: str | None) -> str:
    """Return the address to listen on for a public host: a loopback address for itself, otherwise all addresses."""
    if host in (None, "localhost", LOOPBACK_IPV4):
        return LOOPBACK_IPV4
    if host == _LOOPBACK_IPV6:
        return _LOOPBACK_IPV6
    return _ANY_IPV6 if socket.has_dualstack_ipv6() else _ANY_IPV4


def check_duration(seconds: object, field: str = "health_interval") -> float:
    """Validate a duration and return it in seconds. Raises InvalidData unless it is positive and at most a day."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _MAX_DURATION_S:
        raise InvalidData(
            field, f"{field}: expected seconds above 0 and at most {_MAX_DURATION_S:g}, not {seconds!r:.100}"
        )
    return float(seconds)


def heartbeat_interval(declared: float | None, environment: AgentEnvironment) -> float:
    """Return the seconds between two heartbeats."""
    return environment.health_interval or declared or _DEFAULT_HEALTH_INTERVAL_S


def _read_registry_url() -> str | None:
    """Return the URL of the registry; validate the URL and the token, so that errors are reported at the start."""
    if token := os.environ.get(TOKEN_ENV):
        check_token(token, TOKEN_ENV)
    if url := os.environ.get(URL_ENV):
        parse_urls(url, URL_ENV)
    return url or None


def _read_endpoint(host: str | None, port: int | None) -> str | None:
    """Return the agent's URL for callers if the environment sets it: as a URL, or as a host and a port."""
    if given := os.environ.get(ENDPOINT_ENV):
        return check_endpoint(given, ENDPOINT_ENV)
    return None if host is None or port is None else http_url(host, port)


def _read_host() -> str | None:
    """Return the public host of the agent, if the environment sets it."""
    host = os.environ.get(HOST_ENV)
    if not host:
        return None
    check_endpoint(http_url(host, 1), HOST_ENV)
    return host


def _read_port() -> int | None:
    text = os.environ.get(PORT_ENV)
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or not 0 < int(text) <= _MAX_PORT:
        raise InvalidData(PORT_ENV, f"{PORT_ENV}: expected a port from 1 to {_MAX_PORT}, not {text!r:.100}")
    return int(text)


def _read_seconds(name: str) -> float | None:
    text = os.environ.get(name)
    if not text:
        return None
    try:
        return check_duration(float(text), name)
    except InvalidData:
        raise
    except ValueError:
        raise InvalidData(name, f"{name}: expected a number of seconds, not {text!r:.100}") from None
