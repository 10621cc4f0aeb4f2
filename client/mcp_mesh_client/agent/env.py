"""The environment variables that configure the agent, unless the code does."""

import json
import os
import re
import socket
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mcp_mesh_client.agent.registration_values import (
    check_annotations,
    check_labels,
    check_line,
    check_metadata,
    check_namespace,
    check_zone,
)
from mcp_mesh_client.config import TOKEN_ENV, URL_ENV, check_token, parse_urls
from mcp_mesh_client.durations import check_duration
from mcp_mesh_client.errors import InvalidData
from mcp_mesh_client.load import check_load
from mcp_mesh_client.request_validation import check_id

ID_ENV = "MCP_MESH_AGENT_ID"
NAME_ENV = "MCP_MESH_AGENT_NAME"
NAMESPACE_ENV = "MCP_MESH_NAMESPACE"
ENDPOINT_ENV = "MCP_MESH_ENDPOINT"
HOST_ENV = "MCP_MESH_HTTP_HOST"
PORT_ENV = "MCP_MESH_HTTP_PORT"
HEALTH_INTERVAL_ENV = "MCP_MESH_HEALTH_INTERVAL"
LABELS_ENV = "MCP_MESH_LABELS"
ANNOTATIONS_ENV = "MCP_MESH_ANNOTATIONS"
METADATA_ENV = "MCP_MESH_METADATA"
LOAD_ENV = "MCP_MESH_LOAD"
ZONE_ENV = "MCP_MESH_ZONE"
CALL_TIMEOUT_ENV = "MCP_MESH_CALL_TIMEOUT"
AUTO_RUN_ENV = "MCP_MESH_AUTO_RUN"
OVERRIDE_ENV = "MCP_MESH_OVERRIDE"

_DEFAULT_CALL_TIMEOUT_S = 30.0
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_MAX_PORT = 65_535
# Each other character of a name becomes - in an id, which has room for nine more characters.
_NON_ID = re.compile(r"[^A-Za-z0-9._:-]+")
_MAX_NAME_CHARS = 244

LOOPBACK_IPV4 = "127.0.0.1"
_LOOPBACK_IPV6 = "::1"
# The addresses on which agents with a public host listen.
_ANY_IPV6, _ANY_IPV4 = "::", "0.0.0.0"  # noqa: S104


@dataclass(frozen=True, slots=True)
class AgentEnvironment:
    """The parsed environment variables of the agent; None for a variable that is not set. Durations are seconds.

    With `overrides` they take precedence over the code, otherwise the code over them.
    """

    id: str | None = None
    name: str | None = None
    registry_url: str | None = None
    namespace: str | None = None
    endpoint: str | None = None
    host: str | None = None
    port: int | None = None
    health_interval: float | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    metadata: Mapping[str, Any] | None = None
    load: float | None = None
    zone: str | None = None
    call_timeout: float = _DEFAULT_CALL_TIMEOUT_S
    auto_run: bool = True
    overrides: bool = False

    @property
    def public_host(self) -> str | None:
        """The host in the agent's URL for callers, if an environment variable sets it."""
        return self.host if self.endpoint is None else endpoint_host(self.endpoint)

    def choose(self, name: str, declared: Any) -> Any:
        """Return the value of an option: the one that the code declared, or the one of the environment.

        Of mappings, the items of both.
        """
        given = getattr(self, name, None)
        first, second = (given, declared) if self.overrides else (declared, given)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            return {**second, **first}
        return second if first is None else first


def read_environment() -> AgentEnvironment:
    """Read the environment variables of the agent. Raises InvalidData that names an invalid variable."""
    host, port = _read_host(), _read_port()
    agent_id, load = os.environ.get(ID_ENV), _read_number(LOAD_ENV)
    return AgentEnvironment(
        id=check_id(agent_id, ID_ENV) if agent_id else None,
        name=_read_text(NAME_ENV, check_line),
        registry_url=_read_registry_url(),
        namespace=_read_text(NAMESPACE_ENV, check_namespace),
        endpoint=_read_endpoint(host, port),
        host=host,
        port=port,
        health_interval=_read_seconds(HEALTH_INTERVAL_ENV),
        labels=_read_mapping(LABELS_ENV, check_labels),
        annotations=_read_mapping(ANNOTATIONS_ENV, check_annotations),
        metadata=_read_mapping(METADATA_ENV, check_metadata),
        load=load,
        zone=_read_text(ZONE_ENV, check_zone),
        call_timeout=_read_seconds(CALL_TIMEOUT_ENV) or _DEFAULT_CALL_TIMEOUT_S,
        auto_run=_read_boolean(AUTO_RUN_ENV, default=True),
        overrides=_read_boolean(OVERRIDE_ENV, default=False),
    )


def new_agent_id(name: str) -> str:
    """Return a unique agent id: the name and eight hexadecimal digits."""
    return f"{_NON_ID.sub('-', name)[:_MAX_NAME_CHARS]}-{uuid.uuid4().hex[:8]}"


def script_name() -> str:
    """Return the name of the program: that of its file, or of its package for `python -m`."""
    *folders, file = (sys.argv[0] if sys.argv else "").replace(os.sep, "/").split("/")
    name = folders[-1] if file == "__main__.py" and folders else file.removesuffix(".py")
    return "agent" if not name or name.startswith("-") else name


def check_endpoint(endpoint: object, field: str) -> str:
    """Validate the endpoint of an agent and return it. Raises InvalidData if it is not a URL with a host.

    Every caller of the registry can read an endpoint, so a user or a password is an error too; it does not contain
    their text.
    """
    try:
        parts = urlsplit(endpoint) if isinstance(endpoint, str) else urlsplit("")
        host = parts.hostname
    except ValueError:
        host = None
    if isinstance(endpoint, str) and "@" in (parts.netloc if host else endpoint):
        raise InvalidData(field, f"{field}: expected http or https and a host, without user or password")
    if not host or parts.scheme not in ("http", "https"):
        raise InvalidData(field, f"{field}: expected http or https and a host, not {endpoint!r:.100}")
    return str(endpoint)


def mcp_url(endpoint: str) -> str:
    """Return the URL for MCP calls of an endpoint: `/mcp` below it if it has no path."""
    parts = urlsplit(endpoint)
    return parts._replace(path="/mcp").geturl() if parts.path in ("", "/") else endpoint


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
    return check_duration(text, name) if (text := os.environ.get(name)) else None


def _read_number(name: str) -> float | None:
    if not (text := os.environ.get(name)):
        return None
    try:
        number = float(text)
    except ValueError:
        raise InvalidData(name, f"{name}: expected a number, not {text!r:.100}") from None
    check_load(number, name)
    return number


def _read_boolean(name: str, *, default: bool) -> bool:
    text = os.environ.get(name, "").lower()
    if text and text not in _BOOLEANS:
        raise InvalidData(name, f"{name}: expected true or false, not {text!r:.100}")
    return _BOOLEANS.get(text, default)


def _read_text(name: str, check: Callable[[object, str], None]) -> str | None:
    if not (text := os.environ.get(name)):
        return None
    check(text, name)
    return text


def _read_mapping(name: str, check: Callable[[object, str], None]) -> Mapping[str, Any] | None:
    """Read a JSON object, or pairs such as `team=a,tier=gold`."""
    if not (text := os.environ.get(name)):
        return None
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
    else:
        pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
        found = {key.strip(): value.strip() for key, _, value in pairs} if all(each[1] for each in pairs) else None
    if not isinstance(found, dict):
        raise InvalidData(name, f"{name}: expected a JSON object, or pairs such as team=a,tier=gold, not {text!r:.100}")
    check(found, name)
    return found
