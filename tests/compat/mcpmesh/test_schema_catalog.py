"""The catalog of schemas in canonical form, and its routes."""

from typing import Any

import httpx2

from registry.compat.mcpmesh.schema_catalog import _collect_schemas
from tests.support.builders import an_agent
from tests.support.http_calls import a_registration, expect_error
from tests.support.resolution_builders import view_of
from tests.support.yield_counter import count_yields

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}


def tool(name: str, **fields: Any) -> dict[str, Any]:
    """Return a tool in flat form."""
    return {"function_name": name, "capability": name} | fields


async def register(client: httpx2.AsyncClient, agent_id: str, *tools: dict[str, Any], **fields: Any) -> None:
    """Register an agent in flat form."""
    answer = await client.post("/heartbeat", json={"agent_id": agent_id, "tools": tools} | fields)
    assert answer.json()["status"] == "success", answer.text


async def hashes(client: httpx2.AsyncClient, **query: str) -> list[str]:
    """Return the hashes that are listed."""
    found = (await client.get("/schemas", params=query)).json()
    assert found["count"] == len(found["schemas"])
    return [each["hash"] for each in found["schemas"]]


async def test_each_schema_is_there_once_with_who_had_it_first(client: httpx2.AsyncClient) -> None:
    """Of input and output alike, of routes too; the time is that of the earliest agent's registration."""
    await register(client, "one", tool("a", inputSchemaHash="sha256:1", inputSchemaCanonical=CITY), runtime="java")
    route = tool("", outputSchemaHash="sha256:1", outputSchemaCanonical=CITY)
    await register(client, "two", route, tool("b", outputSchemaHash="sha256:2", outputSchemaCanonical={}))

    found = (await client.get("/schemas/sha256:1")).json()

    created = (await client.get("/agents/one")).json()["created_at"]
    assert found == {"hash": "sha256:1", "canonical": CITY, "runtime_origin": "java", "created_at": created}
    assert await hashes(client) == ["sha256:2", "sha256:1"]
    assert await hashes(client, limit="1") == ["sha256:2"]


async def test_a_schema_is_gone_with_the_last_who_has_it(client: httpx2.AsyncClient) -> None:
    """Whether it left or has another one now."""
    await register(client, "one", tool("a", inputSchemaHash="sha256:1", inputSchemaCanonical=CITY))
    await register(client, "two", tool("a", inputSchemaHash="sha256:1", inputSchemaCanonical=CITY))

    await client.delete("/agents/one")
    assert await hashes(client) == ["sha256:1"]
    await register(client, "two", tool("a", inputSchemaHash="sha256:3", inputSchemaCanonical=CITY))
    assert await hashes(client) == ["sha256:3"]


async def test_what_is_no_schema_is_passed_over(client: httpx2.AsyncClient) -> None:
    """Whatever a client sends in its place, and whatever else is called so in another form."""
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


async def test_a_walk_over_many_agents_finds_all_and_is_shared(client: httpx2.AsyncClient) -> None:
    """Who asks while nothing has changed gets what the one before found."""
    for number in range(120):
        one = tool("a", inputSchemaHash=f"sha256:{number:03}", inputSchemaCanonical={"title": str(number)})
        await register(client, f"agent-{number}", one)

    assert len(await hashes(client, limit="1000")) == 120
    assert len(await hashes(client)) == 100
    assert (await client.get("/schemas/sha256:077")).json()["canonical"] == {"title": "77"}


async def test_an_unknown_schema_is_refused_in_the_form_that_mesh_clients_read(client: httpx2.AsyncClient) -> None:
    """The sentence stands under `error`."""
    answer = await client.get("/schemas/sha256:0")

    assert (answer.status_code, answer.json()["error"]) == (404, "schema not found: sha256:0")


async def test_a_limit_is_a_number_within_bounds(client: httpx2.AsyncClient) -> None:
    """As everywhere."""
    for limit in ("0", "1001", "x"):
        expect_error(await client.get("/schemas", params={"limit": limit}), 400, "malformed_request")
    expect_error(await client.get("/schemas/x?limit=1"), 400, "malformed_request")


async def test_large_schemas_are_gathered_in_turns() -> None:
    """Fifty agents of a megabyte each were read without a break, which took half a second."""
    schema = {"x": ["y"] * 100_000}
    tools = [{"name": "c", "outputSchemaHash": "h", "outputSchemaCanonical": schema}]
    view = view_of(
        *(an_agent(f"a-{at}", registration_format={"name": "mcp-mesh"}, capabilities=tools) for at in range(20))
    )
    async with count_yields() as them:
        found = await _collect_schemas(view)

    assert list(found) == ["h"]
    assert them.yields > 2
