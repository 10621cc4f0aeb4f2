"""The mcp-mesh format of a registration, which the published SDKs send: all fields at the top level of one object.

It is parsed as leniently as by mcp-mesh's own registry, and converted to the native format: each tool becomes a
capability. A tool without a capability becomes a route, which has dependencies and provides nothing.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from typing import Annotated, Any, Final

import msgspec
import orjson
from msgspec import Meta, Struct

from registry.compat.mcpmesh.llm_filters import MAX_WORD_CHARS, MAX_WORDS_PER_REQUIREMENT, lookup_words
from registry.compat.mcpmesh.spec_fields import McpMeshCapability, McpMeshDependencySchema
from registry.errors import Detail, MalformedRequest, UnprocessableRequest
from registry.model.registration.names import find_function_violations
from registry.model.registration.parse import Registration
from registry.model.registration.schema import DEFAULT_NAMESPACE, DEFAULT_SECURITY_CONTEXT, MAX_CAPABILITIES
from registry.model.registration.warnings import RegistrationWarning, endpoint_problem
from registry.model.validation.errors import format_path

FORMAT_NAME: Final = "mcp-mesh"
DEFAULT_TIMEOUT: Final = timedelta(seconds=20)
"""The timeout that mcp-mesh agents expect; they send a heartbeat every 5 s."""
METADATA_ERROR: Final = "This agent registered in the mcp-mesh format; send the full registration instead of `metadata`"
MARKER_FIELDS: Final = ("name", "agent_type", "http_host", "http_port", "tools")
"""The body of a heartbeat with any of these fields is a registration in the mcp-mesh format."""

DEFAULT_MCPMESH_AGENT_TYPE: Final = "mcp_agent"
MAX_DESCRIPTION_CHARS: Final = 256
_MAX_NAME_CHARS: Final = 63
_MAX_ID_CHARS: Final = 253
_MAX_PORT: Final = 65535
_MAX_DEPENDENCIES_PER_AGENT: Final = 10_000
_MAX_REPORTED_NAMES: Final = 100

_NAME_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_HOST_PATTERN = re.compile(r"[A-Za-z0-9._:-]+|\[[A-Za-z0-9.:]+\]")
_AGENT_TYPES: Final = frozenset({"mcp_agent", "api", "a2a", "mesh_tool", "decorator_agent"})
_RUNTIMES: Final = frozenset({"python", "typescript", "java"})

Port = Annotated[int, Meta(ge=-(2**31), le=2**31)]


class McpMeshToolSchema(Struct, frozen=True, kw_only=True, gc=False):
    """Schema of a tool in the mcp-mesh format; fields that are not listed here are not validated."""

    function_name: str | None = None
    capability: str | None = None
    version: str | None = None
    tags: list[str] | None = None
    description: str | None = None
    inputSchema: dict[str, Any] | None = None  # noqa: N815 - the name on the wire
    dependencies: list[McpMeshDependencySchema] | None = None


class McpMeshRegistrationSchema(Struct, frozen=True, kw_only=True, gc=False):
    """Schema of a registration in the mcp-mesh format."""

    agent_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    agent_type: str | None = None
    runtime: str | None = None
    version: str | None = None
    description: str | None = None
    http_host: str | None = None
    http_port: Port | None = None
    tools: list[McpMeshToolSchema] | None = None


@dataclass(frozen=True, slots=True)
class ParsedRegistration:
    """The native form of an mcp-mesh registration, with warnings about changed values."""

    registration: Registration
    warnings: tuple[str, ...]


# Fields that the registry indexes with a fixed type; an SDK may use these names for other data.
_IGNORED_TOOL_FIELDS: Final = (
    frozenset(McpMeshCapability.__struct_encode_fields__)
    - frozenset({"name", "function_name", "version", "tags", "description", "dependencies"})
    - frozenset({"kwargs", "llm_filter", "llm_provider", "outputSchemaCanonical", "outputSchemaHash"})
)
_IGNORED_DEPENDENCY_FIELDS: Final = frozenset({"strategy", "key"})
_DROPPED_FIELDS: Final = frozenset(
    {
        *("agent_id", "tools", "description", "status", "timestamp", "metadata", "endpoint", "capabilities"),
        *("dependencies", "labels", "draining", "last_heartbeat", "created_at", "updated_at", "resource_version"),
        *("health_interval", "timeout_threshold", "eviction_threshold", "security_context", "annotations"),
        *("registration_format", "overdue_since"),
    }
)


def parse_mcpmesh_registration(
    document: dict[str, Any], is_remote: Callable[[], bool] = lambda: False
) -> ParsedRegistration:
    """Validate a registration in the mcp-mesh format and return its native form.

    `is_remote` returns whether the registration was sent from another host.
    Raises MalformedRequest for a field of the wrong type or a missing id, UnprocessableRequest for an invalid value.
    """
    try:
        form = msgspec.convert(document, McpMeshRegistrationSchema)
    except msgspec.ValidationError as error:
        raise MalformedRequest(f"Invalid registration: {error}", [Detail("body", str(error))]) from None
    if not form.agent_id:
        raise MalformedRequest("agent_id is required", [Detail("agent_id", "is required")])
    description = (form.description or "").strip()
    spec = _canonical_spec(document, form, description[:MAX_DESCRIPTION_CHARS])
    problems = list(_find_violations(form))
    if not spec.isascii():
        violations = islice(find_function_violations(document.get("tools"), (None, "tools")), _MAX_REPORTED_NAMES)
        problems += [Detail(format_path(path), problem) for path, problem in violations]
    if problems:
        message = "; ".join(f"{detail.field}: {detail.problem}" for detail in problems[:3])
        raise UnprocessableRequest(f"validation failed: {message}", problems)
    warnings: tuple[str, ...] = ()
    if len(description) > MAX_DESCRIPTION_CHARS:
        warnings = (f"description truncated from {len(description)} to {MAX_DESCRIPTION_CHARS} chars",)
    names = tuple(tool.capability for tool in form.tools or () if tool.capability)
    registration = _to_registration(form, form.agent_id, spec, names)
    problem = endpoint_problem(registration.endpoint, is_remote)
    if problem is not None:
        registration = replace(registration, warnings=(RegistrationWarning("http_host", problem),))
    return ParsedRegistration(registration, warnings)


def _to_registration(
    form: McpMeshRegistrationSchema, agent_id: str, spec: bytes, capabilities: tuple[str, ...]
) -> Registration:
    return Registration(
        agent_id=agent_id,
        name=form.name or agent_id,
        namespace=form.namespace or DEFAULT_NAMESPACE,
        endpoint=_endpoint(form),
        agent_type=form.agent_type or DEFAULT_MCPMESH_AGENT_TYPE,
        spec=spec,
        capabilities=capabilities,
        security_context=DEFAULT_SECURITY_CONTEXT,
        health_interval=None,
        timeout_threshold=None,
        eviction_threshold=None,
        resource_version=None,
        counts_as_heartbeat=True,
        resolves_dependencies=True,
        format=FORMAT_NAME,
    )


def _find_violations(form: McpMeshRegistrationSchema) -> Iterator[Detail]:
    for field, longest in (("agent_id", _MAX_ID_CHARS), ("name", _MAX_NAME_CHARS), ("namespace", _MAX_NAME_CHARS)):
        value = getattr(form, field)
        if value == "":
            yield Detail(field, f"{field} cannot be empty")
        elif value and len(value) > longest:
            yield Detail(field, f"{field} cannot exceed {longest} characters")
        elif value and not _NAME_PATTERN.fullmatch(value):
            yield Detail(field, f"{field} must contain only lowercase alphanumeric characters and hyphens")
    for field, allowed in (("agent_type", _AGENT_TYPES), ("runtime", _RUNTIMES)):
        value = getattr(form, field)
        if value is not None and value not in allowed:
            yield Detail(field, f"unknown {field} {value[:60]!r}; allowed: {', '.join(sorted(allowed))}")
    if not 0 <= (form.http_port or 0) <= _MAX_PORT:
        yield Detail("http_port", f"must be 0 to {_MAX_PORT}")
    if form.http_host and (len(form.http_host) > _MAX_ID_CHARS or not _HOST_PATTERN.fullmatch(form.http_host)):
        yield Detail("http_host", f"must be a host name or an address of at most {_MAX_ID_CHARS} characters")
    yield from _find_exceeded_limits(form.tools or ())


def _find_exceeded_limits(tools: Sequence[McpMeshToolSchema]) -> Iterator[Detail]:
    if (
        len(tools) > MAX_CAPABILITIES
        or sum(len(tool.dependencies or ()) for tool in tools) > _MAX_DEPENDENCIES_PER_AGENT
    ):
        yield Detail(
            "tools", f"at most {MAX_CAPABILITIES:,} tools and {_MAX_DEPENDENCIES_PER_AGENT:,} dependencies are allowed"
        )
    if any(_exceeds_word_limit(tool) for tool in tools):
        yield Detail("tools", f"at most {MAX_WORDS_PER_REQUIREMENT:,} tags are allowed per tool or dependency")
    if any(len(word) > MAX_WORD_CHARS for tool in tools for word in _lookup_words(tool)):
        yield Detail("tools", f"names, versions and tags cannot exceed {MAX_WORD_CHARS:,} characters")


def _exceeds_word_limit(tool: McpMeshToolSchema) -> bool:
    dependencies = tool.dependencies or ()
    return len(tool.tags or ()) > MAX_WORDS_PER_REQUIREMENT or any(
        sum(1 for _ in lookup_words(dependency)) > MAX_WORDS_PER_REQUIREMENT for dependency in dependencies
    )


def _lookup_words(tool: McpMeshToolSchema) -> Iterator[str]:
    """Yield the texts by which a tool is found and by which its providers are found."""
    yield from (tool.function_name or "", tool.capability or "", tool.version or "", *(tool.tags or ()))
    for dependency in tool.dependencies or ():
        yield from lookup_words(dependency)


def _canonical_spec(document: dict[str, Any], form: McpMeshRegistrationSchema, description: str) -> bytes:
    """Encode a registration in the native format, so that equivalent registrations have equal bytes."""
    spec = {key: value for key, value in document.items() if key not in _DROPPED_FIELDS and value is not None}
    tools = [_to_capability(sent) for sent in document.get("tools") or ()]
    routes = [tool for tool in tools if not tool["name"]]
    spec |= {
        "id": form.agent_id,
        "agent_type": form.agent_type or DEFAULT_MCPMESH_AGENT_TYPE,
        "endpoint": _endpoint(form),
        "capabilities": [tool for tool in tools if tool["name"]],
        "registration_format": {"name": FORMAT_NAME} | ({"routes": routes} if routes else {}),
    }
    if description:
        spec["description"] = description
    return orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)


def _endpoint(form: McpMeshRegistrationSchema) -> str:
    """Return the endpoint of an agent; without host or port a `stdio://` URL, which only its parent can call."""
    if not form.http_port or not form.http_host:
        return f"stdio://{form.agent_id}"
    host = f"[{form.http_host}]" if ":" in form.http_host and form.http_host[0] != "[" else form.http_host
    return f"http://{host}:{form.http_port}"


def _to_capability(sent: dict[str, Any]) -> dict[str, Any]:
    """Convert a tool in the mcp-mesh format to a capability."""
    tool = {
        key: value for key, value in sent.items() if key not in _IGNORED_TOOL_FIELDS and value not in (None, "", [])
    }
    tool["name"] = tool.pop("capability", "")
    if "inputSchema" in tool:
        tool["input_schema"] = tool.pop("inputSchema")
    if "dependencies" in tool:
        tool["dependencies"] = [_to_dependency(each) for each in tool["dependencies"]]
    return tool


def _to_dependency(sent: dict[str, Any]) -> dict[str, Any]:
    dependency = {
        key: value
        for key, value in sent.items()
        if key not in _IGNORED_DEPENDENCY_FIELDS and value not in (None, "", [])
    }
    return {"capability": "", **dependency}
