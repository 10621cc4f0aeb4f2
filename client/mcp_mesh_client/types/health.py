"""TypedDicts of health, metrics and the description of the registry."""

from typing import Any, Literal, NotRequired, TypedDict, final

from mcp_mesh_client.types.agents import Status


@final
class AgentHealth(TypedDict):
    """The health of an agent. Durations are seconds; times of heartbeats are None before the first heartbeat."""

    agent_id: str
    status: Status
    last_heartbeat: str | None
    time_since_heartbeat: float | None
    is_expired: bool
    timeout_threshold: float
    eviction_threshold: float
    next_heartbeat_expected: str
    message: str


class Leader(TypedDict):
    """The leader: the replica that sweeps overdue agents."""

    leading: bool
    election: bool
    instance: str | None
    host: str | None
    pid: int | None
    epoch: int | None
    since: str | None


class Outage(TypedDict):
    """The last outage of Redis, after which overdue agents got a grace period."""

    cause: str | None
    since: str | None
    until: str | None
    grace_granted: int
    repairing_clock_rollback: bool


class NamespaceSelfPreservation(TypedDict):
    """Self-preservation of one namespace: why it started, and how many agents it suspends."""

    namespace: str
    since: str
    until: str
    healthy: int
    overdue_at_start: int
    suspended: int


class SelfPreservation(TypedDict):
    """The state of self-preservation: whether it is active, and how many agents it affects.

    `namespaces` has at most 20 of the `protected_namespaces`, those whose period started last.
    """

    active: bool
    mesh_wide: bool
    since: str | None
    until: str | None
    overdue_at_start: int
    healthy: int
    suspended: int
    activations: int
    protected_namespaces: int
    namespaces: list[NamespaceSelfPreservation]


@final
class EndSelfPreservationResult(TypedDict):
    """The result of ending self-preservation: whether it was active until now."""

    status: Literal["success"]
    ended: bool
    message: str


@final
class Health(TypedDict):
    """The health of the registry replica that responded; `status` and `ready` only if the caller lacks its token."""

    status: Literal["starting", "healthy", "degraded"]
    ready: bool
    instance: NotRequired[str]
    resource_version: NotRequired[str | None]
    timeline: NotRequired[str | None]
    staleness_seconds: NotRequired[float]
    change_notifications: NotRequired[str]
    leader: NotRequired[Leader]
    outage: NotRequired[Outage]
    self_preservation: NotRequired[SelfPreservation]
    warnings: NotRequired[list[str]]
    service: NotRequired[str]
    version: NotRequired[str]
    uptime_seconds: NotRequired[int]
    timestamp: NotRequired[str]


@final
class Readiness(TypedDict):
    """Whether a registry replica accepts requests."""

    status: Literal["ready", "not_ready"]


@final
class Metrics(TypedDict):
    """Metrics of the whole mesh; `uptime_seconds` is the uptime of the replica that responded."""

    total_agents: int
    pending_agents: int
    healthy_agents: int
    degraded_agents: int
    expired_agents: int
    draining_agents: int
    total_capabilities: int
    unique_capability_types: int
    heartbeats_processed: int
    registrations_processed: int
    uptime_seconds: float
    timestamp: str


class Tool(TypedDict):
    """One MCP tool of the registry."""

    name: str
    description: str
    inputSchema: dict[str, Any]
    annotations: dict[str, bool]


@final
class ToolList(TypedDict):
    """The registry's MCP tools."""

    tools: list[Tool]


@final
class ServiceDescription(TypedDict):
    """The name, version and endpoints of the registry service; the name only if the caller lacks its token."""

    service: str
    version: NotRequired[str]
    endpoints: NotRequired[list[str]]
