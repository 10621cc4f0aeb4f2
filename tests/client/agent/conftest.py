"""A process that is no agent yet, before and after each test."""

from collections.abc import Iterator

import pytest
from mcp_mesh_client.agent.process import AgentProcess

from tests.support.in_process_agent import in_process_agent


@pytest.fixture
def here() -> Iterator[AgentProcess]:
    """Provide the presence of this process, which begins anew; it has no registry, and serves nothing by itself."""
    with in_process_agent() as found:
        yield found
