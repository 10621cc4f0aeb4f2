"""The agent state of this process, reset for each test."""

import contextlib
from collections.abc import Iterator

import pytest
from mcp_mesh_client.agent import process
from mcp_mesh_client.agent.process import AgentProcess, current_process

from tests.support.ports import free_port


@contextlib.contextmanager
def in_process_agent(url: str | None = None, **env: str) -> Iterator[AgentProcess]:
    """Provide the presence of this process, which begins anew and ends with the block.

    Without a `url` there is no registry; with an empty one the environment does not say which. It serves nothing by
    itself unless the environment, `env`, says so.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_current", None)
        patch.setenv("MCP_MESH_REGISTRY_URL", f"http://127.0.0.1:{free_port()}" if url is None else url)
        patch.setenv("MCP_MESH_AUTO_RUN", "false")
        patch.setenv("MCP_MESH_HEALTH_INTERVAL", "0.1")
        for name, value in env.items():
            patch.setenv(name, value)
        here = current_process()
        try:
            yield here
        finally:
            here.close()
