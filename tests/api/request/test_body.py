"""Request bodies: limited in size and JSON only; an invalid one is an error of the caller, never a 5xx."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.http_calls import (
    JSON_HEADERS,
    a_registration,
    error_fields,
    expect_error,
    expect_success,
    get_agent,
    list_agent_ids,
    register,
)

# Every call with a body.
TAKES_A_BODY = (
    "/agents",
    "/agents/batch",
    "/heartbeat",
    "/heartbeats",
    "/mcp/tools/register_agent",
    "/mcp/tools/unregister_agent",
    "/mcp/tools/discover_services",
    "/mcp/tools/heartbeat",
    "/mcp/tools/get_agent_status",
)
LIMIT = 1024 * 1024

NOT_JSON = {
    "empty": b"",
    "blank": b" \n ",
    "half": b'{"id":"a"',
    "trailing": b'{"id":"a"}}',
    "two": b"{}{}",
    "single quotes": b"{'id':'a'}",
    "NaN": b'{"id":"a","x":NaN}',
    "Infinity": b'{"id":"a","x":-Infinity}',
    "not utf-8": b'{"id":"\xff"}',
    "utf-16": '{"id":"a"}'.encode("utf-16"),
    "lone surrogate": b'{"id":"a","x":"\\ud800"}',
    "surrogates in a key": b'{"id":"a","\\udc00\\ud800":1}',
    "control character": b'{"id":"a\x00"}',
    "form": b"id=a&endpoint=http://a",
}
NOT_AN_OBJECT = {"list": b"[]", "string": b'"a"', "number": b"1", "null": b"null", "true": b"true"}


@pytest.mark.parametrize("path", TAKES_A_BODY)
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_a_body_that_is_not_json_is_400_for_every_call(
    client: httpx2.AsyncClient, path: str, body: bytes
) -> None:
    """The message describes the error."""
    expect_error(await client.post(path, content=body, headers=JSON_HEADERS), 400, "malformed_request")


@pytest.mark.parametrize("path", [path for path in TAKES_A_BODY if not path.endswith("heartbeat")])
@pytest.mark.parametrize("body", NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT)
async def test_a_body_that_is_not_an_object_is_400(client: httpx2.AsyncClient, path: str, body: bytes) -> None:
    """All bodies are objects."""
    assert error_fields(
        expect_error(await client.post(path, content=body, headers=JSON_HEADERS), 400, "malformed_request")
    ) == ["body"]


@pytest.mark.parametrize("path", ["/heartbeat", "/mcp/tools/heartbeat"])
@pytest.mark.parametrize("body", NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT)
async def test_a_heartbeat_that_is_not_an_object_is_rejected_like_any_other_body(
    client: httpx2.AsyncClient, path: str, body: bytes
) -> None:
    """The fast path returns the same errors as the general one."""
    assert error_fields(
        expect_error(await client.post(path, content=body, headers=JSON_HEADERS), 400, "malformed_request")
    ) == ["body"]


@pytest.mark.parametrize("path", TAKES_A_BODY)
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "text/json", "", "json"])
async def test_another_content_type_is_415(client: httpx2.AsyncClient, path: str, kind: str) -> None:
    """A form or plain text is not parsed as JSON, whatever its content."""
    response = await client.post(path, content=b'{"id":"a"}', headers={"content-type": kind})

    assert "Content-Type: application/json" in expect_error(response, 415, "unsupported_media_type")["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json"},
        {"content-type": "Application/JSON; charset=utf-8"},
        {"content-type": "application/vnd.mesh+json"},
    ],
    ids=str,
)
async def test_every_content_type_of_json_is_accepted(client: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    """Also with parameters and in any case."""
    expect_success(await client.post("/agents", content=json.dumps(a_registration()), headers=headers))


@pytest.mark.parametrize("path", TAKES_A_BODY)
async def test_a_body_over_the_limit_is_413_before_it_is_read(client: httpx2.AsyncClient, path: str) -> None:
    """The declared length is sufficient."""
    expect_error(await client.post(path, content=b" " * (LIMIT + 1), headers=JSON_HEADERS), 413, "request_too_large")


@pytest.mark.parametrize("path", TAKES_A_BODY)
async def test_a_streamed_body_is_413_when_it_exceeds_the_limit(client: httpx2.AsyncClient, path: str) -> None:
    """A body without a declared length is read up to the limit."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 65536
            yield b" " * 65536

    expect_error(await client.post(path, content=endless(), headers=JSON_HEADERS), 413, "request_too_large")

    assert sent <= LIMIT + 2 * 65536


async def test_a_body_at_the_limit_is_accepted(client: httpx2.AsyncClient) -> None:
    """Exactly 1 MiB is valid, with a declared length or streamed."""
    body = json.dumps(a_registration()).encode()
    body += b" " * (LIMIT - len(body))

    async def in_parts() -> AsyncIterator[bytes]:
        yield body[:1000]
        yield b""
        yield body[1000:]

    expect_success(await client.post("/agents", content=body, headers=JSON_HEADERS))
    expect_success(await client.post("/agents", content=in_parts(), headers=JSON_HEADERS))


async def test_a_large_registration_is_stored_and_returned(client: httpx2.AsyncClient) -> None:
    """Nearly 1 MiB of annotations, schemas and unknown fields is stored completely."""
    sent = a_registration(notes=["x" * 1000 for _ in range(900)], capabilities=[{"name": f"c{n}"} for n in range(1000)])
    expect_success(await client.post("/agents", json=sent))

    agent = await get_agent(client)

    assert agent["notes"] == sent["notes"]
    assert len(agent["capabilities"]) == 1000


@pytest.mark.parametrize("path", TAKES_A_BODY)
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
@pytest.mark.parametrize("depth", [65, 1_000, 100_000])
async def test_a_body_that_is_nested_too_deeply_is_rejected(
    client: httpx2.AsyncClient, path: str, opening: bytes, closing: bytes, depth: int
) -> None:
    """Depth 65 and depth 100,000 are both 422, without a stack overflow."""
    deep = opening * (depth - 1) + b"1" + closing * (depth - 1)
    body = b'{"agent_id":"a","deep":%s}' % deep

    response = await client.post(path, content=body, headers=JSON_HEADERS)

    # Unknown fields of a heartbeat are ignored, at any depth.
    expected = (404, 422) if path.endswith("heartbeat") else (422,)
    assert response.status_code in expected, response.text


async def test_a_body_of_64_levels_is_stored(client: httpx2.AsyncClient) -> None:
    """A body of the maximum depth is returned unchanged."""
    deep: Any = 1
    for _ in range(63):
        deep = [deep]
    expect_success(await client.post("/agents", json=a_registration(deep=deep)))

    assert (await get_agent(client))["deep"] == deep


@pytest.mark.parametrize("number", ["1e400", "-1e400", "18446744073709551616", "-9223372036854775809", "9" * 5000])
async def test_numbers_beyond_the_supported_range_are_422(client: httpx2.AsyncClient, number: str) -> None:
    """Numbers beyond a double or 64 bits are named by their path, at any place."""
    body = f'{{"id":"a","endpoint":"http://a","deep":{{"list":[0,{number}]}}}}'

    response = await client.post("/agents", content=body, headers=JSON_HEADERS)

    assert error_fields(expect_error(response, 422, "validation_failed")) == ["deep.list[1]"]


async def test_the_last_of_duplicate_keys_wins(client: httpx2.AsyncClient) -> None:
    """As in common JSON parsers, at any level, and in heartbeats too."""
    body = b'{"id":"z","endpoint":"http://z","id":"a","labels":{"k":"1","k":"2"},"endpoint":"http://a:1"}'
    expect_success(await client.post("/agents", content=body, headers=JSON_HEADERS))

    agent = await get_agent(client)

    assert (agent["id"], agent["endpoint"], agent["labels"]) == ("a", "http://a:1", {"k": "2"})
    expect_success(await client.post("/heartbeat", content=b'{"agent_id":"z","agent_id":"a"}', headers=JSON_HEADERS))


async def test_20000_capabilities_are_rejected_quickly(client: httpx2.AsyncClient) -> None:
    """The error has one detail for the list, not one for each item."""
    body = a_registration(capabilities=[f"c{n}" for n in range(20_000)])

    found = expect_error(await client.post("/agents", json=body), 422, "validation_failed")

    assert error_fields(found) == ["capabilities"]
    assert "1,000" in found["message"]
    assert await list_agent_ids(client) == []


async def test_a_million_errors_are_reported_as_a_hundred(client: httpx2.AsyncClient) -> None:
    """An error response has a limited size."""
    body = {"agents": [{"capabilities": [[]] * 1000, "tags": n} for n in range(200)]}

    response = await client.post("/agents/batch", json=body)

    results = expect_success(response)["results"]
    assert len(results) == 200
    assert all(len(result["details"]) <= 101 for result in results)


async def test_a_long_quoted_text_is_shortened(client: httpx2.AsyncClient) -> None:
    """No error response repeats a megabyte of the request."""
    long = "x" * 900_000
    for response in (
        await client.post("/agents", json={"id": long, "endpoint": 1}),
        await client.post("/agents", json=a_registration(endpoint=long)),
        await client.post("/agents", json=a_registration() | {long: 2**64, "endpoint": 1}),
        await client.post("/agents", json=a_registration(security_context=long)),
        await client.post("/agents", json=a_registration(resource_version=long[:200])),
        await client.post("/mcp/tools/discover_services", json={long: 1}),
        await client.post("/mcp/tools/discover_services", json={"query": {"label_selector": long}}),
        await client.post("/mcp/tools/discover_services", json={"query": {"version_constraint": long}}),
        await client.post("/mcp/tools/discover_services", json={"query": {"status": long}}),
        await client.post("/mcp/tools/discover_services", json={"query": {"resource_version": long}}),
    ):
        assert response.status_code in (400, 422)
        assert len(response.content) < 3000, response.content[:200]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/heartbeat", {"agent_id": "x" * 900_000}),
        ("/heartbeats", {"agent_ids": ["x" * 900_000]}),
        ("/mcp/tools/get_agent_status", {"agent_id": "x" * 900_000}),
        ("/mcp/tools/unregister_agent", {"agent_id": "x" * 900_000}),
    ],
)
async def test_an_id_that_is_too_long_is_shortened_in_messages(
    client: httpx2.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    """Ids have at most 253 characters; only the beginning of a longer one is returned, except as key of a result."""
    response = await client.post(path, json=body)

    assert response.status_code in (200, 404, 422)
    assert response.text.count("x" * 900_000) <= (path == "/heartbeats")


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["a", "http://a:1", "1.0.0", "stable", "healthy", "0", ">=1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        *("id", "agent_id", "name", "namespace", "agent_type", "endpoint", "capabilities", "labels", "annotations"),
        *("security_context", "health_interval", "timeout_threshold", "eviction_threshold", "metadata", "tags"),
        *("resource_version", "dependencies", "version", "stability", "input_schema", "status", "description"),
        *("registration_data", "query", "agents", "agent_ids", "label_selector", "version_constraint", "fuzzy_match"),
    ]
)
BODIES = st.dictionaries(NAMES, JUNK | st.dictionaries(NAMES, JUNK, max_size=6) | st.lists(JUNK, max_size=3))


@settings(max_examples=300)
@given(path=st.sampled_from(TAKES_A_BODY), body=BODIES)
async def test_any_json_is_answered_below_500(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> None:
    """Wrong types at any place: never a 5xx, always a response in one of the two formats."""
    response = await client.post(path, content=json.dumps(body).encode(), headers=JSON_HEADERS)

    assert response.status_code in (200, 400, 404, 409, 422), response.text
    # The 400 to a heartbeat of mcp-mesh has upstream's format.
    if response.status_code != 400 or set(response.json()) != {"error", "timestamp"}:
        assert response.json()["status"] == ("success" if response.status_code == 200 else "error")


@settings(max_examples=100)
@given(path=st.sampled_from(TAKES_A_BODY), body=st.binary(max_size=200))
async def test_any_bytes_are_answered_below_500(client: httpx2.AsyncClient, path: str, body: bytes) -> None:
    """Bytes that are not JSON are 400 or, by chance, a readable heartbeat."""
    response = await client.post(path, content=body, headers=JSON_HEADERS)

    assert response.status_code in (400, 404, 422), response.text


# All JSON values that the registry preserves.
PRESERVED_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4)
    ),
    max_leaves=15,
)


@settings(max_examples=150)
@given(
    metadata=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), PRESERVED_JSON),
    own=PRESERVED_JSON,
)
async def test_any_registration_is_returned_unchanged(
    client: httpx2.AsyncClient, metadata: dict[str, Any], own: Any
) -> None:
    """Known and unknown fields, to the last digit: through JSON, Lua, Redis, the log and the cache."""
    sent = a_registration(metadata=metadata, own_field=own, capabilities=[{"name": "x", "own_field": own}])
    expect_success(await client.post("/agents", content=json.dumps(sent).encode(), headers=JSON_HEADERS))

    agent = json.loads((await client.get("/agents/a")).content)

    returned = [agent["metadata"], agent["own_field"], agent["capabilities"][0]["own_field"]]
    assert json.dumps(returned, sort_keys=True) == json.dumps([metadata, own, own], sort_keys=True)


QUERY_NAMES = st.sampled_from(
    [
        *("namespace", "status", "capability", "label_selector", "version_constraint", "fuzzy_match"),
        *("resource_version", "name", "include_deprecated", "agent_namespace", "agent_status", "agent_id"),
    ]
)
QUERY_VALUES = st.text(max_size=20) | st.sampled_from(["0", "1", "true", "any", ">=1.0.0", "a=b", "healthy"])


@settings(max_examples=300)
@given(
    path=st.sampled_from(["/agents", "/agents/a", "/agents/a/status", "/capabilities", "/health/a"]),
    query=st.lists(st.tuples(QUERY_NAMES, QUERY_VALUES), max_size=4),
)
async def test_any_query_string_is_answered_below_500(
    client: httpx2.AsyncClient, path: str, query: list[tuple[str, str]]
) -> None:
    """The only 5xx is correct: a version that the store has not reached yet."""
    response = await client.get(path, params=tuple(query))

    if response.status_code == 503:
        assert response.json()["reason"] == "version_ahead"
    else:
        assert response.status_code in (200, 400, 404), response.text


@settings(max_examples=100)
@given(agent_id=st.text(min_size=1, max_size=20))
async def test_any_path_is_answered_below_500(client: httpx2.AsyncClient, agent_id: str) -> None:
    """A path with an invalid id is an unknown agent or an unknown path; `heartbeat` is a path without GET."""
    for path in (f"/agents/{quote(agent_id)}", f"/health/{quote(agent_id, safe='')}", f"/{quote(agent_id)}"):
        response = await client.get(path)
        assert response.status_code in (200, 400, 404, 405), (path, response.text)


async def test_the_registry_works_after_invalid_bodies(client: httpx2.AsyncClient) -> None:
    """Invalid bodies have no effect on later calls."""
    for body in NOT_JSON.values():
        await client.post("/agents", content=body, headers=JSON_HEADERS)

    await register(client)

    assert await list_agent_ids(client) == ["a"]
