"""The indexed fields of a registration that only the mcp-mesh SDKs send or read."""

from collections.abc import Iterator
from typing import Any

import msgspec

from registry.model.agent import ABSENT, Capability, Dependency, FormatData, IndexedSpec


class McpMeshDependency(Dependency, frozen=True, gc=False):
    """A dependency that can also require an output schema; the three fields are stored as sent, without validation."""

    schema_match_mode: Any = msgspec.field(default=None, name="matchMode")
    expected_schema_hash: Any = msgspec.field(default=None, name="expectedSchemaHash")
    expected_schema: msgspec.Raw = msgspec.field(default=ABSENT, name="expectedSchemaCanonical")

    @property
    def match_key(self) -> tuple[object, ...]:
        """The conditions that a provider must satisfy, as a cache key: capability, version, tags and schema."""
        return self.capability, self.version, self.tags, self.schema_requirement

    @property
    def extension_bytes(self) -> int:
        """The size of the expected output schema in bytes."""
        return 0 if self.schema_requirement is None else len(bytes(self.expected_schema))

    @property
    def schema_requirement(self) -> tuple[str, str, bytes] | None:
        """The match mode, hash and text of the expected output schema; None if any schema is accepted."""
        if not self.schema_match_mode or not isinstance(self.schema_match_mode, str):
            return None
        return (
            self.schema_match_mode,
            self.expected_schema_hash if isinstance(self.expected_schema_hash, str) else "",
            bytes(self.expected_schema),
        )


class McpMeshDependencySchema(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Schema of a dependency of a tool in the mcp-mesh format."""

    capability: str | None = None
    version: str | None = None
    tags: list[str | list[str]] | None = None
    namespace: str | None = None
    required: bool | None = None


class McpMeshCapability(Capability, frozen=True, gc=False):
    """A capability with the fields of the mcp-mesh SDKs, stored as sent, without validation."""

    dependencies: tuple[McpMeshDependency, ...] = ()
    output_schema: msgspec.Raw = msgspec.field(default=ABSENT, name="outputSchemaCanonical")
    output_schema_hash: Any = msgspec.field(default=None, name="outputSchemaHash")
    kwargs: msgspec.Raw = ABSENT
    llm_filter: msgspec.Raw = ABSENT
    llm_provider: msgspec.Raw = ABSENT


class McpMeshFormatData(FormatData, frozen=True, gc=False):
    """The HTTP routes of an agent as the mcp-mesh SDKs send them."""

    routes: tuple[McpMeshCapability, ...] = ()


class McpMeshSpec(IndexedSpec, frozen=True, gc=False):
    """The indexed fields of any agent, with those of the mcp-mesh SDKs, which native agents can send too."""

    capabilities: tuple[McpMeshCapability, ...] = ()
    dependencies: tuple[McpMeshDependency, ...] = ()
    format: McpMeshFormatData | None = msgspec.field(default=None, name="registration_format")


class McpMeshSpecOfAnyNamespace(McpMeshSpec, frozen=True, gc=False):
    """The indexed fields of an agent in a registry that does not isolate the namespaces of mcp-mesh agents."""

    @property
    def searches_all_namespaces(self) -> bool:
        """Whether this is an mcp-mesh agent."""
        return self.format is not None


def llm_functions(spec: IndexedSpec) -> Iterator[McpMeshCapability]:
    """Yield each function that filters tools for a language model or delegates to an LLM provider."""
    for function in (*spec.capabilities, *(spec.format.routes if spec.format is not None else ())):
        if isinstance(function, McpMeshCapability) and (
            function.llm_filter is not ABSENT or function.llm_provider is not ABSENT
        ):
            yield function


def schema_requirement(dependency: Dependency) -> tuple[str, str, bytes] | None:
    """Return the match mode, hash and text of a dependency's expected schema; None if it accepts any schema."""
    return dependency.schema_requirement if isinstance(dependency, McpMeshDependency) else None


def provider_kwargs(capability: Capability) -> bytes:
    """Return the `kwargs` of a capability as JSON; empty if it has none."""
    return bytes(capability.kwargs) if isinstance(capability, McpMeshCapability) else b""
