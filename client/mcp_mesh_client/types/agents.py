"""TypedDicts of agents, capabilities, registrations and watches.

Fields that may be missing are NotRequired. Agents and capabilities also have the unknown fields they were registered
with. An `ErrorResponse` is recognized by its `error`:

    found = await client.agents(capability="greeting")
    if "error" in found:
        print(found["message"])
    else:
        print(found["agents"])
"""

from typing import Any, Literal, NotRequired, TypedDict, final

from mcp_mesh_client.types.dependencies import ResolvedProviders, UnresolvedReasons

# Lists show `unhealthy` in place of `expired` for agents of the mcp-mesh SDK.
Status = Literal["pending", "healthy", "degraded", "expired", "unhealthy"]
WatchEventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class ErrorDetail(TypedDict):
    """One invalid field of a request: its path, and the problem."""

    field: str
    problem: str


class RegistrationWarning(TypedDict):
    """A problem of a registration that was accepted: the path of the field, and the known field it may stand for."""

    field: str
    problem: str
    did_you_mean: NotRequired[str]


@final
class ErrorResponse(TypedDict):
    """The error response to a rejected request. Status 409 and 410 have a `resource_version`."""

    status: Literal["error"]
    error: str
    message: str
    details: list[ErrorDetail]
    request_id: NotRequired[str]
    resource_version: NotRequired[str | None]
    reason: NotRequired[str]
    outcome: NotRequired[str]


@final
class OfflineResponse(TypedDict):
    """The result of `register_with_fallback()` if no replica could be reached."""

    status: Literal["offline"]
    message: str


class Capability(TypedDict):
    """A capability of an agent."""

    name: str
    version: str
    stability: str
    description: NotRequired[str]
    category: NotRequired[str]
    tags: NotRequired[list[str]]
    input_schema: NotRequired[dict[str, Any]]
    dependencies: NotRequired[list[dict[str, Any]]]
    function_name: NotRequired[str]


@final
class Agent(TypedDict):
    """An agent: its registration with defaults, its status and its times (RFC 3339, UTC)."""

    id: str
    name: str
    namespace: str
    agent_type: str
    status: Status
    endpoint: str
    capabilities: list[Capability]
    labels: dict[str, str]
    annotations: dict[str, str]
    draining: bool
    created_at: str
    updated_at: str
    resource_version: str
    last_heartbeat: str | None
    overdue_since: NotRequired[str]
    health_interval: NotRequired[float]
    timeout_threshold: NotRequired[float]
    eviction_threshold: NotRequired[float]
    security_context: NotRequired[str]
    dependencies: NotRequired[list[dict[str, Any]]]
    metadata: NotRequired[dict[str, Any]]
    score: NotRequired[float]
    stale_seconds: NotRequired[float]


# `continue` is a keyword of Python, so it cannot be a field in a class body.
_Page = TypedDict("_Page", {"continue": NotRequired[str]})


@final
class AgentList(_Page):
    """A page of agents; `stale_seconds` is the age of a stale response, `continue` is the token of the next page.

    With the filter `fields` the agents have only these fields.
    """

    agents: list[Agent]
    count: int
    resource_version: str
    timestamp: str
    stale_seconds: NotRequired[float]


@final
class DiscoverResult(TypedDict):
    """Agents in the format of the tool `discover_services`."""

    status: Literal["success"]
    agents: list[Agent]
    count: int
    resource_version: str
    timestamp: str
    stale_seconds: NotRequired[float]


@final
class AgentStatusResponse(TypedDict):
    """One agent in the format of the tool `get_agent_status`."""

    status: Literal["success"]
    agent: Agent


class CapabilityRow(TypedDict):
    """One capability of one agent in a list of capabilities."""

    name: str
    version: str
    stability: str
    agent_id: str
    agent_name: str
    agent_namespace: str
    agent_status: Status
    agent_draining: bool
    agent_endpoint: str
    description: NotRequired[str]
    category: NotRequired[str]
    tags: NotRequired[list[str]]
    input_schema: NotRequired[dict[str, Any]]
    score: NotRequired[float]


@final
class CapabilityList(TypedDict):
    """A list of capabilities; `stale_seconds` is the age of a stale response."""

    capabilities: list[CapabilityRow]
    count: int
    resource_version: str
    timestamp: str
    stale_seconds: NotRequired[float]


class _Resolution(TypedDict):
    """The resolved dependencies in a response, if the agent has any and they changed."""

    dependencies_resolved: NotRequired[ResolvedProviders]
    dependencies_unresolved: NotRequired[UnresolvedReasons]
    dependencies_version: NotRequired[str]


@final
class RegisterResult(_Resolution):
    """The result of a registration: the agent's resource version, its resolved dependencies, and warnings."""

    status: Literal["success"]
    agent_id: str
    resource_version: str
    message: str
    warnings: NotRequired[list[RegistrationWarning]]


@final
class RegisterResults(TypedDict):
    """The results of many registrations, in the order of the request."""

    status: Literal["success"]
    results: list[RegisterResult | ErrorResponse]
    count: int


@final
class UnregisterResult(TypedDict):
    """The result of removing an agent, with the resource version of this change."""

    status: Literal["success"]
    agent_id: str
    resource_version: str
    message: str


@final
class DrainResult(TypedDict):
    """The result of a drain or undrain; `changed` is false if the agent already was in the requested state."""

    status: Literal["success"]
    agent_id: NotRequired[str]
    draining: NotRequired[bool]
    changed: bool
    resource_version: str
    message: NotRequired[str]


@final
class DrainResults(TypedDict):
    """The result for each drained or undrained agent, by its id; `changed` is the number of agents that changed."""

    status: Literal["success"]
    draining: bool
    results: dict[str, DrainResult | ErrorResponse]
    count: int
    changed: int


@final
class SelectResult(TypedDict):
    """The selected agent, the tool to call, and the number of candidates."""

    status: Literal["success"]
    agent_id: str
    endpoint: str
    tool_name: str
    capability: str
    version: str
    candidates: int
    agent: Agent
    stale_seconds: NotRequired[float]


@final
class HeartbeatResult(_Resolution):
    """The result of a heartbeat: its time, the dependencies if they changed, and warnings about its fields."""

    status: Literal["success"]
    timestamp: str
    message: NotRequired[str]
    warnings: NotRequired[list[RegistrationWarning]]


@final
class HeartbeatResults(TypedDict):
    """The result of the heartbeat of each agent, by its id."""

    status: Literal["success"]
    results: dict[str, HeartbeatResult | ErrorResponse]
    count: int
    timestamp: str


@final
class AgentStatus(TypedDict):
    """The status of an agent without its other fields."""

    agent_id: str
    status: Status
    last_heartbeat: str | None
    resource_version: str
    stale_seconds: NotRequired[float]


class WatchEvent(TypedDict):
    """One change of an agent, and the version from which to resume; the object of a BOOKMARK has only a version."""

    type: WatchEventType
    object: dict[str, Any]
    timestamp: str
    resource_version: str
