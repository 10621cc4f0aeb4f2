"""Warnings in the response to a registration, and registrations that are exclusive."""

from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from registry.api.request.registration_body import is_remote
from tests.support.http_calls import a_registration, expect_error, expect_success, get_agent, list_agent_ids, register

CONFLICTS = "mcp_registry_identity_conflicts_total"


async def counted_conflicts(client: httpx2.AsyncClient) -> float:
    """Return the number of conflicts that the replica counted."""
    lines = (await client.get("/metrics/prometheus")).text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{CONFLICTS} ")))


async def warnings_of(client: httpx2.AsyncClient, **fields: Any) -> list[dict[str, str]]:
    """Register agent a; return the warnings of the response."""
    response = expect_success(await client.post("/agents", json=a_registration(**fields)))
    warnings: list[dict[str, str]] = response.get("warnings", [])
    return warnings


async def test_an_unknown_field_that_is_nearly_known_is_stored_with_a_warning(client: httpx2.AsyncClient) -> None:
    """In a single call, in a batch call and by the tool, each with the path in its request."""
    sent = a_registration(capabilites=["w"])
    alone = expect_success(await client.post("/agents", json=sent))
    batch = expect_success(await client.post("/agents/batch", json={"agents": [a_registration("b"), sent]}))
    tool = expect_success(await client.post("/mcp/tools/register_agent", json={"registration_data": sent}))

    found = [alone["warnings"], batch["results"][1]["warnings"], tool["warnings"]]

    assert found == [
        [
            {
                "field": f"{prefix}capabilites",
                "problem": "is not a field of a registration; it is stored and has no effect",
                "did_you_mean": "capabilities",
            }
        ]
        for prefix in ("", "agents[1].", "registration_data.")
    ]
    assert "warnings" not in batch["results"][0]
    assert (await get_agent(client))["capabilites"] == ["w"]


async def test_a_loopback_endpoint_from_another_host_causes_a_warning(client: httpx2.AsyncClient) -> None:
    """The address of the sender is the one that a proxy reports."""
    sent = a_registration(endpoint="http://localhost:9001/mcp")
    near = expect_success(await client.post("/agents", json=sent))
    far = expect_success(await client.post("/agents", json=sent, headers={"x-forwarded-for": "10.0.0.9"}))

    assert "warnings" not in near
    assert [each["field"] for each in far["warnings"]] == ["endpoint"]


@pytest.mark.parametrize(
    ("scope", "remote"),
    [
        ({"client": ("10.0.0.9", 1), "server": ("10.0.0.1", 8000)}, True),
        ({"client": ("10.0.0.1", 1), "server": ("10.0.0.1", 8000)}, False),
        ({"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000)}, False),
        ({"client": ("::ffff:127.0.0.1", 1), "server": ("::", 8000)}, False),
        ({"client": None, "server": ("/run/socket", None)}, False),
        ({"client": ("127.0.0.1", 1), "headers": [(b"x-forwarded-for", b"10.0.0.9, 127.0.0.1")]}, True),
        ({"client": ("10.0.0.1", 1), "headers": [(b"x-forwarded-for", b"unknown")]}, False),
    ],
)
def test_a_sender_on_this_host_is_not_remote(scope: dict[str, Any], remote: bool) -> None:  # noqa: FBT001
    """It has a loopback address, or the address at which it called."""
    assert is_remote({"headers": []} | scope) == remote


async def test_the_same_id_in_another_namespace_is_reported(client: httpx2.AsyncClient) -> None:
    """The registration is taken, the response warns, the log has both places, and the conflict is counted."""
    assert await warnings_of(client, namespace="team-a", endpoint="http://a:1/mcp") == []

    with capture_logs() as logs:
        (warning,) = await warnings_of(client, namespace="team-b", endpoint="http://b:1/mcp")

    assert warning == {
        "field": "id",
        "problem": (
            "replaces a living agent of the namespace team-a at http://a:1/mcp; give each agent an id of its own"
        ),
    }
    assert [entry for entry in logs if entry["event"] == "identity_conflict"] == [
        {
            "event": "identity_conflict",
            "log_level": "warning",
            "logger_name": "registry.service.registration.identity_conflicts",
            "id": "a",
            "conflicts": 1,
            "namespace": "team-b",
            "endpoint": "http://b:1/mcp",
            "replaced_namespace": "team-a",
            "replaced_endpoint": "http://a:1/mcp",
        }
    ]
    assert await counted_conflicts(client) == 1
    assert await list_agent_ids(client, namespace="team-b") == ["a"]


async def test_two_endpoints_that_alternate_are_reported(client: httpx2.AsyncClient) -> None:
    """A restart at another port is no conflict; the return of the first endpoint within one timeout is one."""
    assert await warnings_of(client, endpoint="http://a:1") == []
    assert await warnings_of(client, endpoint="http://a:2") == []
    assert await warnings_of(client, endpoint="http://a:2", labels={"k": "v"}) == []

    for endpoint, other in (("http://a:1", "http://a:2"), ("http://a:2", "http://a:1")):
        (warning,) = await warnings_of(client, endpoint=endpoint)
        assert warning["problem"].startswith(f"is registered alternately with the endpoints {other} and {endpoint};")

    assert await counted_conflicts(client) == 2


async def test_an_exclusive_registration_is_rejected_while_another_endpoint_has_the_id(
    client: httpx2.AsyncClient,
) -> None:
    """The same endpoint may register again; `exclusive` is a condition of the call and not stored."""
    await register(client, exclusive=True)
    await register(client, exclusive=True, labels={"k": "v"})

    response = await client.post("/agents", json=a_registration(endpoint="http://b:1", exclusive=True))

    body = expect_error(response, 409, "id_in_use")
    assert "'a' is in use by an agent at http://a:1" in body["message"]
    agent = await get_agent(client)
    assert (agent["endpoint"], agent["labels"]) == ("http://a:1", {"k": "v"})
    assert "exclusive" not in agent


async def test_each_registration_of_a_batch_is_exclusive_or_not(client: httpx2.AsyncClient) -> None:
    """The others are registered."""
    await register(client)
    agents = [a_registration(endpoint="http://b:1", exclusive=True), a_registration("b", exclusive=True)]

    body = expect_success(await client.post("/agents/batch", json={"agents": agents}))

    assert [result.get("error", "registered") for result in body["results"]] == ["id_in_use", "registered"]


async def test_an_exclusive_registration_succeeds_when_the_other_agent_is_gone(client: httpx2.AsyncClient) -> None:
    """It was unregistered."""
    await register(client)
    expect_success(await client.delete("/agents/a"))

    await register(client, endpoint="http://b:1", exclusive=True)

    assert (await get_agent(client))["endpoint"] == "http://b:1"
