"""A registration: what an agent says of itself, checked and in canonical form."""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import orjson

from registry.model.document import find_unfit
from registry.model.forms import (
    DEFAULT_AGENT_TYPE,
    DEFAULT_NAMESPACE,
    DEFAULT_SECURITY_CONTEXT,
    MAX_ANNOTATIONS,
    MAX_CAPABILITIES,
    CapabilityForm,
    RegistrationForm,
    registration_schema,
)
from registry.model.problems import Finding, Path, refusal, shown
from registry.model.rules import read_rule

__all__ = ["CapabilityForm", "Registration", "RegistrationForm", "read_registration", "registration_schema"]


@dataclass(frozen=True, slots=True)
class Registration:
    """One registration that keeps every rule, defaults filled in everywhere but in `spec`.

    `spec` is the request in canonical JSON: requests that mean the same have the same bytes. `capabilities`
    are the names, in the order sent. Durations are seconds, None when they are left to the registry.
    `resource_version` is the precondition as sent, not yet known to be a number, or None.
    """

    agent_id: str
    name: str
    namespace: str
    agent_type: str
    spec: bytes
    capabilities: tuple[str, ...]
    security_context: str
    health_interval: float | None
    timeout_threshold: float | None
    eviction_threshold: float | None
    resource_version: str | None


def read_registration(document: object, path: str = "") -> Registration:
    """Check a decoded request body and bring it into canonical form.

    `path` is what stands before a field's own name in problems: `registration_data.` or `agents[7].`, say.

    Raises:
        UnprocessableRequest: at least one field is wrong; its details name every one of them by its path.
    """
    if isinstance(document, dict):
        accepted = _accept(document, path)
        if accepted is not None:
            return accepted
    raise refusal("The registration", chain(_RULE.find_problems(document), _find_across(document)), path)


_RULE = read_rule(RegistrationForm)
_FIELDS = frozenset(RegistrationForm.__struct_fields__)
_CAPABILITY_FIELDS = frozenset(CapabilityForm.__struct_fields__)
_BRACKETED_HOST = re.compile(r"[^/]*//(?:[^/?#@]*@)?\[([0-9A-Fa-f:.]+)\]")
# The registry writes these; what an agent says of them is not its own to say. The id returns under one name.
_NOT_KEPT = frozenset(
    {"agent_id", "status", "last_heartbeat", "created_at", "updated_at", "resource_version", "draining"}
)


def _accept(document: dict[str, Any], path: str) -> Registration | None:
    """Read a registration that keeps every rule; None for any other."""
    try:
        form = msgspec.convert(document, RegistrationForm)
    except msgspec.ValidationError:
        return None
    agent_id = form.id or form.agent_id
    if agent_id is None or next(_find_across(document), None) is not None:
        return None
    return Registration(
        agent_id=agent_id,
        name=form.name or agent_id,
        namespace=form.namespace or DEFAULT_NAMESPACE,
        agent_type=form.agent_type or DEFAULT_AGENT_TYPE,
        spec=_canonical(document, agent_id, path),
        capabilities=tuple([each if isinstance(each, str) else each.name for each in form.capabilities or ()]),
        security_context=form.security_context or DEFAULT_SECURITY_CONTEXT,
        health_interval=form.health_interval,
        timeout_threshold=form.timeout_threshold,
        eviction_threshold=form.eviction_threshold,
        resource_version=None if form.resource_version is None else str(form.resource_version),
    )


def _canonical(document: dict[str, Any], agent_id: str, path: str) -> bytes:
    """Write what the agent said, without defaults, in the one way it can be written."""
    spec = {
        key: value
        for key, value in document.items()
        if key not in _NOT_KEPT and (value is not None or key not in _FIELDS)
    }
    spec["id"] = agent_id
    if "capabilities" in spec:
        spec["capabilities"] = [_capability(each) for each in spec["capabilities"]]
    if "dependencies" in spec:
        spec["dependencies"] = [_dependency(each) for each in spec["dependencies"]]
    try:
        return orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        raise refusal("The registration", find_unfit(document), path) from None


def _capability(sent: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(sent, str):
        return {"name": sent}
    if None in sent.values():
        sent = {key: value for key, value in sent.items() if value is not None or key not in _CAPABILITY_FIELDS}
    if "dependencies" in sent:
        sent = sent | {"dependencies": [_dependency(each) for each in sent["dependencies"]]}
    return sent


def _dependency(sent: str | dict[str, Any]) -> dict[str, Any]:
    return {"capability": sent} if isinstance(sent, str) else sent


def _find_across(document: object) -> Iterator[Finding]:
    """Yield what is wrong between fields, in a document whose fields may themselves be wrong."""
    if not isinstance(document, dict):
        return
    yield from _find_identity(document.get("id"), document.get("agent_id"))
    if isinstance(document.get("endpoint"), str):
        yield from _find_address(document["endpoint"])
    if isinstance(document.get("capabilities"), list):
        yield from _find_repeated(document["capabilities"])
    if isinstance(document.get("annotations"), dict):
        yield from _find_oversize(document["annotations"])
    yield from _find_order(_number(document.get("timeout_threshold")), _number(document.get("eviction_threshold")))


def _find_identity(first: object, second: object) -> Iterator[Finding]:
    if first is None and second is None:
        yield (None, "id"), "is required, as id or as agent_id"
    elif first is not None and second is not None and first != second:
        yield (
            (None, "agent_id"),
            f"must equal id, which is {shown(first)}, or be left out; not {shown(second)}",
        )


def _find_address(endpoint: str) -> Iterator[Finding]:
    bracketed = _BRACKETED_HOST.match(endpoint)
    if bracketed is None:
        return
    try:
        ipaddress.IPv6Address(bracketed[1])
    except ValueError:
        yield (None, "endpoint"), f"must have an IPv6 address between its brackets, not {shown(bracketed[1])}"


def _find_repeated(capabilities: list[Any]) -> Iterator[Finding]:
    if len(capabilities) > MAX_CAPABILITIES:
        return
    places: dict[str, int] = {}
    for place, each in enumerate(capabilities):
        name = each.get("name") if isinstance(each, dict) else each
        if isinstance(name, str) and (before := places.setdefault(name, place)) != place:
            path: Path = ((None, "capabilities"), place)
            problem = f"must occur once per agent; {shown(name)} is already capabilities[{before}]"
            yield (path, "name") if isinstance(each, dict) else path, problem


def _find_oversize(annotations: dict[str, Any]) -> Iterator[Finding]:
    texts = chain(annotations, (value for value in annotations.values() if isinstance(value, str)))
    size = sum(len(text.encode()) for text in texts)
    if size > MAX_ANNOTATIONS:
        yield (None, "annotations"), f"must be at most {MAX_ANNOTATIONS:,} bytes in all, not {size:,}"


def _find_order(timeout: float | None, eviction: float | None) -> Iterator[Finding]:
    if timeout is not None and eviction is not None and eviction <= timeout:
        yield (None, "eviction_threshold"), f"must be above timeout_threshold, which is {shown(timeout)}"


def _number(value: Any) -> float | None:
    # By exact type: to Python, True is an int.
    return value if type(value) in {int, float} else None
