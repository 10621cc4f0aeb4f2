"""The flat form: as lenient as the registry that mesh clients were written for, measured call by call."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.compat.mcpmesh.registration import (
    FORMAT_NAME,
    MARKER_FIELDS,
    is_mcpmesh_registration,
    parse_mcpmesh_registration,
)
from registry.compat.mcpmesh.spec import provider_kwargs
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
    read: dict[str, Any] = orjson.loads(parse_mcpmesh_registration(body(**fields)).registration.spec)
    return read


def body(**fields: Any) -> dict[str, Any]:
    """Return a registration with these fields."""
    return {name: value for name, value in (BASE | fields).items() if value is not ...}


def profile(**fields: Any) -> IndexedSpec:
    """Return what filters look at."""
    return decode_indexed_spec(parse_mcpmesh_registration(body(**fields)).registration.spec)


def tool(**fields: Any) -> list[dict[str, Any]]:
    """Return one tool."""
    return [{"function_name": "f", "capability": "c", **fields}]


def needing(**fields: Any) -> list[dict[str, Any]]:
    """Return one tool with one dependency."""
    return tool(dependencies=[{"capability": "d", **fields}])


@pytest.mark.parametrize("mark", MARKER_FIELDS)
def test_any_mark_makes_it_flat(mark: str) -> None:
    """Whatever stands there; `status` and `metadata` alone are a heartbeat of the other form."""
    assert is_mcpmesh_registration({"agent_id": "a", mark: None})
    assert not is_mcpmesh_registration({"agent_id": "a", "status": "healthy", "metadata": {mark: 1}})


TAKEN: list[dict[str, Any]] = [
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
    {"tools": needing(version="banana")},
    {"tools": needing(strategy="unheard of", key=7, matchMode=3, expectedSchemaHash=[])},
    {"tools": needing(tags=["a", ["b", "c"]], required=None)},
    {"tools": tool(dependencies=[{}])},
    {"tools": tool(dependencies=[{"capability": "d"}, {"capability": "d"}])},
    {"tools": tool(llm_filter=None, llm_provider={"capability": "llm", "version": ""})},
    {"tools": tool(outputSchemaHash=5, outputSchemaCanonical=[1], schemaWarnings=["w"])},
]


@pytest.mark.parametrize("fields", TAKEN, ids=str)
def test_what_mesh_clients_may_send_is_taken(fields: dict[str, Any]) -> None:
    """And can be read back as the profile of an agent in flat form."""
    assert profile(**fields).format is not None


SEMANTIC: list[tuple[dict[str, Any], str]] = [
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
    ({"tools": needing(tags=[["c" * 1001]])}, "cannot exceed 1,000 characters"),
    ({"tools": needing(version="1" * 1001)}, "cannot exceed 1,000 characters"),
]


@pytest.mark.parametrize(("fields", "says"), SEMANTIC, ids=lambda value: str(value)[:60])
def test_what_no_agent_may_be_is_refused_by_field(fields: dict[str, Any], says: str) -> None:
    """These become 200 with an error in it."""
    with pytest.raises(UnprocessableRequest) as caught:
        parse_mcpmesh_registration(body(**fields))

    (detail,) = caught.value.details
    assert detail.field in fields
    assert says in detail.problem
    assert str(caught.value) == f"validation failed: {detail.field}: {detail.problem}"


TYPES: list[dict[str, Any]] = [
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
    {"tools": needing(tags=[["a", ["b"]]])},
    {"tools": needing(required="yes")},
]


@pytest.mark.parametrize("fields", TYPES, ids=str)
def test_a_field_of_another_type_is_malformed(fields: dict[str, Any]) -> None:
    """And so is an agent without an id: 400, as there."""
    with pytest.raises(MalformedRequest) as caught:
        parse_mcpmesh_registration(body(**fields))

    assert caught.value.details


def test_several_problems_are_told_at_once() -> None:
    """The first three in the sentence, all of them in the details."""
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
def test_the_endpoint_is_where_the_agent_says_it_listens(fields: dict[str, Any], endpoint: str) -> None:
    """Nowhere is with its parent process."""
    assert profile(**fields).endpoint == endpoint


def test_a_tool_becomes_a_capability_and_one_without_a_name_a_route() -> None:
    """A route needs things and provides nothing: it is under no name, and nobody's requirement."""
    found = profile(
        tools=[
            *tool(version="1.2.0", tags=["t"], inputSchema={"type": "object"}, kwargs={"k": 1}),
            {"function_name": "GET:/d", "capability": "", "dependencies": [{"capability": "c", "required": True}]},
        ]
    )

    assert [(each.name, each.tool_name, each.version, each.tags) for each in found.capabilities] == [
        ("c", "f", "1.2.0", ("t",))
    ]
    assert [each.name for each in found.llm_tools] == ["c"]
    assert provider_kwargs(found.capabilities[0]) == b'{"k":1}'
    assert dict(found.functions)["GET:/d"][0].capability == "c"
    assert found.required_edges == set()
    assert found.dependency_names == {"c"}


def test_what_only_the_other_form_means_is_not_taken_for_it() -> None:
    """A field with a name of the registry's own must not be read as that."""
    found = profile(
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

    assert (found.labels, found.dependencies, found.dependency_names) == ({}, (), {"d"})
    assert found.format is not None
    assert found.format.routes == ()
    (capability,) = found.capabilities
    assert (capability.weight, capability.stability, [*found.llm_tools]) == (1, "stable", [])
    assert capability.dependencies[0].strategy is None
    registration = parse_mcpmesh_registration(body(timeout_threshold=1, health_interval=1)).registration
    assert (registration.timeout_threshold, registration.health_interval, registration.format) == (
        None,
        None,
        FORMAT_NAME,
    )


def test_a_registration_of_the_other_form_never_becomes_flat() -> None:
    """What an agent was shown as can be sent back; by which rules it finds others it cannot say."""
    sent = {"id": "a", "endpoint": "http://a:1", "registration_format": {"name": "mcp-mesh", "routes": []}}

    assert decode_indexed_spec(parse_registration(sent).spec).format is None


def test_what_says_the_same_is_the_same() -> None:
    """However it is sent: a healthy agent that is degraded, or leaves out what is empty, changes nothing."""
    said = spec(status="healthy", tools=tool(tags=[], version=None, description=""), namespace=None, a=None)

    assert said == spec(status="degraded", timestamp="2026-11-21T00:22:34Z", tools=tool(), namespace=...)


def test_a_long_description_is_cut_and_told_of() -> None:
    """By characters."""
    flat = parse_mcpmesh_registration(body(description="é" * 300))

    assert orjson.loads(flat.registration.spec)["description"] == "é" * 256
    assert flat.warnings == ("description truncated from 300 to 256 chars",)
    assert parse_mcpmesh_registration(body(description="é" * 256)).warnings == ()


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
def test_whatever_is_sent_is_taken_whole_or_refused(fields: dict[str, Any], tools: Any) -> None:
    """And what is taken can always be read back."""
    try:
        registration = parse_mcpmesh_registration({"agent_id": "x-1", **fields, "tools": tools}).registration
    except (MalformedRequest, UnprocessableRequest):
        return

    found = decode_indexed_spec(registration.spec)
    assert found.format is not None
    assert found.namespace == registration.namespace
    assert len(found.capabilities) + len(found.format.routes) == len(tools)
    assert tuple(each.name for each in found.capabilities) == registration.capabilities
