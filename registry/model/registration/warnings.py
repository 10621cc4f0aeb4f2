"""Warnings about a valid registration: fields that are nearly known ones, and endpoints that others cannot reach."""

import re
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from socket import inet_aton
from typing import Any, Final, NamedTuple, Self

from registry.model.registration.schema import CapabilitySchema, DependencySchema, RegistrationSchema
from registry.model.registration.tools_format import TOOLS
from registry.model.validation.errors import Path, format_path
from registry.spelling import NearNames

MAX_WARNINGS: Final = 20
"""Maximum number of warnings about the fields of one registration."""
# Bounds the time for a registration of very many unknown fields.
_MAX_COMPARED_NAMES: Final = 50

_HOST = re.compile(r"[^/]*//(?:\[([0-9A-Fa-f:.]+)\]|([^/?#:@]*?)\.?(?:[:/?#]|$))")
# The hosts that no other host, or no host at all, can connect to, contain one of these texts.
_LOCAL_HOST_MARKERS = re.compile(r"localhost|127\.|//(?:0|21[34])|\[")


class RegistrationWarning(NamedTuple):
    """A problem of a registration that was accepted: the path of the field, and the known field it may stand for."""

    field: str
    problem: str
    did_you_mean: str | None = None

    def __str__(self) -> str:
        hint = "" if self.did_you_mean is None else f"; did you mean {self.did_you_mean}?"
        return f"{self.field}: {self.problem}{hint}"


class _Fields(NamedTuple):
    """The known fields of one kind of object, and its name in problems."""

    noun: str
    known: frozenset[str]
    near: NearNames

    @classmethod
    def of(cls, noun: str, known: Iterable[str]) -> Self:
        return cls(noun, frozenset(known), NearNames(known))


_CAPABILITY_NAMES: Final = CapabilitySchema.__struct_fields__
# The tools format has a timestamp, which is not stored.
_REGISTRATION: Final = _Fields.of("a registration", (*RegistrationSchema.__struct_fields__, "timestamp"))
_CAPABILITY: Final = _Fields.of("a capability", _CAPABILITY_NAMES)
_TOOL: Final = _Fields.of("a tool", (*_CAPABILITY_NAMES, "capability"))
_DEPENDENCY: Final = _Fields.of("a dependency", DependencySchema.__struct_fields__)
_TOOLS_METADATA: Final = _Fields.of("metadata in the tools format", ("endpoint", "tools"))


def find_near_fields(document: dict[str, Any], prefix: str, *, in_tools_format: bool) -> list[RegistrationWarning]:
    """Return a warning for each unknown field of a valid registration that is nearly a known one."""
    unknown = (
        (fields, path, name)
        for item, fields, path in _objects(document, in_tools_format=in_tools_format)
        for name in item
        if name not in fields.known
    )
    warnings = []
    for fields, path, name in islice(unknown, _MAX_COMPARED_NAMES):
        near = fields.near.find(name)
        if near is not None:
            problem = f"is not a field of {fields.noun}; it is stored and has no effect"
            warnings.append(RegistrationWarning(format_path((path, name), prefix), problem, near))
    return warnings[:MAX_WARNINGS]


def has_unknown_field(document: dict[str, Any], *, in_tools_format: bool) -> bool:
    """Return whether any object of a registration has an unknown field; fast, because nearly all have none."""
    if not _REGISTRATION.known.issuperset(document):
        return True
    functions = document.get("capabilities") or ()
    if in_tools_format:
        metadata = document["metadata"]
        functions = metadata.get("tools") or functions
        if not _TOOLS_METADATA.known.issuperset(metadata):
            return True
    items = document.get("dependencies")
    if items and not _are_known(items):
        return True
    for function in functions:
        if type(function) is dict:
            items = function.get("dependencies")
            if not _TOOL.known.issuperset(function) or (items and not _are_known(items)):
                return True
    return False


def _are_known(dependencies: list[Any]) -> bool:
    return all(_DEPENDENCY.known.issuperset(each) for each in dependencies if type(each) is dict)


def _objects(document: dict[str, Any], *, in_tools_format: bool) -> Iterator[tuple[dict[str, Any], _Fields, Path]]:
    """Yield the registration and each capability, tool and dependency that is an object, with its path."""
    yield document, _REGISTRATION, None
    lists: list[tuple[Any, _Fields, Path]] = [
        (document.get("dependencies"), _DEPENDENCY, (None, "dependencies")),
        (document.get("capabilities"), _CAPABILITY, (None, "capabilities")),
    ]
    if in_tools_format:
        metadata = document["metadata"]
        yield metadata, _TOOLS_METADATA, (None, "metadata")
        lists.append((metadata.get("tools"), _TOOL, TOOLS))
    for items, fields, path in lists:
        for index, item in enumerate(items or ()):
            if isinstance(item, dict):
                yield item, fields, (path, index)
                for at, dependency in enumerate(item.get("dependencies") or ()):
                    if isinstance(dependency, dict):
                        yield dependency, _DEPENDENCY, (((path, index), "dependencies"), at)


def endpoint_problem(endpoint: str, is_remote: Callable[[], bool]) -> str | None:
    """Return the problem of an endpoint that callers cannot connect to; None for any other endpoint.

    `is_remote` returns whether the registration was sent from another host.
    """
    found = _HOST.match(endpoint) if _LOCAL_HOST_MARKERS.search(endpoint) else None
    if found is None:
        return None
    address = _parse_address(found[1], found[2])
    if address is not None and address.is_unspecified:
        return "callers cannot connect to an unspecified address; register a host name or an address of the agent"
    is_local = f".{found[2]}".endswith(".localhost") if address is None else address.is_loopback
    if is_local and is_remote():
        return "callers cannot connect to a loopback address of another host; register a host name or an address"
    return None


def _parse_address(bracketed: str | None, host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a host stands for, in any notation that clients accept; None for a name."""
    try:
        if bracketed is None:
            return IPv4Address(inet_aton(host))
        address = IPv6Address(bracketed)
    except (ValueError, OSError):
        return None
    return address.ipv4_mapped or address
