"""Optimistic concurrency: a registration with an outdated version has no effect."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from tests.support.http_calls import (
    a_registration,
    error_fields,
    expect_error,
    expect_success,
    get_agent,
    register,
    send_heartbeat,
)


async def put(client: httpx2.AsyncClient, headers: Mapping[str, str] | None = None, **fields: Any) -> httpx2.Response:
    """Register agent `a` with these headers."""
    return await client.post("/agents", json=a_registration(**fields), headers=dict(headers or {}))


FORMS = {
    "body": lambda version: ({}, {"resource_version": version}),
    "body as a number": lambda version: ({}, {"resource_version": int(version)}),
    "If-Match: N": lambda version: ({"if-match": version}, {}),
    'If-Match: "N"': lambda version: ({"if-match": f'"{version}"'}, {}),
    'If-Match: W/"N"': lambda version: ({"if-match": f'W/"{version}"'}, {}),
    "blanks": lambda version: ({"if-match": f'  "{version}" '}, {}),
    "twice the same": lambda version: ({"if-match": f'"{version}"'}, {"resource_version": version}),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_the_current_version_is_accepted_and_an_older_one_is_409(client: httpx2.AsyncClient, form: Any) -> None:
    """For each way to send a version; the response has the current version, and the agent does not change."""
    first = await register(client, step="1")
    headers, fields = form(first)
    second = expect_success(await put(client, headers, step="2", **fields))["resource_version"]
    before = await get_agent(client)

    body = expect_error(await put(client, headers, step="3", **fields), 409, "stale_version")

    assert body["resource_version"] == second
    assert second in body["message"]
    assert await get_agent(client) == before


async def test_a_future_version_is_409(client: httpx2.AsyncClient) -> None:
    """It is neither the version of the last spec change nor a later one of the agent."""
    version = await register(client)

    expect_error(await put(client, resource_version=str(int(version) + 1)), 409, "stale_version")


async def test_a_status_change_is_not_a_conflict(client: httpx2.AsyncClient) -> None:
    """The version of the last spec change and those of all later status changes are current."""
    registered = await register(client)
    await send_heartbeat(client)
    healthy = (await get_agent(client))["resource_version"]
    assert healthy != registered

    expect_success(await put(client, resource_version=registered))
    expect_success(await put(client, resource_version=healthy))
    updated = expect_success(await put(client, resource_version=registered, step="2"))["resource_version"]

    expect_error(await put(client, resource_version=healthy, step="3"), 409, "stale_version")
    expect_success(await put(client, resource_version=updated, step="3"))


async def test_the_precondition_is_checked_for_an_unchanged_spec(client: httpx2.AsyncClient) -> None:
    """A registration without a change is also rejected for an outdated version."""
    first = await register(client)
    await register(client, step="2")

    expect_error(await put(client, resource_version=first, step="2"), 409, "stale_version")


ONLY_IF_ABSENT: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    'resource_version "0"': ({}, {"resource_version": "0"}),
    "resource_version 0": ({}, {"resource_version": 0}),
    'If-Match: "0"': ({"if-match": '"0"'}, {}),
    "If-None-Match: *": ({"if-none-match": "*"}, {}),
    "two ways": ({"if-none-match": " * "}, {"resource_version": "0"}),
}


@pytest.mark.parametrize(("headers", "fields"), ONLY_IF_ABSENT.values(), ids=ONLY_IF_ABSENT)
async def test_a_registration_can_require_that_the_agent_is_absent(
    client: httpx2.AsyncClient, headers: dict[str, str], fields: dict[str, Any]
) -> None:
    """The first registration is accepted, the second receives the version of the first."""
    version = expect_success(await put(client, headers, **fields))["resource_version"]

    body = expect_error(await put(client, headers, **fields), 409, "stale_version")

    assert body["resource_version"] == version


async def test_a_star_matches_any_version_of_an_existing_agent(client: httpx2.AsyncClient) -> None:
    """`If-Match: *` updates and never creates."""
    body = expect_error(await put(client, {"if-match": "*"}), 409, "stale_version")
    assert body["resource_version"] is None

    await register(client)

    expect_success(await put(client, {"if-match": "*"}, step="2"))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_a_version_of_an_absent_agent_is_409(client: httpx2.AsyncClient, form: Any) -> None:
    """The agent was never registered or is removed: no version matches, and none is created."""
    headers, fields = form("1795000000000")

    body = expect_error(await put(client, headers, **fields), 409, "stale_version")

    assert body["resource_version"] is None
    expect_error(await client.get("/agents/a"), 404, "unknown_agent")


NO_VERSIONS: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "text": ({}, {"resource_version": "abc"}, "resource_version"),
    "empty": ({}, {"resource_version": ""}, "resource_version"),
    "negative": ({}, {"resource_version": "-1"}, "resource_version"),
    "negative number": ({}, {"resource_version": -1}, "resource_version"),
    "fraction": ({}, {"resource_version": 1.5}, "resource_version"),
    "boolean": ({}, {"resource_version": True}, "resource_version"),
    "star in the body": ({}, {"resource_version": "*"}, "resource_version"),
    "other digits": ({}, {"resource_version": "\u0661"}, "resource_version"),
    "If-Match: text": ({"if-match": '"abc"'}, {}, "If-Match"),
    "If-Match: empty": ({"if-match": ""}, {}, "If-Match"),
    "If-Match: open quote": ({"if-match": '"1'}, {}, "If-Match"),
    "If-Match: two": ({"if-match": '"1", "2"'}, {}, "If-Match"),
    "If-None-Match: N": ({"if-none-match": '"1"'}, {}, "If-None-Match"),
    "contradiction": ({"if-match": '"1"'}, {"resource_version": "2"}, "resource_version"),
    "contradicting headers": ({"if-match": '"1"', "if-none-match": "*"}, {}, "resource_version"),
}


@pytest.mark.parametrize(("headers", "fields", "named"), NO_VERSIONS.values(), ids=NO_VERSIONS)
async def test_an_invalid_version_is_422(
    client: httpx2.AsyncClient, headers: dict[str, str], fields: dict[str, Any], named: str
) -> None:
    """Other text is an invalid value, not a conflict; the error names the header or field."""
    body = expect_error(await put(client, headers, **fields), 422, "validation_failed")

    assert error_fields(body) == [named]
    expect_error(await client.get("/agents/a"), 404, "unknown_agent")


async def test_null_is_not_a_precondition(client: httpx2.AsyncClient) -> None:
    """As everywhere in a registration, null means absent."""
    await register(client)

    expect_success(await put(client, resource_version=None, step="2"))


async def test_the_tool_accepts_preconditions(client: httpx2.AsyncClient) -> None:
    """In the registration or as a header; the path of an invalid one starts at the body."""
    first = await register(client)
    await register(client, step="2")
    url = "/mcp/tools/register_agent"

    stale = await client.post(url, json={"registration_data": a_registration(resource_version=first)})
    header = await client.post(url, json={"registration_data": a_registration()}, headers={"if-match": first})
    bad = await client.post(url, json={"registration_data": a_registration(resource_version="x")})

    expect_error(stale, 409, "stale_version")
    expect_error(header, 409, "stale_version")
    assert error_fields(expect_error(bad, 422, "validation_failed")) == ["registration_data.resource_version"]


async def test_a_hundred_writers_with_the_same_version_make_one_change(client: httpx2.AsyncClient) -> None:
    """Of many concurrent conditional writes exactly one is accepted."""
    version = await register(client)

    responses = await asyncio.gather(*(put(client, resource_version=version, step=str(n)) for n in range(100)))

    assert sorted(response.status_code for response in responses) == [200] + [409] * 99
