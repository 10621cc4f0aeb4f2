"""The configuration of a client: its URLs, token and options, validated."""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypedDict, Unpack
from urllib.parse import urlsplit

from mcp_mesh_client.durations import to_seconds
from mcp_mesh_client.errors import InvalidData

DEFAULT_URL = "http://localhost:8000"
URL_ENV = "MCP_MESH_REGISTRY_URL"
TOKEN_ENV = "MCP_MESH_REGISTRY_TOKEN"  # noqa: S105 - the name of a variable
MAX_BACKOFF_S = 300.0

DEFAULT_SECURITY_CONTEXTS: Mapping[str, Collection[str]] = MappingProxyType(
    {"standard": (), "high_security": ("audit", "authentication", "authorization")}
)


_DURATION_OPTIONS = frozenset(
    {"timeout", "attempt_timeout", "cache_ttl", "offline_ttl", "watch_idle_timeout", "max_backoff"}
)


class ClientOptions(TypedDict, total=False):
    """The options of a client. Durations are seconds, or texts with a unit such as `500ms`.

    `timeout`: limit of one call, including retries. `attempt_timeout`: time without a byte after which the next replica
    is tried. `max_rounds`: how often all replicas are tried before a call fails.

    `cache_ttl`: how long a cached list is returned without a request; with 0 every read sends a request, and an
    unchanged list costs a 304. `cache_size`: number of cached responses. `offline_ttl`: maximum age of a cached
    response that is returned while no replica responds; 0 disables it.

    `watch_idle_timeout`: how long a watch may receive no byte; the registry sends one every 15 s. `max_backoff`: limit
    of the pauses between rounds. `security_contexts`: the capabilities that each context requires, if the registry is
    configured with other contexts than the default ones. `raise_on_error`: if the registry rejects a call, raise
    RequestRejected instead of returning the error response.
    """

    timeout: float | str
    attempt_timeout: float | str
    max_rounds: int
    cache_ttl: float | str
    cache_size: int
    offline_ttl: float | str
    watch_idle_timeout: float | str
    max_backoff: float | str
    security_contexts: Mapping[str, Collection[str]]
    raise_on_error: bool


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The validated configuration of a client; see ClientOptions."""

    urls: tuple[str, ...]
    token: str | None = field(default=None, repr=False)
    timeout: float = 10.0
    attempt_timeout: float = 4.0
    max_rounds: int = 3
    cache_ttl: float = 0.0
    cache_size: int = 256
    offline_ttl: float = 300.0
    watch_idle_timeout: float = 35.0
    max_backoff: float = MAX_BACKOFF_S
    security_contexts: Mapping[str, Collection[str]] = field(default_factory=lambda: DEFAULT_SECURITY_CONTEXTS)
    raise_on_error: bool = False

    def __post_init__(self) -> None:
        for name in ("timeout", "attempt_timeout", "watch_idle_timeout", "max_backoff"):
            _check_number(name, getattr(self, name), greater_than=0)
        for name in ("cache_ttl", "cache_size", "offline_ttl"):
            _check_number(name, getattr(self, name), at_least=0)
        _check_number("max_rounds", self.max_rounds, at_least=1)
        if self.max_backoff > MAX_BACKOFF_S:
            raise InvalidData("max_backoff", f"max_backoff: at most {MAX_BACKOFF_S:g} s")


def load_config(url: str | Sequence[str] | None, token: str | None, **options: Unpack[ClientOptions]) -> ClientConfig:
    """Return the validated configuration; `url` and `token` default to environment variables.

    Raises InvalidData with the invalid field.
    """
    if url is None:
        url = os.environ.get(URL_ENV) or DEFAULT_URL
    if token is None:
        token = os.environ.get(TOKEN_ENV) or None
    if token is not None:
        check_token(token)
    values: dict[str, Any] = dict(options)
    for name in _DURATION_OPTIONS & values.keys():
        values[name] = to_seconds(values[name], name)
    return ClientConfig(parse_urls(url), token, **values)


def check_token(token: str, field: str = "token") -> None:
    """Raise InvalidData for a token that cannot be the value of an HTTP header."""
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidData(field, f"{field}: expected printable ASCII without spaces")


def parse_urls(url: str | Sequence[str], field: str = "url") -> tuple[str, ...]:
    """Parse one URL, several URLs separated by commas, or a list of URLs. Raises InvalidData."""
    given = [url] if isinstance(url, str) else list(url)
    urls = [part.strip() for text in given for part in text.split(",") if part.strip()]
    if not urls:
        raise InvalidData(field, f"{field}: expected one or more URLs, such as {DEFAULT_URL}")
    return tuple(dict.fromkeys(_parse_url(text, field) for text in urls))


def _parse_url(text: str, field: str) -> str:
    expected = f"{field}: expected http or https, a host and perhaps a port, such as {DEFAULT_URL}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidData(field, f"{expected}; {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InvalidData(field, f"{expected}; not {text[:200]!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidData(field, f"{expected}, without credentials, query or fragment; pass a token as `token`")
    return text.rstrip("/")


def _check_number(name: str, value: object, *, greater_than: float = -math.inf, at_least: float = -math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidData(name, f"{name}: expected a number, not {value!r}")
    if value <= greater_than or value < at_least:
        raise InvalidData(
            name, f"{name}: expected {'above' if greater_than == 0 else 'at least'} {max(greater_than, at_least):g}"
        )
