"""How a client behaves: where it asks, how long it tries, what it keeps."""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypedDict, Unpack
from urllib.parse import urlsplit

from mcp_mesh_client.errors import InvalidData

DEFAULT_URL = "http://localhost:8000"
URL_ENV = "MCP_MESH_REGISTRY_URL"
TOKEN_ENV = "MCP_MESH_REGISTRY_TOKEN"  # noqa: S105 - the name of a variable
LONGEST_BACKOFF = 300.0

SECURITY_CONTEXTS: Mapping[str, Collection[str]] = MappingProxyType(
    {"standard": (), "high_security": ("audit", "authentication", "authorization")}
)


class Options(TypedDict, total=False):
    """What may be said of a client besides where the registry is. Durations are seconds.

    `timeout`: how long one call may take in all, its repetitions included. `try_timeout`: how long one replica may be
    silent before another is asked. `tries`: how often all replicas are asked before a call gives up.

    `cache_ttl`: how long a list is given out again without asking; 0 asks each time, and is told in a few bytes when
    nothing has changed. `cache_size`: how many answers are kept. `offline_ttl`: how old a kept answer may be that is
    given out while no replica answers; 0 for none.

    `silence`: how long a watch may be without any byte; the registry sends one each 15 s. `longest_backoff`: the bound
    of the pauses between tries. `security_contexts`: what each requires, where the registry was told other ones.
    """

    timeout: float
    try_timeout: float
    tries: int
    cache_ttl: float
    cache_size: int
    offline_ttl: float
    silence: float
    longest_backoff: float
    security_contexts: Mapping[str, Collection[str]]


@dataclass(frozen=True, slots=True)
class Conduct:
    """How a client behaves, checked; see Options."""

    urls: tuple[str, ...]
    token: str | None = field(default=None, repr=False)
    timeout: float = 10.0
    try_timeout: float = 4.0
    tries: int = 3
    cache_ttl: float = 0.0
    cache_size: int = 256
    offline_ttl: float = 300.0
    silence: float = 35.0
    longest_backoff: float = LONGEST_BACKOFF
    security_contexts: Mapping[str, Collection[str]] = field(default_factory=lambda: SECURITY_CONTEXTS)

    def __post_init__(self) -> None:
        for name in ("timeout", "try_timeout", "silence", "longest_backoff"):
            _check(name, getattr(self, name), above=0)
        for name in ("cache_ttl", "cache_size", "offline_ttl"):
            _check(name, getattr(self, name), least=0)
        _check("tries", self.tries, least=1)
        if self.longest_backoff > LONGEST_BACKOFF:
            raise InvalidData("longest_backoff", f"longest_backoff: at most {LONGEST_BACKOFF:g} s")


def conduct(url: str | Sequence[str] | None, token: str | None, **options: Unpack[Options]) -> Conduct:
    """Return how a client is to behave; url and token come from the environment where they are not given.

    Raises InvalidData naming what is wrong.
    """
    if url is None:
        url = os.environ.get(URL_ENV) or DEFAULT_URL
    if token is None:
        token = os.environ.get(TOKEN_ENV) or None
    if token is not None:
        check_token(token)
    return Conduct(read_urls(url), token, **options)


def check_token(token: str, field: str = "token") -> None:
    """Raise InvalidData for what no header can hold."""
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidData(field, f"{field}: expected printable ASCII without blanks")


def read_urls(url: str | Sequence[str], field: str = "url") -> tuple[str, ...]:
    """Read one URL, several joined by commas, or a list of such. Raises InvalidData."""
    given = [url] if isinstance(url, str) else list(url)
    urls = [part.strip() for text in given for part in text.split(",") if part.strip()]
    if not urls:
        raise InvalidData(field, f"{field}: expected one or more URLs, such as {DEFAULT_URL}")
    return tuple(dict.fromkeys(_read_url(text, field) for text in urls))


def _read_url(text: str, field: str) -> str:
    expected = f"{field}: expected http or https, a host and perhaps a port, such as {DEFAULT_URL}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidData(field, f"{expected}; {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InvalidData(field, f"{expected}; not {text[:200]!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidData(field, f"{expected}, and nothing else; a token goes into `token`")
    return text.rstrip("/")


def _check(name: str, value: object, *, above: float = -math.inf, least: float = -math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidData(name, f"{name}: expected a number, not {value!r}")
    if value <= above or value < least:
        raise InvalidData(name, f"{name}: expected {'above' if above == 0 else 'at least'} {max(above, least):g}")
