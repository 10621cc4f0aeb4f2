"""Query strings and query objects: what is not understood is refused by name, never ignored."""

from typing import Any

import httpx2
import pytest

from tests.support.http_calls import error_fields, expect_error, register

# A query string and the field that its refusal names first.
REFUSED = {
    "/agents?capabilty=read": "capabilty",
    "/agents?nonsense=1": "nonsense",
    "/agents?namespace=a&namespace=b": "namespace",
    "/agents?status=a&status=b": "status",
    "/agents?resource_version=0&resource_version=0": "resource_version",
    "/agents?status=sleepy": "status",
    "/agents?status=Healthy": "status",
    "/agents?fuzzy_match=maybe": "fuzzy_match",
    "/agents?fuzzy_match=yes": "fuzzy_match",
    "/agents?resource_version=abc": "resource_version",
    "/agents?resource_version=-1": "resource_version",
    "/agents?resource_version=1.5": "resource_version",
    "/agents?resource_version=0x10": "resource_version",
    "/agents?resource_version=%D9%A1": "resource_version",
    "/agents?resource_version=123456789012345678901": "resource_version",
    "/agents?tags=io": "tags",
    "/agents?match=some": "match",
    "/agents?limit=0": "limit",
    "/agents?limit=10001": "limit",
    "/agents?limit=-1": "limit",
    "/agents?limit=many": "limit",
    "/agents?continue=abc": "continue",
    "/agents?limit=1&continue=abc": "continue",
    "/agents?watch=perhaps": "watch",
    "/agents?send_initial=true": "send_initial",
    "/agents?timeout=1s": "timeout",
    "/agents?watch=true&timeout=2h": "timeout",
    "/agents?watch=true&limit=1": "limit",
    "/agents?watch=true&fields=id": "fields",
    "/agents?watch=true&wait=1s": "wait",
    "/agents?wait=soon": "wait",
    "/agents?wait=1h": "wait",
    "/agents?wait=-1": "wait",
    "/agents?resource_version_match=Exact": "resource_version_match",
    "/agents?resource_version=5&resource_version_match=Newer": "resource_version_match",
    "/agents?resource_version=0&resource_version_match=Exact": "resource_version_match",
    "/agents/a?resource_version_match=Exact": "resource_version_match",
    "/capabilities?limit=1": "limit",
    "/capabilities?name=a&name=b": "name",
    "/capabilities?q=a&q=b": "q",
    "/agents?label_selector=env%20in%20a": "label_selector",
    "/agents?label_selector=env%3E1": "label_selector",
    "/agents?label_selector=env%3Da,": "label_selector",
    "/agents?label_selector==a": "label_selector",
    "/agents?label_selector=env%3Da%3Db": "label_selector",
    "/agents?version_constraint=abc": "version_constraint",
    "/agents?version_constraint=%3E%3D": "version_constraint",
    "/agents?version_constraint=1.2.3.4": "version_constraint",
    "/agents/a?fresh=1": "fresh",
    "/agents/a/status?fresh=1": "fresh",
    "/agents/a?resource_version=soon": "resource_version",
    "/capabilities?names=x": "names",
    "/capabilities?status=healthy": "status",
    "/capabilities?include_deprecated=perhaps": "include_deprecated",
    "/capabilities?agent_status=sleepy": "agent_status",
    "/capabilities?version_constraint=%5E": "version_constraint",
    "/capabilities?resource_version=x": "resource_version",
}


@pytest.mark.parametrize(("path", "field"), REFUSED.items())
async def test_a_query_string_that_is_not_understood_is_refused(
    client: httpx2.AsyncClient, path: str, field: str
) -> None:
    """400 and the name of the parameter, whether the agent it is about exists or not."""
    body = expect_error(await client.get(path), 400, "malformed_request")

    assert error_fields(body)[0] == field
    assert body["message"].startswith(f"{field}: ")


QUERIES_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"capabilites": ["x"]}, "query.capabilites"),
    ({"capability_category": ["file_operations"]}, "query.capability_category"),
    ({"capability_stability": 1}, "query.capability_stability"),
    ({"capability_tags": [1]}, "query.capability_tags"),
    ({"capability_tags": [""]}, "query.capability_tags"),
    ({"match": "some"}, "query.match"),
    ({"match": True}, "query.match"),
    ({"agent_id": ["a"]}, "query.agent_id"),
    ({"tags": ["x"]}, "query.tags"),
    ({"limit": 1}, "query.limit"),
    ({"watch": True}, "query.watch"),
    ({"fuzzy_match": "true"}, "query.fuzzy_match"),
    ({"fuzzy_match": 1}, "query.fuzzy_match"),
    ({"fuzzy_match": 0}, "query.fuzzy_match"),
    ({"fuzzy_match": ""}, "query.fuzzy_match"),
    ({"namespace": 1}, "query.namespace"),
    ({"namespace": ["a"]}, "query.namespace"),
    ({"status": ["healthy"]}, "query.status"),
    ({"status": "sleepy"}, "query.status"),
    ({"capabilities": {"x": 1}}, "query.capabilities"),
    ({"capabilities": [1]}, "query.capabilities"),
    ({"capabilities": [""]}, "query.capabilities"),
    ({"capabilities": False}, "query.capabilities"),
    ({"capability": 7}, "query.capability"),
    ({"labels": ["a"]}, "query.labels"),
    ({"labels": []}, "query.labels"),
    ({"labels": False}, "query.labels"),
    ({"labels": {"a": 1}}, "query.labels"),
    ({"labels": {"a": None}}, "query.labels"),
    ({"label_selector": "a in b"}, "query.label_selector"),
    ({"version_constraint": "~soon"}, "query.version_constraint"),
    ({"version_constraint": 1}, "query.version_constraint"),
    ({"labels": {"a": "no label"}}, "query.labels.a"),
    ({"labels": {"no key!": "a"}}, 'query.labels["no key!"]'),
    ({"resource_version": 1}, "query.resource_version"),
    ({"resource_version": "x"}, "query.resource_version"),
]


@pytest.mark.parametrize(("query", "field"), QUERIES_REFUSED, ids=[str(query) for query, _ in QUERIES_REFUSED])
async def test_a_query_object_that_is_not_understood_is_refused(
    client: httpx2.AsyncClient, query: dict[str, Any], field: str
) -> None:
    """A wrong type is no filter either: 400 and the field, by its path in the request."""
    body = expect_error(
        await client.post("/mcp/tools/discover_services", json={"query": query}), 400, "malformed_request"
    )

    assert error_fields(body)[0] == field


@pytest.mark.parametrize("query", [[], "", 0, False, "x", [1]])
async def test_a_query_must_be_an_object(client: httpx2.AsyncClient, query: Any) -> None:
    """Anything else under `query` is not taken for the query that finds everything."""
    body = expect_error(
        await client.post("/mcp/tools/discover_services", json={"query": query}), 422, "validation_failed"
    )

    assert error_fields(body) == ["query"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/agents?capabilty=read", "did you mean capability?"),
        ("/agents?name_space=x", "did you mean namespace?"),
        ("/agents?zzz=1", "allowed: namespace, status, draining"),
        ("/capabilities?agent_stauts=healthy", "did you mean agent_status?"),
    ],
)
async def test_an_unknown_parameter_comes_with_a_suggestion(client: httpx2.AsyncClient, path: str, hint: str) -> None:
    """A slip of the pen is answered with the nearest name, anything else with those there are."""
    body = expect_error(await client.get(path), 400, "malformed_request")

    assert hint in body["message"]


@pytest.mark.parametrize("tool", ["register_agent", "unregister_agent", "discover_services", "get_agent_status"])
async def test_a_tool_refuses_arguments_it_does_not_have(client: httpx2.AsyncClient, tool: str) -> None:
    """The suggestion names the argument that was meant."""
    answer = await client.post(f"/mcp/tools/{tool}", json={"agentid": "a"})

    body = expect_error(answer, 400, "malformed_request")

    assert error_fields(body) == ["agentid"]


async def test_every_unknown_parameter_is_named(client: httpx2.AsyncClient) -> None:
    """Two slips are two details."""
    body = expect_error(await client.get("/agents?one=1&two=2"), 400, "malformed_request")

    assert error_fields(body) == ["one", "two"]


@pytest.mark.parametrize(
    "query",
    ["?a=%ff", "?%ff=1", "?" + "&".join(f"a{n}=1" for n in range(200)), "?status=" + "x" * 5000, "?a=%00"],
    ids=["not utf-8", "name not utf-8", "200 parameters", "long value", "nul"],
)
async def test_a_strange_query_string_is_the_callers_fault(client: httpx2.AsyncClient, query: str) -> None:
    """What cannot be read is 400; what is quoted is cut short."""
    answer = await client.get(httpx2.URL(f"http://registry/agents{query}"))

    assert len(expect_error(answer, 400, "malformed_request")["message"]) < 500


async def test_booleans_are_true_false_1_or_0(client: httpx2.AsyncClient) -> None:
    """In any case; blank is not given."""
    await register(client, capabilities=[{"name": "old", "stability": "deprecated"}])
    for text, count in (("true", 1), ("1", 1), ("TRUE", 1), ("false", 0), ("0", 0), ("", 0)):
        answer = await client.get("/capabilities", params={"include_deprecated": text})
        assert answer.json()["count"] == count
