"""The agent state of the test process, reset for each test."""

import contextlib
from collections.abc import Iterator

import pytest
from mcp_mesh_client.agent import agent_process
from mcp_mesh_client.agent.agent_process import AgentProcess, current_process

from tests.support.ports import free_port


@contextlib.contextmanager
def in_process_agent(url: str | None = None, **env: str) -> Iterator[AgentProcess]:
    """Provide the agent state of this process, new for this block and closed at its end.

    Without a `url` no registry responds; with an empty one MCP_MESH_REGISTRY_URL is empty. The agent serves nothing on
    its own unless the environment, `env`, requires it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent_process, "_current", None)
        patch.setenv("MCP_MESH_REGISTRY_URL", f"http://127.0.0.1:{free_port()}" if url is None else url)
        patch.setenv("MCP_MESH_AUTO_RUN", "false")
        patch.setenv("MCP_MESH_HEALTH_INTERVAL", "0.1")
        for name, value in env.items():
            patch.setenv(name, value)
        current = current_process()
        try:
            yield current
        finally:
            current.close()
