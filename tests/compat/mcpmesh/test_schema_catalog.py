"""The catalog of canonical schemas, and its endpoints."""

from typing import Any

import httpx2

from registry.compat.mcpmesh.schema_catalog import _collect_schemas
from tests.support.builders import an_agent
from tests.support.http_calls import a_registration
from tests.support.resolution_builders import view_of
from tests.support.yield_counter import count_yields

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}


def tool(name: str, **fields: Any) -> dict[str, Any]:
    """Return a tool in the mcp-mesh format."""
    return {"function_name": name, "capability": name} | fields


async def register(client: httpx2.AsyncClient, agent_id: str, *tools: dict[str, Any], **fields: Any) -> None:
    """Register an agent in the mcp-mesh format."""
    response = await client.post("/heartbeat", json={"agent_id": agent_id, "tools": tools} | fields)
    assert response.json()["status"] == "success", response.text


async def hashes(client: httpx2.AsyncClient, **query: str) -> list[str]:
    """Return the listed hashes."""
    found = (await client.get("/schemas", params=query)).json()
    assert found["count"] == len(found["schemas"])
    return [each["hash"] for each in found["schemas"]]


async def test_each_schema_is_listed_once_with_its_first_agent(client: httpx2.AsyncClient) -> None:
    """Input and output schemas count, of tools and of routes; the time is that of the first registration."""
    await register(client, "one", tool("a", inputSchemaHash="sha256:1", inputSchemaCanonical=CITY), runtime="java")
    route = tool("", outputSchemaHash="sha256:1", outputSchemaCanonical=CITY)
    await register(client, "two", route, tool("b", outputSchemaHash="sha256:2", outputSchemaCanonical={}))

    found = (await client.get("/schemas/sha256:1")).json()

    created = (await client.get("/agents/one")).json()["created_at"]
    assert found == {"hash": "sha256:1", "canonical": CITY, "runtime_origin": "java", "created_at": created}
    assert await hashes(client) == ["sha256:2", "sha256:1"]
    assert await hashes(client, limit="1") == ["sha256:2"]


async def test_a_schema_is_removed_with_its_last_agent(client: httpx2.AsyncClient) -> None:
    """The agent deregisters, or registers with another schema."""
    await register(client, "one", tool("a", inputSchemaHash="sha256:1", inputSchemaCanonical=CITY))
    await register(client, "two", tool("a", inputSchemaHash="sha256:1", inputSchemaCanonical=CITY))

    await client.delete("/agents/one")
    assert await hashes(client) == ["sha256:1"]
    await register(client, "two", tool("a", inputSchemaHash="sha256:3", inputSchemaCanonical=CITY))
    assert await hashes(client) == ["sha256:3"]


async def test_invalid_schemas_are_ignored(client: httpx2.AsyncClient) -> None:
    """So are fields of the same name in the native format."""
    odd: list[dict[str, Any]] = [
        tool("a", inputSchemaHash=7, inputSchemaCanonical=CITY),
        tool("b", inputSchemaHash="", inputSchemaCanonical=CITY),
        tool("c", inputSchemaHash="sha256:1"),
        tool("d", inputSchemaHash="sha256:2", inputSchemaCanonical="none"),
    ]
    await register(client, "one", *odd)
    capability = {"name": "x", "inputSchemaHash": "sha256:3", "inputSchemaCanonical": CITY}
    await client.post("/agents", json=a_registration("other", capabilities=[capability]))

    assert await hashes(client) == []


async def test_the_schemas_of_many_agents_are_collected_once(client: httpx2.AsyncClient) -> None:
    """The result is cached until the view changes."""
    for number in range(120):
        one = tool("a", inputSchemaHash=f"sha256:{number:03}", inputSchemaCanonical={"title": str(number)})
        await register(client, f"agent-{number}", one)

    assert len(await hashes(client, limit="1000")) == 120
    assert len(await hashes(client)) == 100
    assert (await client.get("/schemas/sha256:077")).json()["canonical"] == {"title": "77"}


async def test_an_unknown_schema_is_a_404_in_the_error_format_of_mcpmesh(client: httpx2.AsyncClient) -> None:
    """The message is the value of `error`."""
    response = await client.get("/schemas/sha256:0")

    assert (response.status_code, response.json()["error"]) == (404, "schema not found: sha256:0")


async def test_a_limit_is_a_number_within_bounds(client: httpx2.AsyncClient) -> None:
    """Unknown parameters are rejected, too."""
    for target in ("/schemas?limit=0", "/schemas?limit=1001", "/schemas?limit=x", "/schemas/x?limit=1"):
        response = await client.get(target)
        assert (response.status_code, response.json().keys()) == (400, {"error", "timestamp"})
        assert "limit" in response.json()["error"]


async def test_large_schemas_are_collected_cooperatively() -> None:
    """Fifty agents with a megabyte each once blocked the event loop for half a second."""
    schema = {"x": ["y"] * 100_000}
    tools = [{"name": "c", "outputSchemaHash": "h", "outputSchemaCanonical": schema}]
    view = view_of(
        *(an_agent(f"a-{at}", registration_format={"name": "mcp-mesh"}, capabilities=tools) for at in range(20))
    )
    async with count_yields() as counter:
        found = await _collect_schemas(view)

    assert list(found) == ["h"]
    assert counter.yields > 2
