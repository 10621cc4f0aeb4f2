"""The agents that a watch has received, from which the changes missed during a gap are computed."""

from collections.abc import Iterable
from typing import Any

from mcp_mesh_client.types.agents import WatchEvent, WatchEventType


class WatchedAgents:
    """The last received state of each agent that matches a watch."""

    def __init__(self) -> None:
        self._agents: dict[str, dict[str, Any]] = {}

    def apply(self, event: WatchEvent) -> None:
        """Update the agents with an event of the watch."""
        agent = event["object"]
        if event["type"] == "DELETED":
            self._agents.pop(agent["id"], None)
        elif event["type"] != "BOOKMARK":
            self._agents[agent["id"]] = agent

    def relist(self, agents: Iterable[dict[str, Any]], bookmark: WatchEvent) -> list[WatchEvent]:
        """Replace all agents by newly listed ones; return the differences as events, ordered by version.

        A missing agent is DELETED with its last known data, at the version of the bookmark.
        """
        listed = {agent["id"]: agent for agent in agents}
        events = []
        for agent_id, agent in listed.items():
            before = self._agents.get(agent_id)
            if before is None or before["resource_version"] != agent["resource_version"]:
                kind: WatchEventType = "ADDED" if before is None else "MODIFIED"
                events.append(_watch_event(kind, agent, bookmark["timestamp"]))
        events.sort(key=lambda event: int(event["resource_version"]))
        version = {"resource_version": bookmark["resource_version"]}
        removed_ids = sorted(self._agents.keys() - listed.keys())
        events += [
            _watch_event("DELETED", self._agents[agent_id] | version, bookmark["timestamp"]) for agent_id in removed_ids
        ]
        self._agents = listed
        return events


def _watch_event(event_type: WatchEventType, agent: dict[str, Any], timestamp: str) -> WatchEvent:
    return {"type": event_type, "object": agent, "timestamp": timestamp, "resource_version": agent["resource_version"]}
