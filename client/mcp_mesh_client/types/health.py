"""What the registry tells of itself, and how one agent is: plain dicts, and what is in them."""

from typing import Any, Literal, TypedDict, final

from mcp_mesh_client.types.agents import Status


@final
class AgentHealth(TypedDict):
    """How one agent is. Durations are seconds; None before its first heartbeat."""

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
    """Who looks for silent agents."""

    leading: bool
    election: bool
    instance: str | None
    host: str | None
    pid: int | None
    epoch: int | None
    since: str | None


class Outage(TypedDict):
    """The last time the store was away, for which agents are forgiven their silence."""

    cause: str | None
    since: str | None
    until: str | None
    grace_granted: int
    repairing_clock_rollback: bool


class SelfPreservation(TypedDict):
    """Whether a mass silence is held, and how many are concerned."""

    active: bool
    since: str | None
    until: str | None
    overdue_at_start: int
    healthy: int
    suspended: int
    activations: int


@final
class EndSelfPreservationResult(TypedDict):
    """Whether a hold was on, which is over now."""

    status: Literal["success"]
    ended: bool
    message: str


@final
class Health(TypedDict):
    """How the replica is that answered."""

    status: Literal["healthy", "degraded"]
    instance: str
    ready: bool
    resource_version: str | None
    timeline: str | None
    staleness_seconds: float
    change_notifications: str
    leader: Leader
    outage: Outage
    self_preservation: SelfPreservation
    warnings: list[str]
    service: str
    version: str
    uptime_seconds: float
    timestamp: str


@final
class Readiness(TypedDict):
    """Whether a replica takes requests."""

    status: Literal["ready", "not_ready"]


@final
class Metrics(TypedDict):
    """Numbers of the whole mesh; `uptime_seconds` is the answering replica's own."""

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
    """What the service is."""

    service: str
    version: str
    endpoints: list[str]
