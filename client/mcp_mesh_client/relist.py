"""What a watcher has been told of the mesh, so that after a gap it can be told what changed meanwhile."""

from collections.abc import Iterable
from typing import Any

from mcp_mesh_client.types.agents import Event, EventType


class Mirror:
    """The agents as the watcher knows them. It holds as many as match the watch."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] = {}

    def apply(self, event: Event) -> None:
        """Take an event that the watcher is told."""
        agent = event["object"]
        if event["type"] == "DELETED":
            self._known.pop(agent["id"], None)
        elif event["type"] != "BOOKMARK":
            self._known[agent["id"]] = agent

    def replace(self, agents: Iterable[dict[str, Any]], bookmark: Event) -> list[Event]:
        """Take the agents as they are at a bookmark; return what leads there from what was known, versions rising.

        Whoever is gone is DELETED as last known, at the version of the bookmark.
        """
        listed = {agent["id"]: agent for agent in agents}
        events = []
        for agent_id, agent in listed.items():
            before = self._known.get(agent_id)
            if before is None or before["resource_version"] != agent["resource_version"]:
                kind: EventType = "ADDED" if before is None else "MODIFIED"
                events.append(_event(kind, agent, bookmark["timestamp"]))
        events.sort(key=lambda event: int(event["resource_version"]))
        version = {"resource_version": bookmark["resource_version"]}
        gone = sorted(self._known.keys() - listed.keys())
        events += [_event("DELETED", self._known[agent_id] | version, bookmark["timestamp"]) for agent_id in gone]
        self._known = listed
        return events


def _event(kind: EventType, agent: dict[str, Any], timestamp: str) -> Event:
    return {"type": kind, "object": agent, "timestamp": timestamp, "resource_version": agent["resource_version"]}
