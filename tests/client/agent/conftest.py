"""The agent of the test process, new for each test."""

from collections.abc import Iterator

import pytest
from mcp_mesh_client.agent.agent_process import AgentProcess

from tests.support.in_process_agent import in_process_agent


@pytest.fixture
def local_process() -> Iterator[AgentProcess]:
    """Provide a new agent of this process, without a registry and without a server of its own."""
    with in_process_agent() as found:
        yield found
