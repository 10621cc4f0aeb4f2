"""Warnings in the response to a heartbeat: fields that are nearly known ones."""

import httpx2
import pytest

from tests.support.http_calls import expect_error, expect_success, get_agent, register


@pytest.mark.parametrize(
    ("field", "known"), [("loda", "load"), ("metdata", "metadata"), ("dependencies_verson", "dependencies_version")]
)
async def test_a_misspelt_field_of_a_heartbeat_causes_a_warning(
    client: httpx2.AsyncClient, field: str, known: str
) -> None:
    """Also of a call of the tool; the heartbeat counts, and the field has no effect."""
    await register(client)

    for path in ("/heartbeat", "/mcp/tools/heartbeat"):
        body = expect_success(await client.post(path, json={"agent_id": "a", field: {"motto": "m"}}))

        problem = "is not a field of a heartbeat; it has no effect"
        assert body["warnings"] == [{"field": field, "problem": problem, "did_you_mean": known}]
    agent = await get_agent(client)
    assert (agent["status"], "motto" in str(agent)) == ("healthy", False)


async def test_a_misspelt_id_is_named_in_the_error(client: httpx2.AsyncClient) -> None:
    """Without an id there is no heartbeat."""
    body = expect_error(await client.post("/heartbeat", json={"agentid": "a"}), 422, "validation_failed")

    problem = "expected the id of a registered agent, a string, not agentid"
    assert body["details"] == [{"field": "agent_id", "problem": problem}]


async def test_another_unknown_field_causes_no_warning(client: httpx2.AsyncClient) -> None:
    """Agents send fields of their own; known fields have their effect, a load in the metadata, too."""
    await register(client)
    sent = {"agent_id": "a", "status": "healthy", "timestamp": "now", "lead": 1, "metadata": {"load": 3, "motto": "m"}}

    assert "warnings" not in expect_success(await client.post("/heartbeat", json=sent))

    assert "warnings" not in expect_success(await client.post("/heartbeat", json={"agent_id": "a", "load": 1}))
    agent = await get_agent(client)
    assert (agent["metadata"]["motto"], "load" in agent["metadata"]) == ("m", False)


async def test_the_warnings_of_a_heartbeat_are_limited(client: httpx2.AsyncClient) -> None:
    """A body may have very many unknown fields."""
    await register(client)
    many = {f"load{'_' * number}": 1 for number in range(1, 1000)}

    assert len(expect_success(await client.post("/heartbeat", json={"agent_id": "a"} | many))["warnings"]) == 20
