"""The tools format, one call for all functions of an agent, and the registration parsed from it."""

import json
from typing import Any

import pytest

from registry.errors import UnprocessableRequest
from registry.model.registration.parse import Registration, parse_registration

GREET: dict[str, Any] = {
    "function_name": "greet",
    "capability": "greeting",
    "version": "1.0.0",
    "tags": ["demo"],
    "description": "Greets",
    "input_schema": {"type": "object"},
    "dependencies": ["weather", {"capability": "date_service", "version": ">=1.0.0", "tags": ["a", ["b", "+c"], "-d"]}],
}
GOODBYE: dict[str, Any] = {"function_name": "farewell", "capability": "goodbye"}


def tools_document(*tools: dict[str, Any], metadata: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a registration in tools format."""
    return {
        "agent_id": "a",
        "metadata": {"endpoint": "http://a:1", "tools": list(tools), **(metadata or {})},
        **fields,
    }


def spec_of(registration: Registration) -> Any:
    """Return the stored spec as an object."""
    return json.loads(registration.spec)


def test_tools_become_capabilities_with_their_function_name() -> None:
    """The endpoint moves to its place in the native format; the rest of the metadata stays."""
    sent = tools_document(GREET, GOODBYE, metadata={"team": "a"}, timestamp="2026-01-01T00:00:00Z", color="red")

    registration = parse_registration(sent)

    assert spec_of(registration) == {
        "id": "a",
        "endpoint": "http://a:1",
        "color": "red",
        "metadata": {"team": "a"},
        "capabilities": [
            {
                **{key: value for key, value in GREET.items() if key != "capability"},
                "name": "greeting",
                "dependencies": [{"capability": "weather"}, GREET["dependencies"][1]],
            },
            {"name": "goodbye", "function_name": "farewell"},
        ],
    }
    assert registration.capabilities == ("greeting", "goodbye")
    assert registration.constraints == (("metadata.tools[0].dependencies[1].version", ">=1.0.0"),)
    assert registration.counts_as_heartbeat
    assert registration.resolves_dependencies


def test_a_later_timestamp_does_not_change_the_spec() -> None:
    """The time of sending is not a property of the agent."""
    first, second = (parse_registration(tools_document(GREET, timestamp=moment)) for moment in ("1", "2"))

    assert first.spec == second.spec


def test_a_stored_spec_can_be_sent_again() -> None:
    """It has the native format, where function names still distinguish capabilities of the same name."""
    registration = parse_registration(tools_document(GREET, {**GREET, "function_name": "hail"}))

    assert parse_registration(spec_of(registration)).spec == registration.spec


ACCEPTED: dict[str, dict[str, Any]] = {
    "no tools": tools_document(),
    "two tools share a capability": tools_document(GREET, {**GREET, "function_name": "hail"}),
    "endpoint outside": {"agent_id": "a", "endpoint": "http://a:1", "metadata": {"tools": [GREET]}},
    "endpoint in both places": tools_document(GREET, endpoint="http://a:1"),
    "endpoint in metadata, capabilities outside": {
        "id": "a",
        "metadata": {"endpoint": "http://a:1"},
        "capabilities": ["c"],
    },
    "a function called like another's capability": tools_document(
        GREET, {"function_name": "greeting", "capability": "x"}
    ),
    "optional fields null": tools_document({**GOODBYE, "version": None, "tags": None, "dependencies": None}),
    "unknown fields": tools_document({**GOODBYE, "kwargs": {"x": 1}}),
    "a dependency of every kind": tools_document(
        {
            **GOODBYE,
            "dependencies": [
                {"capability": "x", "version": None, "tags": None, "namespace": None, "strategy": None, "key": None},
                {"capability": "x", "version": "", "tags": [], "namespace": "*", "strategy": "sticky", "key": "k"},
                {"capability": "x", "tags": ["", "+", "-", [], ["-x"]], "required": True},
            ],
        }
    ),
}

REJECTED: dict[str, tuple[dict[str, Any], str]] = {
    "no function name": (tools_document({"capability": "x"}), "metadata.tools[0].function_name"),
    "no capability": (tools_document({"function_name": "x"}), "metadata.tools[0].capability"),
    "a function twice": (
        tools_document(GREET, {**GOODBYE, "function_name": "greet"}),
        "metadata.tools[1].function_name",
    ),
    "a function called *": (tools_document({**GOODBYE, "function_name": "*"}), "metadata.tools[0].function_name"),
    "no endpoint": ({"agent_id": "a", "metadata": {"tools": [GREET]}}, "metadata.endpoint"),
    "two endpoints": (tools_document(GREET, endpoint="http://other"), "metadata.endpoint"),
    "a bad endpoint": (tools_document(metadata={"endpoint": "ftp://a"}), "metadata.endpoint"),
    "a bad address": (tools_document(metadata={"endpoint": "http://[::g]"}), "metadata.endpoint"),
    "tools that are no list": (tools_document(metadata={"tools": {}}), "metadata.tools"),
    "tools and capabilities": (tools_document(GREET, capabilities=["c"]), "metadata.tools"),
    "a bad version": (tools_document({**GREET, "version": "1.x"}), "metadata.tools[0].version"),
    "a dependency without a name": (
        tools_document({**GREET, "dependencies": [{"version": "1"}]}),
        "metadata.tools[0].dependencies[0].capability",
    ),
    "nested tags": (
        tools_document({**GREET, "dependencies": [{"capability": "x", "tags": [["a", ["b"]]]}]}),
        "metadata.tools[0].dependencies[0].tags[0][1]",
    ),
    "an unknown strategy": (
        tools_document({**GREET, "dependencies": [{"capability": "x", "strategy": "luck"}]}),
        "metadata.tools[0].dependencies[0].strategy",
    ),
    "too many dependencies": (
        tools_document(*({**GREET, "function_name": f"f{n}", "dependencies": ["x"] * 1000} for n in range(11))),
        "metadata.tools[10].dependencies",
    ),
    "a weight below 0": (tools_document({**GREET, "weight": -1}), "metadata.tools[0].weight"),
}


@pytest.mark.parametrize("document", ACCEPTED.values(), ids=ACCEPTED)
def test_a_valid_tools_document_is_accepted(document: dict[str, Any]) -> None:
    """Its spec is the same when it is parsed again."""
    registration = parse_registration(document)

    assert parse_registration(spec_of(registration)).spec == registration.spec


@pytest.mark.parametrize(("document", "field"), REJECTED.values(), ids=REJECTED)
def test_an_invalid_tools_document_is_rejected_by_field(document: dict[str, Any], field: str) -> None:
    """The path is the one in the document sent."""
    with pytest.raises(UnprocessableRequest) as error:
        parse_registration(document)

    assert [detail.field for detail in error.value.details] == [field]


def test_both_endpoints_are_validated() -> None:
    """An invalid endpoint is named also if the other one would replace it."""
    with pytest.raises(UnprocessableRequest) as error:
        parse_registration(tools_document(GREET, endpoint="ftp://a", metadata={"endpoint": "ftp://a"}))

    assert [detail.field for detail in error.value.details] == ["endpoint", "metadata.endpoint"]


def test_tools_beside_capabilities_are_validated() -> None:
    """Bad fields of both lists are named, and that only one list is allowed."""
    bad_tool = {"function_name": "a b", "version": "1.x"}
    with pytest.raises(UnprocessableRequest) as error:
        parse_registration(tools_document(bad_tool, capabilities=[{"name": "c", "weight": -1}]))

    assert [detail.field for detail in error.value.details] == [
        "capabilities[0].weight",
        "metadata.tools[0].capability",
        "metadata.tools[0].version",
        "metadata.tools[0].function_name",
        "metadata.tools",
    ]


@pytest.mark.parametrize("endpoint", [{"endpoint": "http://a:1"}, {}])
def test_an_empty_list_of_capabilities_does_not_hide_the_tools(endpoint: dict[str, Any]) -> None:
    """Some agents always send the list; next to an endpoint, their tools were once taken for free metadata."""
    sent = tools_document(GREET, capabilities=[]) | endpoint

    assert parse_registration(sent).capabilities == parse_registration(tools_document(GREET)).capabilities


def test_metadata_of_the_native_format_stays_free() -> None:
    """If endpoint and capabilities are in their own fields, those in the metadata have no meaning."""
    sent = {"id": "a", "endpoint": "http://a:1", "capabilities": ["c"], "metadata": {"endpoint": 7, "tools": "many"}}

    registration = parse_registration(sent)

    assert spec_of(registration)["metadata"] == sent["metadata"]
    assert not registration.counts_as_heartbeat
    assert not registration.resolves_dependencies


def test_capabilities_of_the_same_name_require_function_names() -> None:
    """This holds in the native format too."""
    with pytest.raises(UnprocessableRequest) as error:
        parse_registration({"id": "a", "endpoint": "http://a", "capabilities": ["c", {"name": "c"}]})

    assert [detail.field for detail in error.value.details] == ["capabilities[1].name"]
