"""The mcp-mesh format: as lenient as upstream, compared call by call."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.compat.mcpmesh.registration import (
    FORMAT_NAME,
    parse_mcpmesh_registration,
)
from registry.compat.mcpmesh.spec_fields import provider_kwargs
from registry.errors import MalformedRequest, UnprocessableRequest
from registry.model.agent import IndexedSpec, decode_indexed_spec
from registry.model.registration.parse import parse_registration

BASE: dict[str, Any] = {
    "agent_id": "x-1",
    "name": "x",
    "agent_type": "mcp_agent",
    "http_host": "127.0.0.1",
    "http_port": 9000,
    "tools": [],
}


def spec(**fields: Any) -> dict[str, Any]:
    """Return the canonical spec of a registration with these fields; ... leaves one out."""
    decoded: dict[str, Any] = orjson.loads(parse_mcpmesh_registration(body(**fields)).registration.spec)
    return decoded


def body(**fields: Any) -> dict[str, Any]:
    """Return a registration with these fields."""
    return {name: value for name, value in (BASE | fields).items() if value is not ...}


def indexed_spec(**fields: Any) -> IndexedSpec:
    """Return the indexed spec of a registration with these fields."""
    return decode_indexed_spec(parse_mcpmesh_registration(body(**fields)).registration.spec)


def tool(**fields: Any) -> list[dict[str, Any]]:
    """Return one tool."""
    return [{"function_name": "f", "capability": "c", **fields}]


def tool_with_dependency(**fields: Any) -> list[dict[str, Any]]:
    """Return one tool with one dependency."""
    return tool(dependencies=[{"capability": "d", **fields}])


VALID: list[dict[str, Any]] = [
    {"agent_id": "x--y"},
    {"agent_id": "a" * 253},
    {"name": "a" * 63},
    {"name": ..., "http_host": ..., "http_port": ..., "agent_type": ...},
    {"name": None, "namespace": None, "agent_type": None, "runtime": None, "version": None, "tools": None},
    {"agent_type": "api"},
    {"agent_type": "a2a"},
    {"runtime": "java"},
    {"http_port": 0},
    {"http_host": ""},
    {"http_host": "[::1]"},
    {"http_host": "my_host.internal"},
    {"version": "banana"},
    {"version": ""},
    {"status": "degraded"},
    {"status": 5},
    {"metadata": 7, "labels": "x", "capabilities": 3, "endpoint": [], "dependencies": {}},
    {"surfaces": [{"a": 1}], "llm_agents": None, "unknown": {"deep": [1, None]}},
    {"tools": ...},
    {"tools": [{}]},
    {"tools": [{"capability": "c"}]},
    {"tools": [{"function_name": "f"}]},
    {"tools": [{"function_name": "f", "capability": ""}]},
    {"tools": tool(capability="bad cap!")},
    {"tools": tool(version="banana")},
    {"tools": tool(version="")},
    {"tools": [*tool(), *tool(capability="d")]},
    {"tools": [*tool(), *tool(function_name="g")]},
    {"tools": tool(tags=None, dependencies=None, inputSchema=None, kwargs=None, description=None)},
    {"tools": tool(tags=[], dependencies=[], weight="x", stability=1, category=[], name=4)},
    {"tools": tool_with_dependency(version="banana")},
    {"tools": tool_with_dependency(strategy="unheard of", key=7, matchMode=3, expectedSchemaHash=[])},
    {"tools": tool_with_dependency(tags=["a", ["b", "c"]], required=None)},
    {"tools": tool(dependencies=[{}])},
    {"tools": tool(dependencies=[{"capability": "d"}, {"capability": "d"}])},
    {"tools": tool(llm_filter=None, llm_provider={"capability": "llm", "version": ""})},
    {"tools": tool(outputSchemaHash=5, outputSchemaCanonical=[1], schemaWarnings=["w"])},
]


@pytest.mark.parametrize("fields", VALID, ids=str)
def test_valid_registrations_are_accepted(fields: dict[str, Any]) -> None:
    """The stored spec can be decoded again."""
    assert indexed_spec(**fields).format is not None


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"agent_id": "X_1"}, "agent_id must contain only lowercase alphanumeric characters and hyphens"),
    ({"agent_id": "x_1"}, "agent_id must contain only"),
    ({"agent_id": "x-"}, "agent_id must contain only"),
    ({"agent_id": "-x"}, "agent_id must contain only"),
    ({"agent_id": "x\n"}, "agent_id must contain only"),
    ({"agent_id": "a" * 254}, "agent_id cannot exceed 253 characters"),
    ({"name": "Bad_Name"}, "name must contain only"),
    ({"name": "a" * 64}, "name cannot exceed 63 characters"),
    ({"name": ""}, "name cannot be empty"),
    ({"namespace": "NS"}, "namespace must contain only"),
    ({"namespace": "a" * 64}, "namespace cannot exceed 63 characters"),
    ({"namespace": ""}, "namespace cannot be empty"),
    ({"agent_type": "zzz"}, "unknown agent_type 'zzz'"),
    ({"agent_type": ""}, "unknown agent_type ''"),
    ({"runtime": "cobol"}, "unknown runtime 'cobol'"),
    ({"http_port": -1}, "must be 0 to 65535"),
    ({"http_port": 65536}, "must be 0 to 65535"),
    ({"http_host": "a b"}, "must be a host name"),
    ({"http_host": "a/b"}, "must be a host name"),
    ({"http_host": "user@a"}, "must be a host name"),
    ({"http_host": "a" * 254}, "must be a host name"),
    ({"tools": [{"capability": "c", "tags": ["t"] * 1001}]}, "at most 1,000 tags"),
    ({"tools": [{"dependencies": [{"capability": "c", "tags": ["t", ["u"] * 1000]}]}]}, "at most 1,000 tags"),
    ({"tools": tool() * 1001}, "at most 1,000 tools"),
    ({"tools": tool(dependencies=[{"capability": "d"}] * 10_001)}, "at most 1,000 tools and 10,000 dependencies"),
    ({"tools": tool(capability="c" * 1001)}, "cannot exceed 1,000 characters"),
    ({"tools": tool(tags=["c" * 1001])}, "cannot exceed 1,000 characters"),
    ({"tools": tool_with_dependency(tags=[["c" * 1001]])}, "cannot exceed 1,000 characters"),
    ({"tools": tool_with_dependency(version="1" * 1001)}, "cannot exceed 1,000 characters"),
]


@pytest.mark.parametrize(("fields", "problem"), INVALID, ids=lambda value: str(value)[:60])
def test_an_invalid_value_is_rejected_by_field(fields: dict[str, Any], problem: str) -> None:
    """The HTTP response is a 200 with an error in it."""
    with pytest.raises(UnprocessableRequest) as caught:
        parse_mcpmesh_registration(body(**fields))

    (detail,) = caught.value.details
    assert detail.field in fields
    assert problem in detail.problem
    assert str(caught.value) == f"validation failed: {detail.field}: {detail.problem}"


WRONG_TYPES: list[dict[str, Any]] = [
    {"agent_id": ...},
    {"agent_id": ""},
    {"agent_id": None},
    {"agent_id": 5},
    {"http_port": "80"},
    {"http_port": True},
    {"version": 5},
    {"tools": "x"},
    {"tools": [1]},
    {"tools": tool(dependencies=["d"])},
    {"tools": tool(tags="x")},
    {"tools": tool(tags=[1])},
    {"tools": tool(inputSchema="x")},
    {"tools": tool_with_dependency(tags=[["a", ["b"]]])},
    {"tools": tool_with_dependency(required="yes")},
]


@pytest.mark.parametrize("fields", WRONG_TYPES, ids=str)
def test_a_field_of_a_wrong_type_is_malformed(fields: dict[str, Any]) -> None:
    """So is a missing id; the HTTP response is a 400, as upstream."""
    with pytest.raises(MalformedRequest) as caught:
        parse_mcpmesh_registration(body(**fields))

    assert caught.value.details


def test_several_problems_are_reported_at_once() -> None:
    """The message contains the first three, the details all of them."""
    with pytest.raises(UnprocessableRequest) as caught:
        parse_mcpmesh_registration(body(agent_id="A", name="B", namespace="C", runtime="d"))

    assert [detail.field for detail in caught.value.details] == ["agent_id", "name", "namespace", "runtime"]
    assert str(caught.value).count(";") == 2


@pytest.mark.parametrize(
    ("fields", "endpoint"),
    [
        ({}, "http://127.0.0.1:9000"),
        ({"http_host": "::1"}, "http://[::1]:9000"),
        ({"http_host": "[::1]"}, "http://[::1]:9000"),
        ({"http_port": 0}, "stdio://x-1"),
        ({"http_port": None}, "stdio://x-1"),
        ({"http_host": ""}, "stdio://x-1"),
        ({"endpoint": "http://elsewhere:1"}, "http://127.0.0.1:9000"),
    ],
)
def test_the_endpoint_is_built_from_host_and_port(fields: dict[str, Any], endpoint: str) -> None:
    """Without one of them, the agent is reachable for its parent process only."""
    assert indexed_spec(**fields).endpoint == endpoint


def test_a_tool_with_a_name_is_a_capability_and_one_without_is_a_route() -> None:
    """A route has dependencies and provides nothing."""
    indexed = indexed_spec(
        tools=[
            *tool(version="1.2.0", tags=["t"], inputSchema={"type": "object"}, kwargs={"k": 1}),
            {"function_name": "GET:/d", "capability": "", "dependencies": [{"capability": "c", "required": True}]},
        ]
    )

    assert [(each.name, each.tool_name, each.version, each.tags) for each in indexed.capabilities] == [
        ("c", "f", "1.2.0", ("t",))
    ]
    assert [each.name for each in indexed.llm_tools] == ["c"]
    assert provider_kwargs(indexed.capabilities[0]) == b'{"k":1}'
    assert dict(indexed.functions)["GET:/d"][0].capability == "c"
    assert list(indexed.required_edges) == []
    assert indexed.dependency_names == {"c"}


def test_fields_of_the_native_format_are_ignored() -> None:
    """A client may use their names with another meaning."""
    indexed = indexed_spec(
        labels={"a": "b"},
        dependencies=["z"],
        capabilities=["y"],
        registration_format={"routes": [{"name": "evil"}]},
        timeout_threshold=1,
        health_interval=1,
        tools=tool(
            weight=9, stability="deprecated", input_schema=5, dependencies=[{"capability": "d", "strategy": "random"}]
        ),
    )

    assert (indexed.labels, indexed.dependencies, indexed.dependency_names) == ({}, (), {"d"})
    assert indexed.format is not None
    assert indexed.format.routes == ()
    (capability,) = indexed.capabilities
    assert (capability.weight, capability.stability, [*indexed.llm_tools]) == (1, "stable", [])
    assert capability.dependencies[0].strategy is None
    registration = parse_mcpmesh_registration(body(timeout_threshold=1, health_interval=1)).registration
    assert (registration.timeout_threshold, registration.health_interval, registration.format) == (
        None,
        None,
        FORMAT_NAME,
    )


def test_a_native_registration_cannot_set_its_format() -> None:
    """A client may send back an agent as it was shown; the format in it is ignored."""
    sent = {"id": "a", "endpoint": "http://a:1", "registration_format": {"name": "mcp-mesh", "routes": []}}

    assert decode_indexed_spec(parse_registration(sent).spec).format is None


def test_equivalent_registrations_have_the_same_spec() -> None:
    """Empty fields, unknown fields and the status make no difference."""
    verbose = spec(status="healthy", tools=tool(tags=[], version=None, description=""), namespace=None, a=None)

    assert verbose == spec(status="degraded", timestamp="2026-11-21T00:22:34Z", tools=tool(), namespace=...)


def test_a_long_description_is_truncated_with_a_warning() -> None:
    """Its length is measured in characters."""
    parsed = parse_mcpmesh_registration(body(description="é" * 300))

    assert orjson.loads(parsed.registration.spec)["description"] == "é" * 256
    assert parsed.warnings == ("description truncated from 300 to 256 chars",)
    assert parse_mcpmesh_registration(body(description="é" * 256)).warnings == ()


def test_blanks_around_a_description_are_removed() -> None:
    """They do not count for its length; a blank description is none."""
    parsed = parse_mcpmesh_registration(body(description=f" \n{'x' * 256}\t"))

    assert (orjson.loads(parsed.registration.spec)["description"], parsed.warnings) == ("x" * 256, ())
    assert spec(description=" \n ") == spec()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 70_000) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
NAMES = st.sampled_from(
    [
        "function_name",
        "capability",
        "version",
        "tags",
        "dependencies",
        "kwargs",
        "llm_filter",
        "weight",
        "required",
        "name",
    ]
)
FIELDS = st.sampled_from(
    ["name", "namespace", "agent_type", "http_host", "http_port", "endpoint", "registration_format", "id"]
)
TOOLS = st.lists(
    st.dictionaries(NAMES, JSON | st.lists(st.dictionaries(NAMES, JSON, max_size=3), max_size=2), max_size=4),
    max_size=3,
)


@given(st.dictionaries(FIELDS, JSON, max_size=4), TOOLS)
def test_any_registration_is_accepted_completely_or_rejected(fields: dict[str, Any], tools: Any) -> None:
    """The stored spec can always be decoded."""
    try:
        registration = parse_mcpmesh_registration({"agent_id": "x-1", **fields, "tools": tools}).registration
    except (MalformedRequest, UnprocessableRequest):
        return

    indexed = decode_indexed_spec(registration.spec)
    assert indexed.format is not None
    assert indexed.namespace == registration.namespace
    assert len(indexed.capabilities) + len(indexed.format.routes) == len(tools)
    assert tuple(each.name for each in indexed.capabilities) == registration.capabilities
