"""A process that is no agent yet, before and after each test."""

from collections.abc import Iterator

import pytest

from registry.client.agents import presence
from registry.client.agents.presence import Presence, present
from tests.support.ports import free_port


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Presence]:
    """Provide the presence of this process, which begins anew; it has no registry, and serves nothing by itself."""
    monkeypatch.setattr(presence, "_present", None)
    monkeypatch.setenv("MCP_MESH_REGISTRY_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MCP_MESH_AUTO_RUN", "false")
    monkeypatch.setenv("MCP_MESH_HEALTH_INTERVAL", "0.1")
    found = present()
    yield found
    found.close()
