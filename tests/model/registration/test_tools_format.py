"""The batched form: one call for all functions of an agent, and what it becomes."""

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
FAREWELL: dict[str, Any] = {"function_name": "farewell", "capability": "goodbye"}


def a_batch(*tools: dict[str, Any], metadata: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a registration in batched form."""
    return {
        "agent_id": "a",
        "metadata": {"endpoint": "http://a:1", "tools": list(tools), **(metadata or {})},
        **fields,
    }


def spec_of(registration: Registration) -> Any:
    """Return what is stored."""
    return json.loads(registration.spec)


def test_tools_become_capabilities_that_carry_their_function() -> None:
    """And the endpoint stands where it stands in the other form; the rest of the metadata stays."""
    sent = a_batch(GREET, FAREWELL, metadata={"team": "a"}, timestamp="2026-01-01T00:00:00Z", color="red")

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


def test_sending_it_again_later_says_nothing_new() -> None:
    """The moment of sending is nothing an agent says of itself."""
    first, second = (parse_registration(a_batch(GREET, timestamp=moment)) for moment in ("1", "2"))

    assert first.spec == second.spec


def test_what_is_read_back_can_be_sent_as_it_is() -> None:
    """In the other form, where functions still tell capabilities of one name apart."""
    registration = parse_registration(a_batch(GREET, {**GREET, "function_name": "hail"}))

    assert parse_registration(spec_of(registration)).spec == registration.spec


ACCEPTED: dict[str, dict[str, Any]] = {
    "no tools": a_batch(),
    "two tools share a capability": a_batch(GREET, {**GREET, "function_name": "hail"}),
    "endpoint outside": {"agent_id": "a", "endpoint": "http://a:1", "metadata": {"tools": [GREET]}},
    "endpoint in both places": a_batch(GREET, endpoint="http://a:1"),
    "endpoint in metadata, capabilities outside": {
        "id": "a",
        "metadata": {"endpoint": "http://a:1"},
        "capabilities": ["c"],
    },
    "a function called like another's capability": a_batch(GREET, {"function_name": "greeting", "capability": "x"}),
    "optional fields null": a_batch({**FAREWELL, "version": None, "tags": None, "dependencies": None}),
    "unknown fields": a_batch({**FAREWELL, "kwargs": {"x": 1}}),
    "a dependency of every kind": a_batch(
        {
            **FAREWELL,
            "dependencies": [
                {"capability": "x", "version": None, "tags": None, "namespace": None, "strategy": None, "key": None},
                {"capability": "x", "version": "", "tags": [], "namespace": "*", "strategy": "sticky", "key": "k"},
                {"capability": "x", "tags": ["", "+", "-", [], ["-x"]], "required": True},
            ],
        }
    ),
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no function name": (a_batch({"capability": "x"}), "metadata.tools[0].function_name"),
    "no capability": (a_batch({"function_name": "x"}), "metadata.tools[0].capability"),
    "a function twice": (a_batch(GREET, {**FAREWELL, "function_name": "greet"}), "metadata.tools[1].function_name"),
    "a function called *": (a_batch({**FAREWELL, "function_name": "*"}), "metadata.tools[0].function_name"),
    "no endpoint": ({"agent_id": "a", "metadata": {"tools": [GREET]}}, "metadata.endpoint"),
    "two endpoints": (a_batch(GREET, endpoint="http://other"), "metadata.endpoint"),
    "a bad endpoint": (a_batch(metadata={"endpoint": "ftp://a"}), "metadata.endpoint"),
    "a bad address": (a_batch(metadata={"endpoint": "http://[::g]"}), "metadata.endpoint"),
    "tools that are no list": (a_batch(metadata={"tools": {}}), "metadata.tools"),
    "tools and capabilities": (a_batch(GREET, capabilities=["c"]), "metadata.tools"),
    "a bad version": (a_batch({**GREET, "version": "1.x"}), "metadata.tools[0].version"),
    "a dependency without a name": (
        a_batch({**GREET, "dependencies": [{"version": "1"}]}),
        "metadata.tools[0].dependencies[0].capability",
    ),
    "tags that are no tags": (
        a_batch({**GREET, "dependencies": [{"capability": "x", "tags": [["a", ["b"]]]}]}),
        "metadata.tools[0].dependencies[0].tags[0][1]",
    ),
    "a strategy nobody knows": (
        a_batch({**GREET, "dependencies": [{"capability": "x", "strategy": "luck"}]}),
        "metadata.tools[0].dependencies[0].strategy",
    ),
    "more dependencies than there may be": (
        a_batch(*({**GREET, "function_name": f"f{n}", "dependencies": ["x"] * 1000} for n in range(11))),
        "metadata.tools[10].dependencies",
    ),
    "a weight below 0": (a_batch({**GREET, "weight": -1}), "metadata.tools[0].weight"),
}


@pytest.mark.parametrize("document", ACCEPTED.values(), ids=ACCEPTED)
def test_a_good_batch_is_accepted(document: dict[str, Any]) -> None:
    """And means the same when it is read again."""
    registration = parse_registration(document)

    assert parse_registration(spec_of(registration)).spec == registration.spec


@pytest.mark.parametrize(("document", "field"), REFUSED.values(), ids=REFUSED)
def test_a_bad_batch_is_refused_by_field(document: dict[str, Any], field: str) -> None:
    """By its place in what was sent."""
    with pytest.raises(UnprocessableRequest) as refused:
        parse_registration(document)

    assert [detail.field for detail in refused.value.details] == [field]


@pytest.mark.parametrize("endpoint", [{"endpoint": "http://a:1"}, {}])
def test_an_empty_list_of_capabilities_hides_no_tools(endpoint: dict[str, Any]) -> None:
    """Some always send one: beside an endpoint the tools were free metadata then, and the agent could do nothing."""
    sent = a_batch(GREET, capabilities=[]) | endpoint

    assert parse_registration(sent).capabilities == parse_registration(a_batch(GREET)).capabilities


def test_free_metadata_of_the_other_form_stays_free() -> None:
    """Where an endpoint and capabilities stand in their places, nothing in the metadata is taken for them."""
    sent = {"id": "a", "endpoint": "http://a:1", "capabilities": ["c"], "metadata": {"endpoint": 7, "tools": "many"}}

    registration = parse_registration(sent)

    assert spec_of(registration)["metadata"] == sent["metadata"]
    assert not registration.counts_as_heartbeat
    assert not registration.resolves_dependencies


def test_capabilities_of_one_name_need_functions_to_be_told_apart() -> None:
    """In the other form, too."""
    with pytest.raises(UnprocessableRequest) as refused:
        parse_registration({"id": "a", "endpoint": "http://a", "capabilities": ["c", {"name": "c"}]})

    assert [detail.field for detail in refused.value.details] == ["capabilities[1].name"]
