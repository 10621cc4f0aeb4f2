"""The agents in the README are complete programs, which also work without the date service."""

from typing import Any

import pytest

from tests.support.agent_process import AgentProcess, call_tool, wait_until_registered
from tests.support.replica import Replica
from tests.test_readme import README, blocks


@pytest.mark.parametrize(
    ("place", "tool", "arguments", "result"),
    [(0, "greet", {"name": "Ada"}, "Hello Ada"), (1, "add_note", {"text": "Buy milk"}, 1)],
)
async def test_an_agent_of_the_readme_runs(
    redis_url: str, place: int, tool: str, arguments: dict[str, Any], result: object
) -> None:
    """The code runs without a change."""
    codes = [block.text for block in blocks(README) if block.kind == "python" and "@mesh_agent" in block.text]
    with (
        Replica(redis_url) as replica,
        AgentProcess(codes[place], replica.url, name="readme", MCP_MESH_OVERRIDE="true"),
    ):
        agent = wait_until_registered(replica.url, "readme")

        assert await call_tool(agent["endpoint"], tool, **arguments) == result
