"""Long lists, read page by page."""

from typing import TYPE_CHECKING, Any

from registry.cli.errors import unwrap

if TYPE_CHECKING:
    from mcp_mesh_client import AgentList, SyncRegistryClient, WatchFilters

PAGE_SIZE = 500


def list_all_agents(registry: "SyncRegistryClient", filters: "WatchFilters") -> "AgentList":
    """Return all agents that match, as one answer, as of the version of its first page."""
    first = unwrap(registry.agents(**filters, limit=PAGE_SIZE))
    agents, token = first["agents"], first.get("continue")
    # Where the first page came from a replica's memory, so must the others.
    memory: Any = {"resource_version": "0"} if "stale_seconds" in first else {}
    while token is not None:
        page: Any = registry.agents(**filters, **memory, limit=PAGE_SIZE, continue_=token)
        if page.get("error") in ("version_too_old", "version_ahead"):
            # More has changed meanwhile than can be followed; one long answer is of one version, too.
            return unwrap(registry.agents(**filters))
        agents += unwrap(page)["agents"]
        token = page.get("continue")
    whole: Any = {name: value for name, value in first.items() if name != "continue"}
    whole |= {"agents": agents, "count": len(agents)}
    answer: AgentList = whole
    return answer
