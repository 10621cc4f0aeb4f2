"""A process that is no agent yet, before and after each test."""

from collections.abc import Iterator

import pytest
from mcp_mesh_client.agent.process import Presence

from tests.support.in_process_agent import agent_here


@pytest.fixture
def here() -> Iterator[Presence]:
    """Provide the presence of this process, which begins anew; it has no registry, and serves nothing by itself."""
    with agent_here() as found:
        yield found
