"""TypedDicts of resolved dependencies, their explanation and the dependency graph."""

from typing import Any, NotRequired, TypedDict, final


class Provider(TypedDict):
    """The provider of a dependency: its agent, its endpoint and the tool to call."""

    agent_id: str
    endpoint: str
    tool_name: str


ResolvedProviders = dict[str, dict[str, Provider | None]]
UnresolvedReasons = dict[str, dict[str, str]]


class Candidate(TypedDict):
    """An agent with the capability, and the stage at which it was rejected or chosen."""

    agent_id: str
    tool_name: str
    version: str
    status: str
    score: int
    stage: str
    reason: str | None


class DependencyExplanation(TypedDict):
    """One dependency: its requirements, its provider or the reason for none, and the candidates."""

    capability: str
    strategy: str
    version: NotRequired[str]
    tags: NotRequired[list[Any]]
    namespace: NotRequired[str]
    key: NotRequired[str]
    chosen: Provider | None
    reason: str | None
    considered: int
    candidates: list[Candidate]


class ResolutionTrace(TypedDict):
    """An earlier resolution, with its reasons."""

    timestamp: str
    resource_version: str
    dependencies_version: str
    explanation: dict[str, list[DependencyExplanation]]


@final
class AgentDependencies(TypedDict):
    """The resolved dependencies of an agent; with `explain` also `explanation` and `recent_resolutions`."""

    agent_id: str
    dependencies_resolved: NotRequired[ResolvedProviders]
    dependencies_unresolved: NotRequired[UnresolvedReasons]
    dependencies_version: NotRequired[str]
    explanation: NotRequired[dict[str, list[DependencyExplanation]]]
    recent_resolutions: NotRequired[list[ResolutionTrace]]
    resource_version: str
    stale_seconds: NotRequired[float]


class Dependent(TypedDict):
    """A function with a dependency that an agent provides; `alternatives` counts the other providers."""

    agent_id: str
    function: str
    capability: str
    tool_name: str
    alternatives: int
    only_provider: bool


@final
class AgentDependents(TypedDict):
    """The functions whose dependencies an agent satisfies."""

    agent_id: str
    dependents: list[Dependent]
    count: int
    resource_version: str
    stale_seconds: NotRequired[float]


class DependencyEdge(TypedDict):
    """One dependency of the mesh; `reason` states why it has no provider."""

    agent_id: str
    function: str
    capability: str
    provider: Provider | None
    reason: NotRequired[str]


@final
class DependencyGraph(TypedDict):
    """All dependencies of the mesh, the unresolved ones, and the cycles of agents."""

    dependencies: list[DependencyEdge]
    count: int
    unresolved: list[DependencyEdge]
    cycles: list[list[str]]
    resource_version: str
    stale_seconds: NotRequired[float]
