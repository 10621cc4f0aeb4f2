"""TypedDicts of resolved dependencies, explanations of their resolution, and the dependency graph."""

from typing import Any, NotRequired, TypedDict, final


class Provider(TypedDict):
    """The provider of a dependency: its agent, its endpoint and the tool to call."""

    agent_id: str
    endpoint: str
    tool_name: str


ResolvedProviders = dict[str, dict[str, Provider | None]]
UnresolvedReasons = dict[str, dict[str, str]]


class Candidate(TypedDict):
    """An agent with the required capability, and the stage at which it was rejected or chosen."""

    agent_id: str
    tool_name: str
    version: str
    status: str
    score: int
    stage: str
    reason: str | None


class DependencyExplanation(TypedDict):
    """Explains one dependency: its requirements, its provider or the reason for none, and the candidates."""

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
    """An earlier resolution of an agent's dependencies, with its reasons."""

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
    """A function with a dependency that a given agent provides; `alternatives` counts the other providers."""

    agent_id: str
    function: str
    capability: str
    tool_name: str
    alternatives: int
    only_provider: bool


@final
class AgentDependents(TypedDict):
    """The functions of other agents whose dependencies one agent provides."""

    agent_id: str
    dependents: list[Dependent]
    count: int
    resource_version: str
    stale_seconds: NotRequired[float]


class DependencyEdge(TypedDict):
    """One dependency in the graph of the mesh; `reason` states why it has no provider."""

    agent_id: str
    function: str
    capability: str
    provider: Provider | None
    reason: NotRequired[str]


@final
class DependencyGraph(TypedDict):
    """All dependencies of the mesh, the unresolved dependencies, and the cycles between agents."""

    dependencies: list[DependencyEdge]
    count: int
    unresolved: list[DependencyEdge]
    cycles: list[list[str]]
    resource_version: str
    stale_seconds: NotRequired[float]
