r"""The fields of a registration and the rules for their values.

The server validates requests against these Structs and publishes them as JSON schema. A `title` describes a field, a
`description` its valid values: the text of an error is "<field> must be <description>".

The patterns are valid in Python and in ECMAScript. They end in `(?!\n)$`, because Python's `$` also matches before a
line break at the end, and list all blanks, because `\s` differs between the two languages.
"""

from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta, Struct
from msgspec.json import schema_components

DEFAULT_NAMESPACE: Final = "default"
DEFAULT_AGENT_TYPE: Final = "default"
DEFAULT_SECURITY_CONTEXT: Final = "standard"
DEFAULT_VERSION: Final = "1.0.0"
DEFAULT_STABILITY: Final = "stable"
DEFAULT_WEIGHT: Final = 1.0
WHOLE_AGENT: Final = "*"
"""The reserved function name that stands for the agent as a whole."""

MAX_CAPABILITIES: Final = 1_000
MAX_ANNOTATIONS_BYTES: Final = 256 * 1024
"""Maximum size of all keys and values of an agent's annotations together, as in Kubernetes."""

_LINE_BREAKS = r"\u2028\u2029"
_CONTROL = r"\x00-\x1f\x7f-\x9f" + _LINE_BREAKS
_BLANK = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u202f\u205f\u3000\ufeff" + _LINE_BREAKS

_PORT = r"0*(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_NOT_IN_HOST = rf"{_BLANK}/?#@:\[\]\\<>{{}}|^%`\x22'"
_HOST = rf"(?:\[[0-9A-Fa-f:.]+\]|[^{_NOT_IN_HOST}.\-][^{_NOT_IN_HOST}]*)"
_ENDPOINT = rf"[hH][tT][tT][pP][sS]?://{_HOST}(?::{_PORT})?(?:[/?#][^{_BLANK}]*)?"

_LABEL_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DNS_NAME = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
_ANY_CASE_DNS_NAME = _DNS_NAME.replace("a-z", "A-Za-z")
_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_SEMVER = rf"v?[0-9]+(?:\.[0-9]+){{0,2}}(?:-{_IDENTIFIERS})?(?:\+{_IDENTIFIERS})?"


def _any_case(*words: str) -> str:
    """Return a pattern for these words in upper or lower case."""
    return "|".join("".join(f"[{letter}{letter.upper()}]" for letter in word) for word in words)


_PEP_440 = (
    r"[vV]?(?:[0-9]+!)?[0-9]+(?:\.[0-9]+)*"
    rf"(?:[-_.]?(?:{_any_case('alpha', 'beta', 'preview', 'pre', 'rc', 'a', 'b', 'c')})[-_.]?[0-9]*)?"
    rf"(?:-[0-9]+|[-_.]?(?:{_any_case('post', 'rev', 'r')})[-_.]?[0-9]*)?"
    rf"(?:[-_.]?{_any_case('dev')}[-_.]?[0-9]*)?(?:\+[0-9A-Za-z]+(?:[-_.][0-9A-Za-z]+)*)?"
)


def _text(description: str, pattern: str, min_length: int | None = None, max_length: int | None = None) -> Meta:
    """Return the rule for strings that match a pattern as a whole."""
    whole = f"^{pattern}(?!\\n)$"
    return Meta(description=description, pattern=whole, min_length=min_length, max_length=max_length)


AgentId: TypeAlias = Annotated[
    str, _text("an id of 1 to 253 letters, digits and . _ : -", r"(?!\.{1,2}$)[A-Za-z0-9._:-]+", 1, 253)
]
LineText: TypeAlias = Annotated[
    str, _text("1 to 253 characters without line breaks or other control characters", rf"[^{_CONTROL}]+", 1, 253)
]
Word: TypeAlias = Annotated[
    str, _text("1 to 253 characters without blanks or control characters", rf"[^{_BLANK}]+", 1, 253)
]
LongText: TypeAlias = Annotated[str, Meta(max_length=10_000, description="a string of at most 10,000 characters")]
Namespace: TypeAlias = Annotated[
    str,
    _text(
        "1 to 63 lower-case letters, digits and -, beginning and ending with a letter or digit",
        r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?",
        max_length=63,
    ),
]
Endpoint: TypeAlias = Annotated[
    str,
    _text(
        "an http or https URL with a host, without user or password, no blanks, ports up to 65535, at most 2,048 long",
        _ENDPOINT,
        max_length=2048,
    ),
]
# A text is converted to seconds before the fields are validated, so only the published schema lists the type string.
Seconds: TypeAlias = Annotated[
    float,
    Meta(
        gt=0,
        le=365 * 24 * 3600,
        description="a duration above 0 and at most a year: a number of seconds, or text with a unit such as 30s",
        extra_json_schema={"type": ["number", "string"]},
    ),
]
LabelKey: TypeAlias = Annotated[
    str,
    _text(
        "a Kubernetes label key: an optional DNS name/, then 1 to 63 letters, digits and - _ .",
        rf"(?:(?=.{{1,253}}/){_DNS_NAME}/)?{_LABEL_NAME}",
    ),
]
LabelValue: TypeAlias = Annotated[
    str, _text("a Kubernetes label value: at most 63 letters, digits and inside also - _ .", rf"(?:{_LABEL_NAME})?")
]
AnnotationKey: TypeAlias = Annotated[
    str,
    _text(
        "a Kubernetes annotation key: an optional DNS name/, then 1 to 63 letters, digits, - _ .",
        rf"(?:(?=.{{1,253}}/){_ANY_CASE_DNS_NAME}/)?{_LABEL_NAME}",
    ),
]
CapabilityVersion: TypeAlias = Annotated[
    str,
    _text(
        "a version of semver.org or Python (PEP 440), such as 1.2.0, v2.0.0-rc.1 or 1.0.0rc1",
        f"(?:{_SEMVER}|{_PEP_440})",
        max_length=253,
    ),
]
Stability: TypeAlias = Annotated[
    Literal["alpha", "beta", "experimental", "stable", "deprecated"],
    Meta(description="one of alpha, beta, experimental, stable, deprecated"),
]
Weight: TypeAlias = Annotated[float, Meta(ge=0, le=1_000_000, description="a number from 0 to 1000000")]
Flag: TypeAlias = Annotated[bool, Meta(description="true or false")]
JsonObject: TypeAlias = Annotated[dict[str, Any], Meta(description="an object")]
Labels: TypeAlias = Annotated[dict[LabelKey, LabelValue], Meta(description="an object of strings")]
Annotations: TypeAlias = Annotated[dict[AnnotationKey, str], Meta(description="an object of strings")]
Tags: TypeAlias = Annotated[list[Word], Meta(max_length=100, description="a list of at most 100 tags")]
ResourceVersion: TypeAlias = Annotated[
    Annotated[str, Meta(max_length=253)] | Annotated[int, Meta(ge=0, le=2**63 - 1)],
    Meta(description="a resource version: a string of at most 253 characters, or a number from 0"),
]

Strategy: TypeAlias = Literal["best", "round_robin", "random", "least_loaded", "sticky", "weighted", "local"]
Tag: TypeAlias = Annotated[str, Meta(max_length=253, description="a tag of at most 253 characters")]
TagRequirements: TypeAlias = Annotated[
    list[
        Annotated[
            Tag | Annotated[list[Tag], Meta(max_length=100, description="a list of at most 100 tags")],
            Meta(description="a tag, or a list of alternative tags"),
        ]
    ],
    Meta(max_length=100, description="a list of at most 100 tags, or lists of them"),
]
Constraint: TypeAlias = Annotated[str, Meta(max_length=256, description="a constraint of at most 256 characters")]
NamespaceOrAny: TypeAlias = Annotated[
    str, _text("a namespace, or * for any", r"(?:\*|[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)", max_length=63)
]
StrategyName: TypeAlias = Annotated[
    Strategy, Meta(description="one of best, round_robin, random, least_loaded, sticky, weighted, local")
]


class DependencySchema(Struct, frozen=True, kw_only=True, gc=False):
    """A required or optional capability; fields not named here are stored and returned."""

    capability: Annotated[Word, Meta(title="Name of the capability")]
    version: Annotated[Constraint, Meta(title="Version constraint, default any version")] | None = None
    tags: (
        Annotated[
            TagRequirements, Meta(title="Tags: t is required, +t preferred, -t excluded; a nested list needs one")
        ]
        | None
    ) = None
    namespace: (
        Annotated[NamespaceOrAny, Meta(title="Namespace to search, default the agent's own; * for any")] | None
    ) = None
    strategy: Annotated[StrategyName, Meta(title="Selection strategy, default best")] | None = None
    key: Annotated[LongText, Meta(title="Affinity key for strategy sticky, default the agent id")] | None = None
    required: (
        Annotated[Flag, Meta(title="If true, callers are not offered the function while this is unresolved")] | None
    ) = None


Dependencies: TypeAlias = Annotated[
    list[
        Annotated[DependencySchema | Word, Meta(description="a capability's name or an object with it as `capability`")]
    ],
    Meta(max_length=1_000, description="a list of at most 1,000 dependencies"),
]


class CapabilitySchema(Struct, frozen=True, kw_only=True, gc=False):
    """A capability of an agent; fields not named here are stored and returned."""

    name: Annotated[Word, Meta(title="Name, unique within the agent")]
    description: Annotated[LongText, Meta(title="Description for humans")] | None = None
    category: Annotated[Word, Meta(title="Category")] | None = None
    version: Annotated[CapabilityVersion, Meta(title=f"Version, default {DEFAULT_VERSION}")] | None = None
    stability: Annotated[Stability, Meta(title=f"Stability, default {DEFAULT_STABILITY}")] | None = None
    tags: Annotated[Tags, Meta(title="Tags")] | None = None
    input_schema: Annotated[JsonObject, Meta(title="JSON schema of the input")] | None = None
    function_name: Annotated[Word, Meta(title="Function name, unique within the agent")] | None = None
    weight: Annotated[Weight, Meta(title="Weight for strategy weighted, default 1")] | None = None
    dependencies: Annotated[Dependencies, Meta(title="Required or optional dependencies")] | None = None


Capabilities: TypeAlias = Annotated[
    list[Annotated[CapabilitySchema | Word, Meta(description="an object with a name, or a capability's name")]],
    Meta(max_length=MAX_CAPABILITIES, description=f"a list of at most {MAX_CAPABILITIES:,} capabilities"),
]


class RegistrationSchema(Struct, frozen=True, kw_only=True, gc=False):
    """The registration of an agent; fields not named here are stored and returned, null means absent."""

    id: Annotated[AgentId, Meta(title="Id of the agent in the mesh")] | None = None
    agent_id: Annotated[AgentId, Meta(title="Alias of id")] | None = None
    name: Annotated[LineText, Meta(title="Display name, default the id")] | None = None
    namespace: Annotated[Namespace, Meta(title=f"Namespace, default {DEFAULT_NAMESPACE}")] | None = None
    agent_type: Annotated[Word, Meta(title=f"Agent type, default {DEFAULT_AGENT_TYPE}")] | None = None
    endpoint: Annotated[Endpoint, Meta(title="Base URL of the agent")]
    capabilities: Annotated[Capabilities, Meta(title="Capabilities of the agent")] | None = None
    dependencies: Annotated[Dependencies, Meta(title="Dependencies of the agent as a whole")] | None = None
    labels: Annotated[Labels, Meta(title="Kubernetes labels, for label selectors")] | None = None
    annotations: Annotated[Annotations, Meta(title="Annotations, at most 256 KiB in total")] | None = None
    security_context: (
        Annotated[LineText, Meta(title=f"Security context, default {DEFAULT_SECURITY_CONTEXT}")] | None
    ) = None
    health_interval: Annotated[Seconds, Meta(title="Time between two heartbeats")] | None = None
    timeout_threshold: Annotated[Seconds, Meta(title="Time without a heartbeat until degraded")] | None = None
    eviction_threshold: Annotated[Seconds, Meta(title="Time without a heartbeat until expired")] | None = None
    metadata: Annotated[JsonObject, Meta(title="Free-form metadata")] | None = None
    exclusive: (
        Annotated[Flag, Meta(title="If true, reject it while an agent with this id lives at another endpoint")] | None
    ) = None
    resource_version: (
        Annotated[ResourceVersion, Meta(title="Precondition: expected resource version; 0 if the agent must not exist")]
        | None
    ) = None


def dependency_schema() -> dict[str, Any]:
    """Return the JSON schema of a dependency; each call returns a new object."""
    (root,), components = schema_components([DependencySchema], ref_template="{name}")
    schema: dict[str, Any] = _inline_refs(root, components)
    return schema


def registration_schema() -> dict[str, Any]:
    """Return the JSON schema of a registration; each call returns a new object, without references.

    Rules between fields are left out, but an id is required under one of its names, an endpoint in one of its places.
    """
    (root, capability), components = schema_components([RegistrationSchema, CapabilitySchema], ref_template="{name}")
    schema: dict[str, Any] = _inline_refs(root, components)
    metadata = _tools_metadata_schema(_inline_refs(capability, components), schema["properties"]["endpoint"])
    del schema["required"]
    return schema | {
        "anyOf": [{"required": ["id"]}, {"required": ["agent_id"]}],
        "allOf": [
            {"anyOf": [{"required": ["endpoint"]}, {"required": ["metadata"], "properties": {"metadata": metadata}}]}
        ],
    }


def _tools_metadata_schema(capability: dict[str, Any], endpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of the `metadata` of a registration in the tools format."""
    fields = dict(capability["properties"])
    word = {key: value for key, value in fields.pop("name").items() if key != "title"}
    del fields["function_name"]
    tool = {
        "title": "Tool",
        "description": "One function of the agent; fields not named here are stored and returned.",
        "type": "object",
        "properties": {
            "function_name": {"title": "Function name, unique within the agent"} | word,
            "capability": {"title": "Capability that the function provides; functions can share one"} | word,
            **fields,
        },
        "required": ["function_name", "capability"],
    }
    return {
        "title": "ToolsMetadata",
        "description": "The endpoint and the functions of an agent that registers in the tools format.",
        "type": "object",
        "properties": {
            "endpoint": _nullable(endpoint),
            "tools": _nullable(
                {
                    "title": "Functions of the agent",
                    "description": f"a list of at most {MAX_CAPABILITIES:,} tools",
                    "type": "array",
                    "items": tool,
                    "maxItems": MAX_CAPABILITIES,
                }
            ),
        },
        "required": ["endpoint"],
    }


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}], "default": None}


def _inline_refs(schema: Any, components: dict[str, Any]) -> Any:
    """Replace each `$ref` by its target, because references do not resolve in a schema nested in another one."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inline_refs(components[schema["$ref"]], components)
        return {key: _inline_refs(value, components) for key, value in schema.items()}
    return [_inline_refs(each, components) for each in schema] if isinstance(schema, list) else schema
