"""Parses a registration: checks it against all rules and returns its canonical form."""

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import orjson

from registry.duration import parse_duration
from registry.model.agent import NATIVE_FORMAT
from registry.model.registration.names import find_name_violations
from registry.model.registration.schema import (
    DEFAULT_AGENT_TYPE,
    DEFAULT_NAMESPACE,
    DEFAULT_SECURITY_CONTEXT,
    MAX_ANNOTATIONS_BYTES,
    MAX_CAPABILITIES,
    WHOLE_AGENT,
    CapabilitySchema,
    DependencySchema,
    RegistrationSchema,
    registration_schema,
)
from registry.model.registration.tools_format import (
    absent_endpoints,
    find_conflicts,
    find_tool_violations,
    is_tools_format,
    metadata_to_native,
    path_in_metadata,
    to_native,
)
from registry.model.registration.warnings import (
    RegistrationWarning,
    endpoint_problem,
    find_near_fields,
    has_unknown_field,
)
from registry.model.validation.errors import Path, Violation, describe_value, format_path, validation_error
from registry.model.validation.json_body import find_violations
from registry.model.validation.name_characters import find_mixed_letters
from registry.model.validation.schema_errors import validator_for

__all__ = ["CapabilitySchema", "Registration", "RegistrationSchema", "parse_registration", "registration_schema"]


@dataclass(frozen=True, slots=True)
class Registration:
    """A valid registration; omitted fields have their defaults, except in `spec`.

    `spec` is the request as canonical JSON: equivalent requests have the same bytes. `capabilities` are the names, in
    the order sent. Durations are seconds; None stands for the default of the registry. `resource_version` is the
    precondition as sent, not validated, or None. `constraints` are the version constraints of its dependencies, each
    with its field, not validated. `counts_as_heartbeat` is whether sending it is a heartbeat, as in the tools format.
    `resolves_dependencies` is whether it has functions or dependencies, so that responses contain their resolution.
    `format` is the name of the format it was sent in. With `exclusive` it is rejected while an agent with its id lives
    at another endpoint. `warnings` are problems that do not prevent the registration.
    """

    agent_id: str
    name: str
    namespace: str
    endpoint: str
    agent_type: str
    spec: bytes
    capabilities: tuple[str, ...]
    security_context: str
    health_interval: float | None
    timeout_threshold: float | None
    eviction_threshold: float | None
    resource_version: str | None
    constraints: tuple[tuple[str, str], ...] = ()
    counts_as_heartbeat: bool = False
    resolves_dependencies: bool = False
    format: str = NATIVE_FORMAT
    exclusive: bool = False
    warnings: tuple[RegistrationWarning, ...] = ()


def parse_registration(
    document: object, prefix: str = "", is_remote: Callable[[], bool] = lambda: False
) -> Registration:
    """Validate the decoded body of a registration and return its canonical form.

    `prefix` precedes the paths of fields in errors, for example `registration_data.` or `agents[7].`. `is_remote`
    returns whether another host sent it. Raises UnprocessableRequest if a field is invalid; the details name each one
    by its path.
    """
    if isinstance(document, dict):
        document = _with_durations_in_seconds(document)
        accepted = _parse_valid(document, prefix, is_remote)
        if accepted is not None:
            return accepted
    finders = _find_field_violations, _find_cross_field_violations, _find_excess_dependencies, find_name_violations
    raise validation_error("The registration", chain.from_iterable(find(document) for find in finders), prefix)


_VALIDATOR = validator_for(RegistrationSchema)
_REGISTRATION_FIELDS = frozenset(RegistrationSchema.__struct_fields__)
_DURATION_FIELDS = ("health_interval", "timeout_threshold", "eviction_threshold")
_CAPABILITY_FIELDS = frozenset(CapabilitySchema.__struct_fields__)
# Limit for an agent and all its functions together: a change of a provider resolves, explains and traces all of them.
_MAX_DEPENDENCIES_PER_AGENT = 10_000
_BRACKETED_HOST = re.compile(r"[^/]*//\[([0-9A-Fa-f:.]+)\]")
# The registry owns these fields, so that values in a registration are ignored. The id is stored under one name, and the
# preconditions are those of one call.
_UNSTORED_FIELDS = frozenset(
    {
        *("agent_id", "status", "last_heartbeat", "overdue_since", "created_at", "updated_at", "resource_version"),
        *("draining", "exclusive", "registration_format"),
    }
)


def _with_durations_in_seconds(document: dict[str, Any]) -> dict[str, Any]:
    """Replace durations that were sent as text by seconds; invalid texts stay, and break the rule of their field."""
    for name in _DURATION_FIELDS:
        if name in document and isinstance(document[name], str):
            with contextlib.suppress(ValueError):
                seconds = parse_duration(document[name]).total_seconds()
                # As an integer where possible, so that `30s` and `30` are the same registration.
                document = document | {name: int(seconds) if seconds.is_integer() else seconds}
    return document


def _parse_valid(document: dict[str, Any], prefix: str, is_remote: Callable[[], bool]) -> Registration | None:
    """Parse a registration; return None if the document breaks a rule."""
    in_tools_format = is_tools_format(document)
    if in_tools_format and next(find_tool_violations(document), None) is not None:
        return None
    native = to_native(document) if in_tools_format else document
    try:
        fields = msgspec.convert(native, RegistrationSchema)
    except msgspec.ValidationError:
        return None
    agent_id = fields.id or fields.agent_id
    if (
        agent_id is None
        or next(_find_cross_field_violations(document), None) is not None
        or _count_dependencies(fields) > _MAX_DEPENDENCIES_PER_AGENT
    ):
        return None
    sends_tools = in_tools_format and document["metadata"].get("tools") is not None
    path = "metadata.tools" if sends_tools else "capabilities"
    capabilities = fields.capabilities or ()
    functions = [
        (index, each)
        for index, each in enumerate(capabilities)
        if not isinstance(each, str) and (each.dependencies or each.function_name)
    ]
    spec = _canonical_spec(native, agent_id, prefix)
    # Nearly all registrations are ASCII, whose characters need no check.
    is_ascii = spec.isascii()
    if not is_ascii and next(find_name_violations(document), None) is not None:
        return None
    warnings = []
    if has_unknown_field(document, in_tools_format=in_tools_format):
        warnings = find_near_fields(document, prefix, in_tools_format=in_tools_format)
    if not is_ascii and (mixed := find_mixed_letters(fields.name or "")) is not None:
        warnings.append(RegistrationWarning(f"{prefix}name", f"mixes {mixed}, which can look alike"))
    if (problem := endpoint_problem(fields.endpoint, is_remote)) is not None:
        field = "endpoint" if document.get("endpoint") is not None else "metadata.endpoint"
        warnings.append(RegistrationWarning(f"{prefix}{field}", problem))
    constraints = _version_constraints("", fields.dependencies or ())
    for index, function in functions:
        constraints += _version_constraints(f"{path}[{index}].", function.dependencies or ())
    return Registration(
        agent_id=agent_id,
        name=fields.name or agent_id,
        namespace=fields.namespace or DEFAULT_NAMESPACE,
        endpoint=fields.endpoint,
        agent_type=fields.agent_type or DEFAULT_AGENT_TYPE,
        spec=spec,
        capabilities=tuple(each if isinstance(each, str) else each.name for each in capabilities),
        security_context=fields.security_context or DEFAULT_SECURITY_CONTEXT,
        health_interval=fields.health_interval,
        timeout_threshold=fields.timeout_threshold,
        eviction_threshold=fields.eviction_threshold,
        resource_version=None if fields.resource_version is None else str(fields.resource_version),
        constraints=constraints,
        counts_as_heartbeat=sends_tools,
        resolves_dependencies=sends_tools or bool(fields.dependencies or functions),
        exclusive=bool(fields.exclusive),
        warnings=tuple(warnings),
    )


def _count_dependencies(registration: RegistrationSchema) -> int:
    capabilities = registration.capabilities or ()
    lists = [registration.dependencies, *[each.dependencies for each in capabilities if not isinstance(each, str)]]
    return sum([len(dependencies) for dependencies in lists if dependencies])


def _version_constraints(prefix: str, dependencies: Sequence[DependencySchema | str]) -> tuple[tuple[str, str], ...]:
    """Return the version constraints of dependencies, each after the path of its field."""
    return tuple(
        (f"{prefix}dependencies[{index}].version", dependency.version)
        for index, dependency in enumerate(dependencies)
        if not isinstance(dependency, str) and dependency.version
    )


def _canonical_spec(document: dict[str, Any], agent_id: str, prefix: str) -> bytes:
    """Encode a registration without defaults, so that equivalent registrations have the same bytes."""
    spec = {
        key: value
        for key, value in document.items()
        if key not in _UNSTORED_FIELDS and (value is not None or key not in _REGISTRATION_FIELDS)
    }
    spec["id"] = agent_id
    if "capabilities" in spec:
        spec["capabilities"] = [_normalize_capability(each) for each in spec["capabilities"]]
    if "dependencies" in spec:
        spec["dependencies"] = [_normalize_dependency(each) for each in spec["dependencies"]]
    try:
        return orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        raise validation_error("The registration", find_violations(document), prefix) from None


def _normalize_capability(sent: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(sent, str):
        return {"name": sent}
    if None in sent.values():
        sent = {key: value for key, value in sent.items() if value is not None or key not in _CAPABILITY_FIELDS}
    if "dependencies" in sent:
        sent = sent | {"dependencies": [_normalize_dependency(each) for each in sent["dependencies"]]}
    return sent


def _normalize_dependency(sent: str | dict[str, Any]) -> dict[str, Any]:
    return {"capability": sent} if isinstance(sent, str) else sent


def _find_field_violations(document: object) -> Iterator[Violation]:
    """Yield violations of the rules for single fields, each with the path of the field in the request."""
    if not isinstance(document, dict) or not is_tools_format(document):
        yield from _VALIDATOR.find_violations(document)
        return
    tool_violations = list(find_tool_violations(document))
    yield from tool_violations
    reported = absent_endpoints(document) | {path for path, _ in chain(tool_violations, find_conflicts(document))}
    in_metadata = _VALIDATOR.find_violations(metadata_to_native(document))
    as_sent = chain(
        _VALIDATOR.find_violations(document), ((path_in_metadata(path), problem) for path, problem in in_metadata)
    )
    yield from (violation for violation in as_sent if violation[0] not in reported)


def _find_cross_field_violations(document: object) -> Iterator[Violation]:
    """Yield violations of the rules that compare several fields; values of the wrong type are skipped."""
    if not isinstance(document, dict):
        return
    yield from _find_id_violations(document.get("id"), document.get("agent_id"))
    if isinstance(document.get("endpoint"), str):
        yield from _find_endpoint_violations(document["endpoint"], None)
    if isinstance(document.get("capabilities"), list):
        yield from _find_duplicate_names(document["capabilities"], (None, "capabilities"))
    if is_tools_format(document):
        yield from find_conflicts(document)
        metadata = document["metadata"]
        if isinstance(metadata.get("endpoint"), str):
            yield from _find_endpoint_violations(metadata["endpoint"], (None, "metadata"))
        if isinstance(metadata.get("tools"), list):
            yield from _find_duplicate_names(metadata["tools"], ((None, "metadata"), "tools"))
    if isinstance(document.get("annotations"), dict):
        yield from _find_oversized_annotations(document["annotations"])
    timeout, eviction = _as_number(document.get("timeout_threshold")), _as_number(document.get("eviction_threshold"))
    if timeout is not None and eviction is not None and eviction <= timeout:
        yield (None, "eviction_threshold"), f"must be greater than timeout_threshold ({describe_value(timeout)})"


def _find_id_violations(first: object, second: object) -> Iterator[Violation]:
    if first is None and second is None:
        yield (None, "id"), "is required, as id or as agent_id"
    elif first is not None and second is not None and first != second:
        problem = f"must equal id ({describe_value(first)}) or be omitted, not {describe_value(second)}"
        yield (None, "agent_id"), problem


def _find_endpoint_violations(endpoint: str, path: Path) -> Iterator[Violation]:
    bracketed = _BRACKETED_HOST.match(endpoint)
    if bracketed is None:
        return
    try:
        ipaddress.IPv6Address(bracketed[1])
    except ValueError:
        yield (path, "endpoint"), f"must have an IPv6 address between its brackets, not {describe_value(bracketed[1])}"


def _find_duplicate_names(capabilities: list[Any], path: Path) -> Iterator[Violation]:
    """Yield violations for reserved and repeated names of functions, or of capabilities without a function."""
    if len(capabilities) > MAX_CAPABILITIES:
        return
    first_index: dict[str, int] = {}
    for index, each in enumerate(capabilities):
        field = "function_name" if isinstance(each, dict) and each.get("function_name") is not None else "name"
        name = each.get(field) if isinstance(each, dict) else each
        if not isinstance(name, str):
            continue
        name_path: Path = ((path, index), field) if isinstance(each, dict) else (path, index)
        is_function = isinstance(each, dict) and (field == "function_name" or each.get("dependencies"))
        if is_function and name == WHOLE_AGENT:
            yield name_path, f"must not be {WHOLE_AGENT}, which is reserved for the agent as a whole"
        if (before := first_index.setdefault(name, index)) != index:
            yield (
                name_path,
                f"must occur once per agent; {describe_value(name)} is already {format_path((path, before))}",
            )


def _find_excess_dependencies(document: object) -> Iterator[Violation]:
    """Yield the path of the field at which the agent exceeds the limit of dependencies."""
    if not isinstance(document, dict):
        return
    count = 0
    for path, each in chain([(None, document)], _iter_functions(document)):
        sent = each.get("dependencies")
        before, count = count, count + (len(sent) if isinstance(sent, list) else 0)
        if before <= _MAX_DEPENDENCIES_PER_AGENT < count:
            limit = f"{_MAX_DEPENDENCIES_PER_AGENT:,} dependencies of the agent and its functions"
            yield (path, "dependencies"), f"must not exceed {limit}"


def _iter_functions(document: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each capability or tool of a registration with its path."""
    metadata = document.get("metadata")
    lists: list[tuple[Path, Any]] = [((None, "capabilities"), document.get("capabilities"))]
    if isinstance(metadata, dict) and is_tools_format(document):
        lists.append((((None, "metadata"), "tools"), metadata.get("tools")))
    for path, functions in lists:
        if isinstance(functions, list):
            yield from (((path, index), each) for index, each in enumerate(functions) if isinstance(each, dict))


def _find_oversized_annotations(annotations: dict[str, Any]) -> Iterator[Violation]:
    texts = chain(annotations, (value for value in annotations.values() if isinstance(value, str)))
    size = sum(len(text.encode()) for text in texts)
    if size > MAX_ANNOTATIONS_BYTES:
        yield (None, "annotations"), f"must be at most {MAX_ANNOTATIONS_BYTES:,} bytes in total, not {size:,}"


def _as_number(value: Any) -> float | None:
    # Compared by exact type, because True is an int in Python.
    return value if type(value) in {int, float} else None
