"""The page `registry_service.md`: its queries, its status names, its tools."""

import ast
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.seeds.code_blocks import DOCUMENTS_DIR, find_code_block
from tests.support.http_calls import expect_success, list_agent_ids, register, send_heartbeat
from tests.support.in_process_registry import in_process_registry

PAGE = "registry_service.md"


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Provide a client of a replica in this process."""
    async with in_process_registry(redis_url) as client:
        yield client


def queries() -> list[Any]:
    """Return the query objects of the page."""
    code = ast.parse(find_code_block(PAGE, "# Find services by capability"))
    return [ast.literal_eval(node.value) for node in ast.walk(code) if isinstance(node, ast.Assign)]


async def test_the_queries_of_the_page_find_the_agents_they_describe(client: httpx2.AsyncClient) -> None:
    """By capability and status; by labels and namespace."""
    await register(client, "files", capabilities=["file_read", "file_write"])
    await register(client, "db", namespace="production", labels={"type": "database", "version": "1.0"})
    await register(client, "old-db", namespace="production", labels={"type": "database", "version": "0.9"})
    for agent_id in ("files", "db", "old-db"):
        await send_heartbeat(client, agent_id)

    found = []
    for query in queries():
        response = expect_success(await client.post("/mcp/tools/discover_services", json={"query": query}))
        found.append([agent["id"] for agent in response["agents"]])

    assert found == [["files"], ["db"]]


async def test_the_status_names_of_the_page_are_valid_filters(client: httpx2.AsyncClient) -> None:
    """`pending`, `healthy`, `unhealthy` and `offline` are all valid filters."""
    (line,) = (
        line for line in (DOCUMENTS_DIR / PAGE).read_text(encoding="utf-8").splitlines() if "Status values:" in line
    )
    names = line.split("`")[1::2]
    assert names == ["pending", "healthy", "unhealthy", "offline"]
    await register(client)

    assert [await list_agent_ids(client, status=name) for name in names] == [["a"], [], [], []]


async def test_every_tool_of_the_page_exists(client: httpx2.AsyncClient) -> None:
    """The list has one further tool."""
    text = (DOCUMENTS_DIR / PAGE).read_text(encoding="utf-8")
    tools = (await client.get("/mcp/tools")).json()["tools"]

    assert tools.pop()["name"] == "select_agent"
    assert len(tools) == 5
    for tool in tools:
        assert f"- `{tool['name']}`: " in text
