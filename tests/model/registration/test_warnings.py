"""A valid registration gets a warning for each field that is nearly a known one, and for endpoints that cannot work."""

from typing import Any

import pytest

from registry.model.registration.parse import parse_registration
from registry.model.registration.warnings import MAX_WARNINGS
from tests.support.http_calls import a_registration


def tools_format(**metadata: Any) -> dict[str, Any]:
    """Return a registration in the tools format."""
    return {"agent_id": "a", "metadata": {"endpoint": "http://a:1"} | metadata}


def near_fields(document: dict[str, Any], prefix: str = "") -> list[tuple[str, str | None]]:
    """Return the field of each warning and the known field that it names."""
    return [(each.field, each.did_you_mean) for each in parse_registration(document, prefix).warnings]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (a_registration(capabilites=["w"]), ("capabilites", "capabilities")),
        (a_registration(endpont="http://b"), ("endpont", "endpoint")),
        (a_registration(capabilities=["x", {"name": "c", "versoin": "1"}]), ("capabilities[1].versoin", "version")),
        (
            a_registration(capabilities=[{"name": "c", "inputSchema": {}}]),
            ("capabilities[0].inputSchema", "input_schema"),
        ),
        (
            a_registration(dependencies=["x", {"capability": "y", "require": True}]),
            ("dependencies[1].require", "required"),
        ),
        (
            a_registration(capabilities=[{"name": "c", "dependencies": [{"capability": "y", "tag": ["t"]}]}]),
            ("capabilities[0].dependencies[0].tag", "tags"),
        ),
        (tools_format(tool=[]), ("metadata.tool", "tools")),
        (
            tools_format(tools=[{"function_name": "f", "capability": "c", "dependency": ["x"]}]),
            ("metadata.tools[0].dependency", "dependencies"),
        ),
    ],
)
def test_a_field_that_is_nearly_a_known_one_is_stored_with_a_warning(
    document: dict[str, Any], expected: tuple[str, str]
) -> None:
    """The path is that of the request."""
    assert near_fields(document) == [expected]
    assert near_fields(document, "agents[7].") == [(f"agents[7].{expected[0]}", expected[1])]
    (warning,) = parse_registration(document).warnings
    assert "it is stored and has no effect" in warning.problem


@pytest.mark.parametrize(
    "document",
    [
        a_registration(owner="x", version="1.0", cost_center=1, description="y"),
        a_registration(metadata={"endpont": 1, "tool": []}),
        a_registration(status="healthy", draining=True, created_at="", updated_at="", last_heartbeat=None),
        tools_format(tools=[], owner="x") | {"timestamp": "now", "agent_type": "t"},
        a_registration(
            team="t", tier=1, node="n", role="r", kind="k", nape="", capabilities=[{"name": "c", "tabs": 1}]
        ),
    ],
)
def test_another_unknown_field_causes_no_warning(document: dict[str, Any]) -> None:
    """Unknown fields and metadata are free."""
    assert near_fields(document) == []


def test_warnings_are_limited() -> None:
    """A registration may have very many unknown fields."""
    many = [{"name": f"c{number}", "versoin": "1"} for number in range(1000)]

    assert len(near_fields(a_registration(capabilities=many))) == MAX_WARNINGS


UNSPECIFIED = [
    *("http://0.0.0.0:8080/mcp", "http://[::]:8080", "http://[0:0:0:0:0:0:0:0]/"),
    *(
        "http://0",
        "http://0:8080/mcp",
        "http://0x0/mcp",
        "http://0.0.",
        "http://[::ffff:0.0.0.0]:1",
        "http://[::ffff:0:0]",
    ),
]
LOOPBACK = [
    "http://localhost:1",
    "http://127.0.0.1/mcp",
    "http://127.8.8.8:1",
    "https://[::1]:1/",
    "http://a.localhost",
    *(
        "http://127.1:1/mcp",
        "http://2130706433",
        "http://0x7f.1:1",
        "http://0177.0.0.1.",
        "http://[::ffff:127.0.0.1]:1",
    ),
]


@pytest.mark.parametrize("endpoint", UNSPECIFIED)
def test_an_unspecified_address_causes_a_warning(endpoint: str) -> None:
    """It is an address to listen on, and none to connect to."""
    (warning,) = parse_registration(a_registration(endpoint=endpoint)).warnings

    assert warning.field == "endpoint"
    assert warning.problem.startswith("callers cannot connect to an unspecified address")


@pytest.mark.parametrize("endpoint", LOOPBACK)
def test_a_loopback_address_causes_a_warning_if_another_host_sent_it(endpoint: str) -> None:
    """On the host of the registry it works."""
    assert parse_registration(a_registration(endpoint=endpoint), "", lambda: False).warnings == ()
    (warning,) = parse_registration(tools_format(endpoint=endpoint), "", lambda: True).warnings

    assert warning.field == "metadata.endpoint"
    assert warning.problem.startswith("callers cannot connect to a loopback address")


@pytest.mark.parametrize(
    "endpoint",
    [
        *("http://a:1", "http://localhosts:1", "http://10.127.0.0.1.nip.io", "http://[fd00::1]", "http://213.0.0.1:1"),
        *("http://0.example", "http://0a:1", "http://[::ffff:10.0.0.1]", "http://a/0", "http://10.0.0.0:1"),
    ],
)
def test_another_endpoint_causes_no_warning(endpoint: str) -> None:
    """Every caller can connect to it, or at least resolve it."""
    assert parse_registration(a_registration(endpoint=endpoint), "", lambda: True).warnings == ()
