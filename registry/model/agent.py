"""The types of an agent and its registered fields, and the keys under which indexes find agents."""

from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from registry.model.dependency_graph import ANY_NAMESPACE, Edge
from registry.model.registration.schema import (
    DEFAULT_NAMESPACE,
    DEFAULT_STABILITY,
    DEFAULT_VERSION,
    DEFAULT_WEIGHT,
    WHOLE_AGENT,
    Strategy,
)

Status = Literal["pending", "healthy", "degraded", "expired"]
STATUSES: tuple[Status, ...] = get_args(Status)


# The key of tools for language models with this tag; None stands for any tag.
ToolTag: TypeAlias = tuple[Literal["tool"], str | None]
# The key of a lookup: the name of a capability, or a tag of tools.
LookupKey: TypeAlias = str | ToolTag

NATIVE_FORMAT: Final = "native"
"""The name of the registry's own registration format."""

# The value of a raw JSON field that was not sent; compare it by identity.
ABSENT: Final = msgspec.Raw()


class Dependency(msgspec.Struct, frozen=True, gc=False):
    """A capability that an agent or one of its functions requires or can use; see `DependencySchema`."""

    capability: str
    version: str | None = None
    tags: tuple[str | tuple[str, ...], ...] | None = None
    namespace: str | None = None
    strategy: Strategy | None = None
    key: str | None = None
    required: bool | None = None

    @property
    def match_key(self) -> tuple[object, ...]:
        """The fields a provider must match; dependencies of one namespace with equal keys have the same providers.

        The last item is the condition that a subclass adds, None without one: then the key of both classes is the same.
        """
        return self.capability, self.version, self.tags, None

    @property
    def extension_bytes(self) -> int:
        """The bytes of memory that the fields of a subclass add to `match_key`."""
        return 0


class Capability(msgspec.Struct, frozen=True, gc=False):
    """The fields of a capability that indexes and filters read; its other fields are only in the agent's `spec`."""

    name: str
    version: str = DEFAULT_VERSION
    stability: str = DEFAULT_STABILITY
    category: str | None = None
    tags: tuple[str, ...] = ()
    description: str = ""
    function_name: str | None = None
    weight: float = DEFAULT_WEIGHT
    dependencies: tuple[Dependency, ...] = ()
    input_schema: msgspec.Raw = ABSENT

    @property
    def tool_name(self) -> str:
        """The name under which callers call the capability: its function's name or, without a function, its own."""
        return self.function_name or self.name


class FormatData(msgspec.Struct, frozen=True, gc=False):
    """The name of the non-native format in which an agent registered, and the data that only this format has.

    `routes` are functions that have dependencies and provide no capability.
    """

    name: str
    routes: tuple[Capability, ...] = ()


class IndexedSpec(msgspec.Struct, frozen=True, gc=False):
    """The fields of a registration that indexes and filters read, with defaults, decoded directly from JSON.

    `format` is set for another format than the native one, and selects the agent's match policy and response format.
    """

    namespace: str = DEFAULT_NAMESPACE
    endpoint: str = ""
    capabilities: tuple[Capability, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    labels: dict[str, str] = {}
    health_interval: float | None = None
    format: FormatData | None = msgspec.field(default=None, name="registration_format")

    @property
    def format_name(self) -> str:
        """The name of the format in which the agent registered."""
        return NATIVE_FORMAT if self.format is None else self.format.name

    @property
    def functions(self) -> Iterator[tuple[str, tuple[Dependency, ...]]]:
        """Each function with its dependencies; the dependencies of the agent as a whole come last, under `*`."""
        for capability in self.capabilities:
            if capability.function_name or capability.dependencies:
                yield capability.tool_name, capability.dependencies
        if self.format is not None:
            for route in self.format.routes:
                yield route.tool_name, route.dependencies
        if self.dependencies:
            yield WHOLE_AGENT, self.dependencies

    @property
    def dependencies_by_function(self) -> Iterator[tuple[str, Dependency]]:
        """Pairs of a function name and one dependency of this function."""
        return ((function, dependency) for function, dependencies in self.functions for dependency in dependencies)

    @property
    def searches_all_namespaces(self) -> bool:
        """Whether the dependencies of the agent have providers in any namespace, whatever they name."""
        return False

    def capability_node(self, name: str) -> str:
        """Return a capability of the agent as a node of the graph of required dependencies, `<namespace>/<name>`."""
        return f"{self.namespace}/{name}"

    def dependency_node(self, dependency: Dependency) -> str:
        """Return the capability that a dependency requires as a node; its namespace is `*` if any one is searched."""
        namespace = ANY_NAMESPACE if self.searches_all_namespaces else dependency.namespace or self.namespace
        return f"{namespace}/{dependency.capability}"

    @property
    def required_edges(self) -> Iterator[Edge]:
        """Pairs of nodes: a capability and one that it requires; a pair can occur more than once.

        There can be very many: each capability has the dependencies of the agent as a whole.
        """
        for capability in self.capabilities:
            for dependency in (*capability.dependencies, *self.dependencies):
                if dependency.required:
                    yield self.capability_node(capability.name), self.dependency_node(dependency)

    @property
    def llm_tools(self) -> Iterator[Capability]:
        """The capabilities that language models can use as tools: those with an input schema."""
        for capability in self.capabilities:
            if capability.input_schema is not ABSENT:
                yield capability

    @property
    def dependency_names(self) -> set[str]:
        """The names of all capabilities that the agent depends on."""
        return {each.capability for _, group in self.functions for each in group}

    @property
    def round_robin(self) -> set[str]:
        """The names of the capabilities whose providers the agent selects by round robin."""
        return {each.capability for _, group in self.functions for each in group if each.strategy == "round_robin"}

    @property
    def zone(self) -> str | None:
        """The zone of the agent, from its label `zone` or the zone label of Kubernetes."""
        return self.labels.get("zone") or self.labels.get("topology.kubernetes.io/zone")


class Agent(msgspec.Struct, frozen=True, gc=False):
    """An agent as one change left it: its registration, status, times and versions.

    `spec` is its registration as canonical JSON. `version` is the resource version of its last change of any kind,
    `spec_version` that of the last change of `spec`. An agent that is `draining` stays registered, but is not selected
    as a provider. `created` and `updated` are Redis-server milliseconds; `timeout` and `eviction` are milliseconds
    without a heartbeat until it is degraded and until it is expired.
    """

    id: str
    spec: bytes
    status: Status
    draining: bool
    version: int
    spec_version: int
    created: int
    updated: int
    timeout: int
    eviction: int
    indexed: IndexedSpec

    @property
    def heartbeat_interval_ms(self) -> int:
        """The expected time between two heartbeats: the registered interval, otherwise half the timeout."""
        interval_s = self.indexed.health_interval
        return round(interval_s * 1000) if interval_s else self.timeout // 2

    @property
    def late_after_ms(self) -> int:
        """The time since the last heartbeat after which the next one is late: one and a half intervals."""
        return self.heartbeat_interval_ms * 3 // 2


class StoredAgent(msgspec.Struct, frozen=True, gc=False):
    """An agent and its last heartbeat in milliseconds of the Redis server, None before the first heartbeat."""

    agent: Agent
    heartbeat: int | None


class _SpecDecoder:
    """Decodes registrations to the type that `use_spec_type` selected."""

    decode: Callable[[bytes], IndexedSpec] = staticmethod(msgspec.json.Decoder(IndexedSpec).decode)


def use_spec_type(spec_type: type[IndexedSpec]) -> None:
    """Decode all registrations of this process to `spec_type`, which adds index fields of another format."""
    _SpecDecoder.decode = msgspec.json.Decoder(spec_type).decode


def decode_indexed_spec(spec: bytes) -> IndexedSpec:
    """Decode the index fields of a stored registration. Raises msgspec.DecodeError for invalid JSON or fields."""
    return _SpecDecoder.decode(spec)
