"""Reads a list of agents page by page."""

from typing import TYPE_CHECKING, Any

from registry.cli.errors import unwrap

if TYPE_CHECKING:
    from mcp_mesh_client import AgentList, SyncRegistryClient, WatchFilters

PAGE_SIZE = 500


def list_all_agents(registry: "SyncRegistryClient", filters: "WatchFilters") -> "AgentList":
    """Return all matching agents as one response, at the version of the first page."""
    first = unwrap(registry.agents(**filters, limit=PAGE_SIZE))
    agents, token = first["agents"], first.get("continue")
    # If the first page came from the cache of a replica without Redis, the other pages must accept its cache, too.
    cache_only: Any = {"resource_version": "0"} if "stale_seconds" in first else {}
    while token is not None:
        page: Any = registry.agents(**filters, **cache_only, limit=PAGE_SIZE, continue_=token)
        if page.get("error") in ("version_too_old", "version_ahead"):
            # The version of the first page is no longer available; one unpaged response has one version, too.
            return unwrap(registry.agents(**filters))
        agents += unwrap(page)["agents"]
        token = page.get("continue")
    response: Any = {name: value for name, value in first.items() if name != "continue"}
    response |= {"agents": agents, "count": len(agents)}
    agent_list: AgentList = response
    return agent_list
