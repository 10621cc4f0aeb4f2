"""A registration: what an agent says of itself, checked and in canonical form."""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import orjson

from registry.model.registration.schema import (
    DEFAULT_AGENT_TYPE,
    DEFAULT_NAMESPACE,
    DEFAULT_SECURITY_CONTEXT,
    MAX_ANNOTATIONS,
    MAX_CAPABILITIES,
    WHOLE_AGENT,
    CapabilityForm,
    DependencyForm,
    RegistrationForm,
)
from registry.model.registration.tools_format import (
    BatchedForm,
    find_twice_said,
    is_batched,
    registration_schema,
    unbatched,
)
from registry.model.validation.errors import Finding, Path, refusal, shown, written
from registry.model.validation.json_body import find_unfit
from registry.model.validation.schema_errors import read_rule

__all__ = ["CapabilityForm", "Registration", "RegistrationForm", "read_registration", "registration_schema"]


@dataclass(frozen=True, slots=True)
class Registration:
    """One registration that keeps every rule, defaults filled in everywhere but in `spec`.

    `spec` is the request in canonical JSON: requests that mean the same have the same bytes. `capabilities`
    are the names, in the order sent. Durations are seconds, None when they are left to the registry.
    `resource_version` is the precondition as sent, not yet known to be a number, or None. `constraints` are the
    version constraints of its dependencies, each with its field, not yet known to be readable. `beats`: sending it is a
    heartbeat, as it is in batched form. `wired`: it names functions or dependencies, so that answers speak of these.
    `flat`: it came in flat form.
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
    constraints: tuple[tuple[str, str], ...] = ()
    beats: bool = False
    wired: bool = False
    flat: bool = False


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
    rule = _BATCHED_RULE if isinstance(document, dict) and is_batched(document) else _RULE
    found = chain(rule.find_problems(document), _find_across(document), _find_crowd(document))
    raise refusal("The registration", found, path)


_RULE = read_rule(RegistrationForm)
_BATCHED_RULE = read_rule(BatchedForm)
_FIELDS = frozenset(RegistrationForm.__struct_fields__)
_CAPABILITY_FIELDS = frozenset(CapabilityForm.__struct_fields__)
# Of an agent and all its functions together: each is resolved, explained and traced whenever something moves.
_MOST_NEEDS = 10_000
_BRACKETED_HOST = re.compile(r"[^/]*//(?:[^/?#@]*@)?\[([0-9A-Fa-f:.]+)\]")
# The registry writes these; what an agent says of them is not its own to say. The id returns under one name.
_NOT_KEPT = frozenset(
    {"agent_id", "status", "last_heartbeat", "created_at", "updated_at", "resource_version", "draining", "flat"}
)


def _accept(document: dict[str, Any], path: str) -> Registration | None:
    """Read a registration that keeps every rule; None for any other."""
    batched = is_batched(document)
    try:
        form = msgspec.convert(document, BatchedForm if batched else RegistrationForm)
    except msgspec.ValidationError:
        return None
    agent_id = form.id or form.agent_id
    if agent_id is None or next(_find_across(document), None) is not None or _count_needs(form) > _MOST_NEEDS:
        return None
    beats, wired = False, bool(form.dependencies)
    constraints = _constraints("", form.dependencies or ())
    for place, each in enumerate(form.capabilities or ()):
        if not isinstance(each, str) and (each.dependencies or each.function_name):
            constraints += _constraints(f"capabilities[{place}].", each.dependencies or ())
            wired = True
    capabilities = [each if isinstance(each, str) else each.name for each in form.capabilities or ()]
    if isinstance(form, BatchedForm):
        document = unbatched(document)
        for place, tool in enumerate(form.metadata.tools or ()):
            capabilities.append(tool.capability)
            constraints += _constraints(f"metadata.tools[{place}].", tool.dependencies or ())
        beats = form.metadata.tools is not None
    return Registration(
        agent_id=agent_id,
        name=form.name or agent_id,
        namespace=form.namespace or DEFAULT_NAMESPACE,
        agent_type=form.agent_type or DEFAULT_AGENT_TYPE,
        spec=_canonical(document, agent_id, path),
        capabilities=tuple(capabilities),
        security_context=form.security_context or DEFAULT_SECURITY_CONTEXT,
        health_interval=form.health_interval,
        timeout_threshold=form.timeout_threshold,
        eviction_threshold=form.eviction_threshold,
        resource_version=None if form.resource_version is None else str(form.resource_version),
        constraints=constraints,
        beats=beats,
        wired=wired or beats,
    )


def _count_needs(form: RegistrationForm) -> int:
    lists = [form.dependencies, *(each.dependencies for each in form.capabilities or () if not isinstance(each, str))]
    if isinstance(form, BatchedForm):
        lists += [tool.dependencies for tool in form.metadata.tools or ()]
    return sum(len(needs) for needs in lists if needs)


def _constraints(place: str, needs: Sequence[DependencyForm | str]) -> tuple[tuple[str, str], ...]:
    """Return the version constraints among some dependencies, each with its field."""
    return tuple(
        (f"{place}dependencies[{at}].version", need.version)
        for at, need in enumerate(needs)
        if not isinstance(need, str) and need.version
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
        yield from _find_address(document["endpoint"], None)
    if isinstance(document.get("capabilities"), list):
        yield from _find_repeated(document["capabilities"], (None, "capabilities"))
    if is_batched(document):
        yield from find_twice_said(document)
        metadata = document["metadata"]
        if isinstance(metadata.get("endpoint"), str):
            yield from _find_address(metadata["endpoint"], (None, "metadata"))
        if isinstance(metadata.get("tools"), list):
            yield from _find_repeated(metadata["tools"], ((None, "metadata"), "tools"))
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


def _find_address(endpoint: str, path: Path) -> Iterator[Finding]:
    bracketed = _BRACKETED_HOST.match(endpoint)
    if bracketed is None:
        return
    try:
        ipaddress.IPv6Address(bracketed[1])
    except ValueError:
        yield (path, "endpoint"), f"must have an IPv6 address between its brackets, not {shown(bracketed[1])}"


def _find_repeated(capabilities: list[Any], path: Path) -> Iterator[Finding]:
    """Yield what is called by a name that is taken: each is called by its function's name, or else by its own."""
    if len(capabilities) > MAX_CAPABILITIES:
        return
    places: dict[str, int] = {}
    for place, each in enumerate(capabilities):
        field = "function_name" if isinstance(each, dict) and each.get("function_name") is not None else "name"
        name = each.get(field) if isinstance(each, dict) else each
        if not isinstance(name, str):
            continue
        where: Path = ((path, place), field) if isinstance(each, dict) else (path, place)
        called = isinstance(each, dict) and (field == "function_name" or each.get("dependencies"))
        if called and name == WHOLE_AGENT:
            yield where, f"must be another name than {WHOLE_AGENT}, which stands for the agent as a whole"
        if (before := places.setdefault(name, place)) != place:
            yield where, f"must occur once per agent; {shown(name)} is already {written((path, before))}"


def _find_crowd(document: object) -> Iterator[Finding]:
    """Yield where the dependencies of the agent and its functions, one after the other, become too many."""
    if not isinstance(document, dict):
        return
    count = 0
    for path, each in chain([(None, document)], _functions(document)):
        needs = each.get("dependencies")
        before, count = count, count + (len(needs) if isinstance(needs, list) else 0)
        if before <= _MOST_NEEDS < count:
            yield (path, "dependencies"), f"must not bring the agent and its functions to more than {_MOST_NEEDS:,}"


def _functions(document: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield everything that may need something, with its place."""
    metadata = document.get("metadata")
    listed: list[tuple[Path, Any]] = [((None, "capabilities"), document.get("capabilities"))]
    if isinstance(metadata, dict) and is_batched(document):
        listed.append((((None, "metadata"), "tools"), metadata.get("tools")))
    for path, functions in listed:
        if isinstance(functions, list):
            yield from (((path, place), each) for place, each in enumerate(functions) if isinstance(each, dict))


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
