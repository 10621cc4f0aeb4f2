"""The batched form: one call for all functions of an agent, which stand under `metadata.tools`."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from registry.model.registration.schema import (
    DEFAULT_STABILITY,
    DEFAULT_VERSION,
    MAX_CAPABILITIES,
    CapabilityVersion,
    Dependencies,
    DependencySchema,
    Endpoint,
    JsonObject,
    LongText,
    RegistrationSchema,
    Stability,
    Weight,
    Word,
)
from registry.model.validation.errors import Violation, describe_value


class ToolSchema(Struct, frozen=True, kw_only=True, gc=False):
    """One function of an agent that registers in batched form; it becomes a capability."""

    function_name: Annotated[Word, Meta(title="Name of the function, once per agent")]
    capability: Annotated[Word, Meta(title="Name of what it can do; several functions may do the same")]
    description: Annotated[LongText, Meta(title="What it does, for people")] | None = None
    category: Annotated[Word, Meta(title="Group it belongs to")] | None = None
    version: Annotated[CapabilityVersion, Meta(title=f"Version, {DEFAULT_VERSION} when absent")] | None = None
    stability: Annotated[Stability, Meta(title=f"How settled it is, {DEFAULT_STABILITY} when absent")] | None = None
    tags: (
        Annotated[list[Word], Meta(max_length=100, title="Free words", description="a list of at most 100 tags")] | None
    ) = None
    input_schema: Annotated[JsonObject, Meta(title="JSON schema of its input")] | None = None
    weight: Annotated[Weight, Meta(title="Share of the calls for strategy weighted, 1 when absent")] | None = None
    dependencies: Annotated[Dependencies, Meta(title="Capabilities it needs")] | None = None


class ToolsMetadataSchema(Struct, frozen=True, kw_only=True, gc=False):
    """The `metadata` of an agent that registers in batched form: one call for all its functions."""

    endpoint: Annotated[Endpoint, Meta(title="Where the agent answers")] | None = None
    tools: (
        Annotated[
            list[ToolSchema],
            Meta(
                max_length=MAX_CAPABILITIES,
                title="The agent's functions",
                description=f"a list of at most {MAX_CAPABILITIES:,} tools",
            ),
        ]
        | None
    ) = None


class ToolsRegistrationSchema(RegistrationSchema, frozen=True, kw_only=True, gc=False):
    """A registration whose endpoint or capabilities stand in its `metadata`.

    Two fields are another kind than in the other form; nothing takes one form for the other.
    """

    endpoint: Annotated[Endpoint, Meta(title="Where the agent answers")] | None = None  # type: ignore[assignment]
    metadata: Annotated[  # type: ignore[assignment]
        ToolsMetadataSchema, Meta(title="The batched form, and anything else", description="an object")
    ]


def is_tools_format(document: dict[str, Any]) -> bool:
    """Tell whether a registration is in batched form: its endpoint or its tools stand where only that form has them."""
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return False
    return (document.get("endpoint") is None and metadata.get("endpoint") is not None) or (
        not document.get("capabilities") and isinstance(metadata.get("tools"), list)
    )


def to_native(document: dict[str, Any]) -> dict[str, Any]:
    """Return a registration in batched form, which keeps every rule, as it would be in the other one.

    The moment of sending is nothing an agent says of itself: a `timestamp` is left out.
    """
    metadata = dict(document["metadata"])
    plain = {key: value for key, value in document.items() if key not in ("metadata", "timestamp")}
    plain["endpoint"] = metadata.pop("endpoint", None) or document["endpoint"]
    tools = metadata.pop("tools", None)
    if tools is not None:
        plain["capabilities"] = [_to_capability(tool) for tool in tools]
    if metadata:
        plain["metadata"] = metadata
    return plain


def find_conflicts(document: dict[str, Any]) -> Iterator[Violation]:
    """Yield what a registration in batched form says in two places, or in none."""
    metadata = document["metadata"]
    first, second = document.get("endpoint"), metadata.get("endpoint")
    if first is None and second is None:
        yield ((None, "metadata"), "endpoint"), "is required, here or as endpoint"
    elif first is not None and second is not None and first != second:
        yield (
            ((None, "metadata"), "endpoint"),
            f"must equal endpoint, which is {describe_value(first)}, or be left out; not {describe_value(second)}",
        )
    if document.get("capabilities") and metadata.get("tools") is not None:
        yield ((None, "metadata"), "tools"), "must be left out where there are capabilities"


def _to_capability(tool: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tool.items() if key != "capability"} | {"name": tool["capability"]}


def dependency_schema() -> dict[str, Any]:
    """Give the JSON schema of a dependency, an object of its own at each call."""
    (root,), forms = msgspec.json.schema_components([DependencySchema], ref_template="{name}")
    schema: dict[str, Any] = _inline_refs(root, forms)
    return schema


def registration_schema() -> dict[str, Any]:
    """Give the JSON schema of a registration, an object of its own at each call, which may stand anywhere in another.

    Rules between fields are not in it, except that an id is required under one of its two names, and an endpoint in one
    of its two places.
    """
    (root, batch), forms = msgspec.json.schema_components(
        [RegistrationSchema, ToolsMetadataSchema], ref_template="{name}"
    )
    schema: dict[str, Any] = _inline_refs(root, forms)
    batched: dict[str, Any] = _inline_refs(batch, forms) | {"required": ["endpoint"]}
    del schema["required"]
    return schema | {
        "anyOf": [{"required": ["id"]}, {"required": ["agent_id"]}],
        "allOf": [
            {"anyOf": [{"required": ["endpoint"]}, {"required": ["metadata"], "properties": {"metadata": batched}}]}
        ],
    }


def _inline_refs(schema: Any, components: dict[str, Any]) -> Any:
    """Put each form where it is referred to: a reference would be lost as soon as the schema stands in another."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inline_refs(components[schema["$ref"]], components)
        return {key: _inline_refs(value, components) for key, value in schema.items()}
    return [_inline_refs(each, components) for each in schema] if isinstance(schema, list) else schema
