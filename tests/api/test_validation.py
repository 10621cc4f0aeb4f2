"""An invalid registration receives all its errors at once, each with its path in the request."""

from typing import Any

import httpx2
import pytest

from registry.config.value_types import parse_security_contexts, parse_thresholds
from tests.support.http_calls import a_registration, error_fields, expect_error, get_agent, list_agent_ids, register
from tests.support.in_process_registry import in_process_registry

WRONG_EVERYWHERE = {
    "id": "no blanks here",
    "name": "",
    "namespace": "Not_A_Namespace",
    "endpoint": "ftp://a",
    "capabilities": ["x", "y", "z", {"name": "w", "version": "1.0.x", "stability": "ripe", "tags": "io"}, "x", {}],
    "labels": {"ok": "ok", "bad key!": "v", "k": "bad value!"},
    "health_interval": 0,
    "timeout_threshold": True,
    "eviction_threshold": "soon",
    "metadata": [],
}
NAMED = {
    "id",
    "name",
    "namespace",
    "endpoint",
    "capabilities[3].version",
    "capabilities[3].stability",
    "capabilities[3].tags",
    "capabilities[4]",
    "capabilities[5].name",
    'labels["bad key!"]',
    "labels.k",
    "health_interval",
    "timeout_threshold",
    "eviction_threshold",
    "metadata",
}


async def test_all_invalid_fields_are_reported_in_one_response(client: httpx2.AsyncClient) -> None:
    """Fourteen errors need one round trip, and no agent is registered."""
    body = expect_error(await client.post("/agents", json=WRONG_EVERYWHERE), 422, "validation_failed")

    assert set(error_fields(body)) == NAMED
    assert len(error_fields(body)) == len(NAMED)
    assert body["message"].startswith(f"The registration was refused: {error_fields(body)[0]}")
    assert f"{len(NAMED) - 1} more in details" in body["message"]
    assert await list_agent_ids(client) == []


@pytest.mark.parametrize("route", ["/agents", "/agents/batch", "/mcp/tools/register_agent"])
async def test_a_capability_with_a_bidi_mark_or_a_password_is_not_registered(
    client: httpx2.AsyncClient, route: str
) -> None:
    """T19, T23: the error has the code point, and not the password."""
    registration = a_registration("a", capabilities=["pay\u202e"], endpoint="http://user:s3cret@host/")
    bodies = {
        "/agents": registration,
        "/agents/batch": {"agents": [registration]},
        "/mcp/tools/register_agent": {"registration_data": registration},
    }
    response = await client.post(route, json=bodies[route])
    if route == "/agents":
        assert set(error_fields(expect_error(response, 422, "validation_failed"))) == {"endpoint", "capabilities[0]"}

    assert "must not contain U+202E RIGHT-TO-LEFT OVERRIDE" in response.text
    assert "s3cret" not in response.text
    assert await list_agent_ids(client) == []


async def test_mixed_scripts_in_the_name_of_an_agent_are_a_warning_in_the_response(client: httpx2.AsyncClient) -> None:
    """T19: the agent is registered, and its name is unchanged."""
    response = await client.post("/agents", json=a_registration("a", name="P\u0430y"))

    assert response.status_code == 200
    assert response.json()["warnings"] == [
        {
            "field": "name",
            "problem": "mixes Latin letters with U+0430 CYRILLIC SMALL LETTER A, which can look alike",
        }
    ]
    assert (await get_agent(client, "a"))["name"] == "P\u0430y"


async def test_the_paths_of_the_tool_start_at_the_body(client: httpx2.AsyncClient) -> None:
    """The path starts at `registration_data`."""
    response = await client.post("/mcp/tools/register_agent", json={"registration_data": WRONG_EVERYWHERE})

    body = expect_error(response, 422, "validation_failed")

    assert set(error_fields(body)) == {f"registration_data.{field}" for field in NAMED}
    assert "registration_data.capabilities[3].version" in error_fields(body)


@pytest.mark.parametrize("given", [None, [], "a", 1, True])
async def test_the_registration_of_the_tool_must_be_an_object(client: httpx2.AsyncClient, given: Any) -> None:
    """A value of another type is one error for the whole argument."""
    body = expect_error(
        await client.post("/mcp/tools/register_agent", json={"registration_data": given}), 422, "validation_failed"
    )

    assert error_fields(body)[0] == "registration_data"


@pytest.mark.parametrize("tool", ["unregister_agent", "get_agent_status", "heartbeat"])
@pytest.mark.parametrize("body", [{}, {"agent_id": None}, {"agent_id": ""}, {"agent_id": 7}, {"agent_id": ["a"]}])
async def test_a_tool_without_its_id_argument_is_rejected(
    client: httpx2.AsyncClient, tool: str, body: dict[str, Any]
) -> None:
    """A missing or invalid id is an error of the caller, not an unknown agent."""
    found = expect_error(await client.post(f"/mcp/tools/{tool}", json=body), 422, "validation_failed")

    assert error_fields(found) == ["agent_id"]


WRONG_HEARTBEATS: list[tuple[dict[str, Any], list[str]]] = [
    ({"agent_id": 7, "metadata": "none"}, ["agent_id", "metadata"]),
    ({"agent_id": "a", "load": -1}, ["load"]),
    ({"agent_id": "a", "load": True}, ["load"]),
    ({"agent_id": "a", "load": "high"}, ["load"]),
    ({"agent_id": "a", "dependencies_version": 1}, ["dependencies_version"]),
    ({"agent_id": "a", "metadata": {"endpoint": "ftp://a"}}, ["metadata.endpoint"]),
    ({"agent_id": "a", "metadata": {"tools": [{"capability": "b"}]}}, ["metadata.tools[0].function_name"]),
]


@pytest.mark.parametrize(("sent", "fields"), WRONG_HEARTBEATS)
async def test_an_invalid_heartbeat_is_rejected_by_field(
    client: httpx2.AsyncClient, sent: dict[str, Any], fields: list[str]
) -> None:
    """The agent does not change."""
    await register(client)

    body = expect_error(await client.post("/heartbeat", json=sent), 422, "validation_failed")

    assert error_fields(body) == fields
    assert (await get_agent(client))["endpoint"] == "http://a:1"


@pytest.mark.parametrize("load", ["high", True, -1, {"cpu": 0.5}, [1]])
async def test_a_metadata_load_that_is_no_load_is_metadata(client: httpx2.AsyncClient, load: Any) -> None:
    """Metadata is free; only the top-level `load` is checked."""
    await register(client)

    response = await client.post("/heartbeat", json={"agent_id": "a", "metadata": {"load": load}})

    assert response.status_code == 200, response.text
    assert (await get_agent(client))["metadata"] == {"load": load}


async def test_a_metadata_load_that_is_a_number_is_the_load(client: httpx2.AsyncClient) -> None:
    """It is stored for `least_loaded` and does not change the registration."""
    await register(client)

    await client.post("/heartbeat", json={"agent_id": "a", "metadata": {"load": 0.5}})

    assert "metadata" not in await get_agent(client)


SILENCE: list[tuple[dict[str, Any], tuple[float, float]]] = [
    ({}, (60, 120)),
    ({"health_interval": 30.0}, (60, 120)),
    ({"health_interval": 40}, (80, 160)),
    ({"health_interval": "40s"}, (80, 160)),
    ({"timeout_threshold": "500ms", "eviction_threshold": "1h30m"}, (0.5, 5400)),
    ({"timeout_threshold": 5}, (5, 10)),
    ({"timeout_threshold": 5, "health_interval": 40}, (5, 10)),
    ({"eviction_threshold": 90}, (60, 90)),
    ({"timeout_threshold": 0.5, "eviction_threshold": 0.75}, (0.5, 0.75)),
    ({"agent_type": "file_agent"}, (30, 90)),
    ({"agent_type": "file_agent", "health_interval": 40}, (30, 90)),
    ({"agent_type": "file_agent", "timeout_threshold": 10}, (10, 20)),
    ({"agent_type": "file_agent", "eviction_threshold": 40}, (30, 40)),
    ({"agent_type": "other"}, (60, 120)),
]


@pytest.mark.parametrize(("fields", "thresholds"), SILENCE, ids=[str(fields) for fields, _ in SILENCE])
async def test_thresholds_are_those_of_the_agent_or_its_type_or_the_default(
    redis_url: str, fields: dict[str, Any], thresholds: tuple[float, float]
) -> None:
    """Explicit ones first, then those of the type, then the larger of AGENT_TIMEOUT and two intervals."""
    async with in_process_registry(redis_url, thresholds=parse_thresholds("file_agent=30s/90s")) as client:
        await register(client, **fields)

        health = (await client.get("/health/a")).json()

    assert (health["timeout_threshold"], health["eviction_threshold"]) == thresholds


@pytest.mark.parametrize(
    "fields",
    [
        {"timeout_threshold": 60, "eviction_threshold": 60},
        {"timeout_threshold": 60, "eviction_threshold": 59.9},
        {"eviction_threshold": 60},
        {"eviction_threshold": 10},
        {"health_interval": 60, "eviction_threshold": 100},
        {"agent_type": "file_agent", "eviction_threshold": 30},
    ],
    ids=str,
)
async def test_an_eviction_threshold_not_above_the_timeout_is_422(redis_url: str, fields: dict[str, Any]) -> None:
    """For the agent's own timeout, that of its type and the default."""
    async with in_process_registry(redis_url, thresholds=parse_thresholds("file_agent=30s/90s")) as client:
        body = expect_error(await client.post("/agents", json=a_registration(**fields)), 422, "validation_failed")

    assert error_fields(body) == ["eviction_threshold"]


async def test_high_security_requires_three_capabilities(client: httpx2.AsyncClient) -> None:
    """The error names the missing ones; with all of them the agent may register."""
    needed = ["authentication", "authorization", "audit"]

    body = expect_error(
        await client.post(
            "/agents", json=a_registration(security_context="high_security", capabilities=["execute", "audit"])
        ),
        422,
        "validation_failed",
    )

    assert error_fields(body) == ["capabilities"]
    assert "authentication" in body["message"]
    assert "authorization" in body["message"]
    assert "audit" not in body["message"].replace("authorization", "")
    await register(client, security_context="high_security", capabilities=[*needed, "execute"])
    await register(client, "s", security_context="standard")
    await register(client, "d")


async def test_the_error_of_an_unknown_context_lists_the_known_ones(redis_url: str) -> None:
    """The setting extends the built-in contexts."""
    async with in_process_registry(
        redis_url, security_contexts=parse_security_contexts("pci=encryption+audit")
    ) as client:
        unknown = expect_error(
            await client.post("/agents", json=a_registration(security_context="secret")), 422, "validation_failed"
        )
        missing = expect_error(
            await client.post("/agents", json=a_registration(security_context="pci", capabilities=["audit"])),
            422,
            "validation_failed",
        )
        await register(client, security_context="pci", capabilities=["audit", "encryption"])

    assert error_fields(unknown) == ["security_context"]
    assert "high_security, pci, standard" in unknown["message"]
    assert error_fields(missing) == ["capabilities"]
    assert missing["message"].endswith("requires the capabilities encryption")


async def test_all_errors_of_the_service_are_reported_in_one_response(client: httpx2.AsyncClient) -> None:
    """Context, thresholds and precondition: three errors in one response, with paths that start at the body."""
    sent = a_registration(security_context="secret", eviction_threshold=1, resource_version="x")

    body = expect_error(
        await client.post("/mcp/tools/register_agent", json={"registration_data": sent}), 422, "validation_failed"
    )

    assert error_fields(body) == [
        "registration_data.security_context",
        "registration_data.eviction_threshold",
        "registration_data.resource_version",
    ]


async def test_a_rejected_registration_does_not_change_the_agent(client: httpx2.AsyncClient) -> None:
    """Neither its spec nor its heartbeat, version or thresholds change."""
    await register(client, labels={"k": "v"})
    before = await get_agent(client)

    expect_error(await client.post("/agents", json=a_registration(labels={"k": "!"})), 422, "validation_failed")

    assert await get_agent(client) == before
