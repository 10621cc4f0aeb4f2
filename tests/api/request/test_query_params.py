"""Query strings and query objects: unknown or invalid parameters are rejected by name, never ignored."""

import tracemalloc
from typing import Any

import httpx2
import pytest

from registry.api.request.query_parsers import parse_list_agents
from tests.support.http_calls import error_fields, expect_error, register

# A query string, and the first field that its error names.
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
async def test_an_invalid_query_string_is_rejected(client: httpx2.AsyncClient, path: str, field: str) -> None:
    """400 with the name of the parameter, whether the agent of the path exists or not."""
    body = expect_error(await client.get(path), 400, "malformed_request")

    assert error_fields(body)[0] == field
    assert body["message"].startswith(f"{field}: ")


# Parameters and the one that the error names. The attack T15 sent 5,000 tags, and a name of 60 kB.
TOO_LARGE: dict[str, tuple[str, dict[str, Any], str]] = {
    "5,000 tags": ("/agents", {"capability_tags": ",".join(f"tag-{n}" for n in range(5_000))}, "capability_tags"),
    "a name of 60 kB": ("/agents", {"fuzzy_match": "true", "capability": "x" * 60_000}, "capability"),
    "8 KiB of parameters": ("/agents", {"namespace": "n" * 4_000, "agent_id": "a" * 4_300}, "agent_id"),
    "101 tags": ("/agents", {"capability_tags": ",".join(f"t{n}" for n in range(101))}, "capability_tags"),
    "101 capabilities": ("/agents", {"capability": [f"c{n}" for n in range(101)]}, "capability"),
    "101 fields": ("/agents", {"fields": ",".join(f"f{n}" for n in range(101))}, "fields"),
    "a long name": ("/agents", {"capability": "x" * 254}, "capability"),
    "a long tag": ("/agents", {"capability_tags": "x" * 254}, "capability_tags"),
    "a long category": ("/agents", {"capability_category": "x" * 254}, "capability_category"),
    "a long namespace": ("/agents", {"namespace": "x" * 254}, "namespace"),
    "a long text": ("/capabilities", {"q": "x" * 254}, "q"),
    "a long description": ("/capabilities", {"description_contains": "x" * 254}, "description_contains"),
    "101 tags of a capability": ("/capabilities", {"tags": ",".join(f"t{n}" for n in range(101))}, "tags"),
    "a long namespace of a graph": ("/dependencies", {"namespace": "x" * 254}, "namespace"),
    "a long zone": ("/select", {"capability": "c", "zone": "x" * 254}, "zone"),
    "101 tags of a selection": ("/select", {"capability": "c", "tags": ",".join(f"t{n}" for n in range(101))}, "tags"),
}


@pytest.mark.parametrize(("path", "params", "field"), TOO_LARGE.values(), ids=TOO_LARGE)
async def test_t15_a_query_that_is_too_large_is_rejected(
    client: httpx2.AsyncClient, path: str, params: dict[str, Any], field: str
) -> None:
    """400 with the name of the parameter; a query string of 8 KiB, 100 values and texts of 253 are the limits."""
    body = expect_error(await client.get(path, params=params), 400, "malformed_request")

    assert error_fields(body) == [field]
    assert len(body["message"]) < 300


async def test_a_query_of_the_maximum_size_is_answered(client: httpx2.AsyncClient) -> None:
    """Its query string has less than 8 KiB."""
    await register(client, capabilities=[{"name": "x" * 253, "tags": [f"t{n}" for n in range(100)]}])
    tags = ",".join(f"t{n}" for n in range(100))
    params = {"capability": ["x" * 253, *(f"c{n}" for n in range(99))], "capability_tags": tags, "match": "any"}

    assert (await client.get("/agents", params=params)).json()["count"] == 1
    assert (await client.get("/capabilities", params={"q": "x" * 253, "tags": tags})).json()["count"] == 1


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
    ({"capabilities": [f"c{n}" for n in range(101)]}, "query.capability"),
    ({"capabilities": ["x" * 254]}, "query.capability"),
    ({"capability_tags": [f"t{n}" for n in range(5_000)]}, "query.capability_tags"),
    ({"namespace": "x" * 60_000}, "query.namespace"),
]


@pytest.mark.parametrize(("query", "field"), QUERIES_REFUSED, ids=[str(query)[:60] for query, _ in QUERIES_REFUSED])
async def test_an_invalid_query_object_is_rejected(
    client: httpx2.AsyncClient, query: dict[str, Any], field: str
) -> None:
    """A value of a wrong type is not ignored either: 400 with the path of the field in the request."""
    body = expect_error(
        await client.post("/mcp/tools/discover_services", json={"query": query}), 400, "malformed_request"
    )

    assert error_fields(body)[0] == field


@pytest.mark.parametrize("query", [[], "", 0, False, "x", [1]])
async def test_a_query_must_be_an_object(client: httpx2.AsyncClient, query: Any) -> None:
    """Another value of `query` is not treated as the empty query, which matches all agents."""
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
async def test_the_error_of_an_unknown_parameter_has_a_suggestion(
    client: httpx2.AsyncClient, path: str, hint: str
) -> None:
    """For a typo the nearest name, otherwise all valid names."""
    body = expect_error(await client.get(path), 400, "malformed_request")

    assert hint in body["message"]


@pytest.mark.parametrize("tool", ["register_agent", "unregister_agent", "discover_services", "get_agent_status"])
async def test_a_tool_rejects_unknown_arguments(client: httpx2.AsyncClient, tool: str) -> None:
    """The error suggests the nearest argument."""
    response = await client.post(f"/mcp/tools/{tool}", json={"agentid": "a"})

    body = expect_error(response, 400, "malformed_request")

    assert error_fields(body) == ["agentid"]


async def test_every_unknown_parameter_is_named(client: httpx2.AsyncClient) -> None:
    """Two typos are two details."""
    body = expect_error(await client.get("/agents?one=1&two=2"), 400, "malformed_request")

    assert error_fields(body) == ["one", "two"]


@pytest.mark.parametrize(
    "query",
    ["?a=%ff", "?%ff=1", "?" + "&".join(f"a{n}=1" for n in range(200)), "?status=" + "x" * 5000, "?a=%00"],
    ids=["not utf-8", "name not utf-8", "200 parameters", "long value", "nul"],
)
async def test_an_unreadable_query_string_is_400(client: httpx2.AsyncClient, query: str) -> None:
    """An unreadable one is 400, and the message quotes a part of it."""
    response = await client.get(httpx2.URL(f"http://localhost/agents{query}"))

    assert len(expect_error(response, 400, "malformed_request")["message"]) < 500


async def test_booleans_are_true_false_1_or_0(client: httpx2.AsyncClient) -> None:
    """In upper or lower case; a blank value counts as absent."""
    await register(client, capabilities=[{"name": "old", "stability": "deprecated"}])
    for text, count in (("true", 1), ("1", 1), ("TRUE", 1), ("false", 0), ("0", 0), ("", 0)):
        response = await client.get("/capabilities", params={"include_deprecated": text})
        assert response.json()["count"] == count


def test_t15_parsed_queries_are_bounded_in_bytes() -> None:
    """150 lists with 5,000 tags each once took 134 MB for good; the largest selectors take 100 kB each."""
    tracemalloc.start()
    try:
        for number in range(150):
            values = ",".join(f"{number:x}{value:x}" for value in range(600))
            parse_list_agents(f"label_selector=a in ({values})&capability=c{number}".replace(" ", "%20").encode())
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert used < 8 * 1024 * 1024
