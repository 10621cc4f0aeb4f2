"""An agent as the registry holds it, and what others look it up by."""

from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeAlias, get_args

import msgspec

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


# A tag of tools for language models; None for any tool.
ToolTag: TypeAlias = tuple[Literal["tool"], str | None]
# What somebody looks for: a capability, or tools.
LookupKey: TypeAlias = str | ToolTag

NATIVE_FORMAT: Final = "native"
"""The name of the registry's own registration format."""

# A part of a spec that is kept as it was sent, and is not there. There is one, so that it is known by its identity.
ABSENT: Final = msgspec.Raw()


class Dependency(msgspec.Struct, frozen=True, gc=False):
    """A capability that an agent or one of its functions requires; `DependencySchema` describes the fields."""

    capability: str
    version: str | None = None
    tags: tuple[str | tuple[str, ...], ...] | None = None
    namespace: str | None = None
    strategy: Strategy | None = None
    key: str | None = None
    required: bool | None = None

    @property
    def match_key(self) -> tuple[object, ...]:
        """All that a provider must match: dependencies with equal keys share a ranking in the same namespace."""
        return self.capability, self.version, self.tags

    @property
    def extension_bytes(self) -> int:
        """The size of the data that a subclass adds to `match_key`."""
        return 0


class Capability(msgspec.Struct, frozen=True, gc=False):
    """The fields of a capability that indexes and filters read; the others are only in the agent's `spec`."""

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
        """The name callers use: the name of its function, or its own name if it has no function."""
        return self.function_name or self.name


class FormatData(msgspec.Struct, frozen=True, gc=False):
    """The format an agent registered in, other than the native one, and data that only this format has.

    `routes` are functions that have dependencies and provide no capability.
    """

    name: str
    routes: tuple[Capability, ...] = ()


class IndexedSpec(msgspec.Struct, frozen=True, gc=False):
    """The part of a spec that filters look at, with the defaults of the API filled in. Read straight from the JSON.

    `format` is set if the agent registered in another format than the native one. It selects the match policy and the
    response format of the agent.
    """

    namespace: str = DEFAULT_NAMESPACE
    endpoint: str = ""
    capabilities: tuple[Capability, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    labels: dict[str, str] = {}
    format: FormatData | None = msgspec.field(default=None, name="registration_format")

    @property
    def format_name(self) -> str:
        """The name of the format the agent registered in."""
        return NATIVE_FORMAT if self.format is None else self.format.name

    @property
    def functions(self) -> Iterator[tuple[str, tuple[Dependency, ...]]]:
        """Each function with what it needs; what the agent as a whole needs comes last, under `*`."""
        for capability in self.capabilities:
            if capability.function_name or capability.dependencies:
                yield capability.tool_name, capability.dependencies
        if self.format is not None:
            for route in self.format.routes:
                yield route.tool_name, route.dependencies
        if self.dependencies:
            yield WHOLE_AGENT, self.dependencies

    @property
    def required_edges(self) -> set[tuple[str, str]]:
        """Each of its capabilities with one that it cannot do without."""
        return set(self.iter_required_edges)

    @property
    def iter_required_edges(self) -> Iterator[tuple[str, str]]:
        """The same one by one, which can be very many: all capabilities need all that the agent as a whole needs."""
        for capability in self.capabilities:
            for need in (*capability.dependencies, *self.dependencies):
                if need.required:
                    yield capability.name, need.capability

    @property
    def llm_tools(self) -> Iterator[Capability]:
        """Each capability that a language model may be given as a tool: one with a schema of its input."""
        for capability in self.capabilities:
            if capability.input_schema is not ABSENT:
                yield capability

    @property
    def dependency_names(self) -> set[str]:
        """The names of the capabilities it depends on."""
        return {need.capability for _, needs in self.functions for need in needs}

    @property
    def round_robin(self) -> set[str]:
        """The names of the capabilities it takes turns at with others."""
        return {need.capability for _, needs in self.functions for need in needs if need.strategy == "round_robin"}

    @property
    def zone(self) -> str | None:
        """Where the agent runs, by its label `zone` or the one of Kubernetes."""
        return self.labels.get("zone") or self.labels.get("topology.kubernetes.io/zone")


class Agent(msgspec.Struct, frozen=True, gc=False):
    """One agent after one change.

    `spec` is what it registered, as canonical JSON. `version` is the resource version of its last change of any kind,
    `spec_version` that of the last change of what it says of itself. While it is `draining` it lives on, and nobody
    is to be sent to it. `created` and `updated` are Redis-server milliseconds; `timeout` and `eviction` are
    milliseconds without a heartbeat until degraded and until expired.
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


class StoredAgent(msgspec.Struct, frozen=True, gc=False):
    """An agent with its last heartbeat in Redis-server milliseconds, None before the first: what a fill reads."""

    agent: Agent
    heartbeat: int | None


class _SpecDecoder:
    """Decodes specs to the type that was selected."""

    decode: Callable[[bytes], IndexedSpec] = staticmethod(msgspec.json.Decoder(IndexedSpec).decode)


def use_spec_type(spec_type: type[IndexedSpec]) -> None:
    """Decode all specs of this process to `spec_type`, which adds the index fields of other registration formats."""
    _SpecDecoder.decode = msgspec.json.Decoder(spec_type).decode


def decode_indexed_spec(spec: bytes) -> IndexedSpec:
    """Read the index fields of a canonical spec. Raises msgspec.DecodeError for invalid JSON or fields."""
    return _SpecDecoder.decode(spec)
