"""Long lists, read page by page."""

from typing import TYPE_CHECKING, Any

from registry.cli.errors import success

if TYPE_CHECKING:
    from mcp_mesh_client import AgentList, SyncRegistryClient, WatchFilters

PAGE = 500


def every_agent(registry: "SyncRegistryClient", filters: "WatchFilters") -> "AgentList":
    """Return all agents that match, as one answer, as of the version of its first page."""
    first = success(registry.agents(**filters, limit=PAGE))
    agents, token = first["agents"], first.get("continue")
    # Where the first page came from a replica's memory, so must the others.
    memory: Any = {"resource_version": "0"} if "stale_seconds" in first else {}
    while token is not None:
        page: Any = registry.agents(**filters, **memory, limit=PAGE, continue_=token)
        if page.get("error") in ("version_too_old", "version_ahead"):
            # More has changed meanwhile than can be followed; one long answer is of one version, too.
            return success(registry.agents(**filters))
        agents += success(page)["agents"]
        token = page.get("continue")
    whole: Any = {name: value for name, value in first.items() if name != "continue"}
    whole |= {"agents": agents, "count": len(agents)}
    answer: AgentList = whole
    return answer
