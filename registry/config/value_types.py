"""Types of settings, and functions that parse, format and mask their values.

A parser takes the text of a setting and returns its value, or raises ValueError with the expected format. The message
never repeats the text, which may be secret.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from registry.config.redis_url import parse_redis_url
from registry.duration import format_duration, parse_duration

ENCRYPTION_KEY_BYTES: Final = 32
_DEFAULT_PORT_SUFFIX: Final[Mapping[str, str]] = MappingProxyType({"http": ":80", "https": ":443"})
# A host name, or an IPv4 address, or an IPv6 address in brackets; and a host name with `*` for its first labels.
_HOST_PATTERN: Final = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]"
_ORIGIN: Final = re.compile(rf"([a-z][a-z0-9+.-]*)://({_HOST_PATTERN})(:[0-9]{{1,5}})?")
_PUBLIC_URL: Final = re.compile(r"(?i)(https?://[^/]*)((?:/[a-z0-9._~-]+)*)/?")
_HOSTNAME: Final = re.compile(rf"(?:\*\.)?(?:{_HOST_PATTERN})")


class Secret:
    """A secret setting: only `reveal()` returns the text; printed, logged or formatted it is `***`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text of the secret."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "***"


class Percent(int):
    """A percentage in whole percent, written `50%`."""

    def __str__(self) -> str:
        return f"{int(self)}%"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Time without a heartbeat until an agent is degraded (`timeout`) and, later, expired (`eviction`)."""

    timeout: timedelta
    eviction: timedelta


def mask_all(_value: str) -> str:
    """Return `***` instead of a secret text."""
    return "***"


def mask_url(url: str) -> str:
    """Return a URL without its password; `***` if the URL is malformed and the password cannot be located."""
    masked = re.sub(r"(?s)^([a-z+]*://)?([^:@/]*:)?.*@", r"\1\2***@", url)
    masked = re.sub(r"(?is)(password=)[^&]*", r"\1***", masked)
    # Sentinel and cluster URLs separate hosts with commas; in others, a comma may be part of a password.
    multi_host = re.fullmatch(r"(?s)(rediss?\+(?:sentinel|cluster)://)([^/?]*)(.*)", masked)
    try:
        for part in [f"{multi_host[1]}{host}" for host in multi_host[2].split(",")] if multi_host else [masked]:
            _ = urlsplit(part).port
    except ValueError:
        return "***"
    return masked


def format_value(value: object) -> str:
    """Return a setting's value as text that can be parsed again; `unset` for None, `***` for a secret."""
    match value:
        case None | bool():
            text = {None: "unset", True: "true", False: "false"}[value]
        case timedelta():
            text = format_duration(value)
        case Thresholds():
            text = f"{format_duration(value.timeout)}/{format_duration(value.eviction)}"
        case tuple():
            text = ",".join(value)
        case frozenset():
            text = "+".join(sorted(value))
        case Mapping():
            text = ",".join(f"{name}={format_value(item)}" if item else name for name, item in value.items())
        case _:
            text = str(value)
    return text


def integer_parser(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from `minimum` to `maximum`, both included."""

    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,12}", text) and minimum <= int(text) <= maximum:
            return int(text)
        raise ValueError(f"expected a whole number from {minimum} to {maximum}")

    return parse


def _choice_parser(values: Mapping[str, object]) -> Callable[[str], Any]:
    """Return a parser that accepts the given words, in any case, and returns the value of each."""

    def parse(text: str) -> object:
        if text.lower() in values:
            return values[text.lower()]
        raise ValueError(f"expected one of {', '.join(values)}")

    return parse


def _pattern_parser(pattern: str, expected: str) -> Callable[[str], str]:
    """Return a parser of texts that match a pattern as a whole; `expected` describes the pattern in error messages."""

    def parse(text: str) -> str:
        if re.fullmatch(pattern, text):
            return text
        raise ValueError(f"expected {expected}")

    return parse


def path_parser(expected: str) -> Callable[[str], Path]:
    """Return a parser of paths; `~` is a home directory, and a relative path starts at the working directory."""

    def parse(text: str) -> Path:
        try:
            return Path(text).expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"expected {expected}; its home directory does not exist") from error

    return parse


def parse_duration_or_zero(text: str) -> timedelta:
    """Parse a duration, which may be `0` or `0s`."""
    try:
        return timedelta(0) if text.strip() in ("0", "0s") else parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}; or 0 for none") from error


parse_port: Final = integer_parser(0, 65535)
parse_log_level: Final = _choice_parser(
    {word: word for word in ("debug", "info", "warning", "error")} | {"warn": "warning"}
)
parse_log_format: Final = _choice_parser({word: word for word in ("auto", "json", "pretty")})
parse_boolean: Final = _choice_parser(
    dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
)
parse_mesh_name: Final = _pattern_parser(
    r"[A-Za-z0-9._-]{1,64}", "1 to 64 letters, digits, dots, underscores or hyphens"
)
parse_instance_id: Final = _pattern_parser(r"[!-~]{1,253}", "1 to 253 printable ASCII characters without blanks")


def parse_host(text: str) -> str:
    """Parse an address to listen on: an IP address without brackets, or a host name."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        # A text without a letter is a mistyped IP address.
        if re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9._-]+", text):
            return text
    raise ValueError("expected an IP address or a host name, such as 127.0.0.1, :: or localhost")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def client_key(address: str) -> str:
    """Return what identifies a client by its address: an IPv4 address, or the /64 network of an IPv6 address.

    A machine may choose any address of its IPv6 network. Other texts, such as that of a unix socket, are unchanged.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))


def parse_networks(text: str) -> tuple[str, ...]:
    """Parse networks in CIDR notation, joined by commas; an address without a prefix is a network of one address."""
    try:
        return tuple(str(ipaddress.ip_network(part.strip())) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError("expected networks joined by commas, such as 10.0.0.0/8,fd00:1::/32") from None


def parse_hostnames(text: str) -> tuple[str, ...]:
    """Parse host names joined by commas, in lower case; `*.suffix` stands for all names that end in `.suffix`."""
    names = _split_list(text)
    if all(_HOSTNAME.fullmatch(name) for name in names):
        return names
    raise ValueError("expected host names without ports joined by commas, such as registry.example,*.mesh.svc")


def parse_origins(text: str) -> tuple[str, ...]:
    """Parse origins joined by commas: scheme, host and port, without a default port, as browsers send them."""
    return tuple(map(_parse_origin, _split_list(text)))


def parse_public_url(text: str) -> str:
    """Parse the URL under which browsers reach the registry, with or without a path; a slash at the end is removed."""
    match = _PUBLIC_URL.fullmatch(text)
    if match is None or not _ORIGIN.fullmatch(match[1].lower()):
        raise ValueError("expected an http or https URL without query, such as https://registry.example")
    return _parse_origin(match[1].lower()) + match[2]


def origin_of(public_url: str) -> str:
    """Return the origin of a parsed public URL: its scheme, host and port."""
    return "/".join(public_url.split("/")[:3])


def _split_list(text: str) -> tuple[str, ...]:
    return tuple(entry.strip().lower() for entry in text.split(",") if entry.strip())


def _parse_origin(text: str) -> str:
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError("expected origins joined by commas, such as https://tools.example,http://localhost:5173")
    scheme, host, port = match.groups("")
    return f"{scheme}://{host}{'' if port == _DEFAULT_PORT_SUFFIX.get(scheme) else port}"


def parse_percent(text: str) -> Percent:
    """Parse a percentage from `1%` to `100%`."""
    if re.fullmatch(r"[0-9]{1,3}%", text) and 0 < int(text[:-1]) <= 100:  # noqa: PLR2004
        return Percent(text[:-1])
    raise ValueError("expected a whole number of percent from 1% to 100%, such as 50%")


def validate_redis_url(text: str) -> str:
    """Check a Redis URL of any form and return it unchanged."""
    parse_redis_url(text)
    return text


def parse_header_names(text: str) -> tuple[str, ...]:
    """Parse header names joined by commas; a name that ends in `*` is a prefix."""
    names = _split_list(text)
    if all(re.fullmatch(r"[a-z0-9_-]+\*?", name) for name in names):
        return names
    raise ValueError("expected header names joined by commas, such as x-request-id,x-tenant-*")


def parse_token(text: str) -> Secret:
    """Parse a bearer token that an HTTP header carries unchanged."""
    # HTTP strips blanks at the ends of a header value, so a token that has them would never match.
    if re.fullmatch(r"[!-~]([ -~]*[!-~])?", text):
        return Secret(text)
    raise ValueError("expected printable ASCII without a blank or line break at its ends")


def parse_encryption_key(text: str) -> Secret:
    """Parse a 32-byte encryption key: raw, as 64 hex digits, or in base64 (either alphabet, padded or not)."""
    encoded = r"[0-9A-Fa-f]{64}|[A-Za-z0-9+/]{43}=?|[A-Za-z0-9_-]{43}=?"
    if len(os.fsencode(text)) == ENCRYPTION_KEY_BYTES or re.fullmatch(encoded, text):
        return Secret(text)
    raise ValueError(f"expected {ENCRYPTION_KEY_BYTES} bytes: raw, as 64 hex digits or in base64")


def parse_thresholds(text: str) -> Mapping[str, Thresholds]:
    """Parse the timeout and eviction of each agent type: `file_agent=30s/90s,other=10s/40s`."""
    return _parse_entries(text, _parse_threshold)


def parse_security_contexts(text: str) -> Mapping[str, frozenset[str]]:
    """Parse the capabilities that each security context requires: `pci=encryption+audit,open`; `open` requires none.

    The text adds to the built-in contexts, or replaces one of the same name.
    """
    built_in = {"standard": frozenset[str](), "high_security": frozenset({"authentication", "authorization", "audit"})}
    return MappingProxyType({**built_in, **_parse_entries(text, _parse_required_capabilities)})


def _parse_entries(text: str, parse_entry: Callable[[str, str], Any]) -> Mapping[str, Any]:
    """Parse `name=value,name=value`; `parse_entry` gets the equals sign or '', and the value. Reports all errors."""
    found: dict[str, Any] = {}
    problems = []
    for entry in filter(None, map(str.strip, text.split(","))):
        name, equals, value = map(str.strip, entry.partition("="))
        if name in found or not re.fullmatch(r"\S{1,253}", name):
            problems.append(f"in {entry!r} expected a name without blanks that occurs once")
            continue
        try:
            found[name] = parse_entry(equals, value)
        except ValueError as error:
            problems.append(f"in {entry!r} {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return MappingProxyType(found)


def _parse_threshold(_equals: str, value: str) -> Thresholds:
    timeout, slash, eviction = value.partition("/")
    if not slash:
        raise ValueError("expected agent_type=timeout/eviction, such as file_agent=30s/90s")
    thresholds = Thresholds(parse_duration(timeout), parse_duration(eviction))
    if thresholds.eviction <= thresholds.timeout:
        raise ValueError("expected an eviction longer than the timeout")
    return thresholds


def _parse_required_capabilities(equals: str, value: str) -> frozenset[str]:
    required = value.split("+") if equals else []
    if not all(re.fullmatch(r"\S+", capability) for capability in required):
        raise ValueError("expected capabilities joined by +, such as pci=encryption+audit, or the name alone")
    return frozenset(required)
