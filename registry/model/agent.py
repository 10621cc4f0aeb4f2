"""An agent as the registry holds it, and what others look it up by."""

from collections.abc import Iterator
from typing import Literal, get_args

import msgspec

from registry.model.forms import (
    DEFAULT_NAMESPACE,
    DEFAULT_STABILITY,
    DEFAULT_VERSION,
    DEFAULT_WEIGHT,
    WHOLE_AGENT,
    Strategy,
)

Status = Literal["pending", "healthy", "degraded", "expired"]
STATUSES: tuple[Status, ...] = get_args(Status)


class Dependency(msgspec.Struct, frozen=True, gc=False):
    """A capability that is needed, and of which kind; see `DependencyForm` for what each field means."""

    capability: str
    version: str | None = None
    tags: tuple[str | tuple[str, ...], ...] | None = None
    namespace: str | None = None
    strategy: Strategy | None = None
    key: str | None = None


class Capability(msgspec.Struct, frozen=True, gc=False):
    """What the indexes and filters know of one capability; everything else stays in the agent's `spec`."""

    name: str
    version: str = DEFAULT_VERSION
    stability: str = DEFAULT_STABILITY
    category: str | None = None
    tags: tuple[str, ...] = ()
    description: str = ""
    function_name: str | None = None
    weight: float = DEFAULT_WEIGHT
    dependencies: tuple[Dependency, ...] = ()

    @property
    def tool(self) -> str:
        """What it is called by: its function, or its own name where it came without one."""
        return self.function_name or self.name


class Profile(msgspec.Struct, frozen=True, gc=False):
    """The part of a spec that filters look at, with the defaults of the API filled in. Read straight from the JSON."""

    namespace: str = DEFAULT_NAMESPACE
    endpoint: str = ""
    capabilities: tuple[Capability, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    labels: dict[str, str] = {}

    @property
    def functions(self) -> Iterator[tuple[str, tuple[Dependency, ...]]]:
        """Each function with what it needs; what the agent as a whole needs comes last, under `*`."""
        for capability in self.capabilities:
            if capability.function_name or capability.dependencies:
                yield capability.tool, capability.dependencies
        if self.dependencies:
            yield WHOLE_AGENT, self.dependencies

    @property
    def needs(self) -> set[str]:
        """The names of the capabilities it depends on."""
        return {need.capability for _, needs in self.functions for need in needs}

    @property
    def turns(self) -> set[str]:
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
    profile: Profile


class Held(msgspec.Struct, frozen=True, gc=False):
    """An agent with its last heartbeat in Redis-server milliseconds, None before the first: what a fill reads."""

    agent: Agent
    heartbeat: int | None


_read_profile = msgspec.json.Decoder(Profile).decode


def read_profile(spec: bytes) -> Profile:
    """Read what filters need from a canonical spec. Raises msgspec.DecodeError for one that is not."""
    return _read_profile(spec)
