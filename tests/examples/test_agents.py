"""The agent in the README is a complete program, which also works without the date service."""

from tests.support.agent_process import AgentProcess, call_tool, wait_until_registered
from tests.support.replica import Replica
from tests.test_readme import README, blocks


async def test_the_agent_of_the_readme_runs(redis_url: str) -> None:
    """The code runs without a change."""
    (code,) = (block.text for block in blocks(README) if block.kind == "python" and "@mesh_agent" in block.text)
    with Replica(redis_url) as replica, AgentProcess(code, replica.url, name="readme"):
        agent = wait_until_registered(replica.url, "readme")

        assert await call_tool(agent["endpoint"], "greet", name="Ada") == "Hello Ada"
