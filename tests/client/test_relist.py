"""What a watcher knows, and what leads from there to the truth."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mcp_mesh_client.relist import WatchedAgents
from mcp_mesh_client.types.agents import WatchEvent, WatchEventType

STATES = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 99))


def an_agent(agent_id: str, version: int) -> dict[str, Any]:
    """Return an agent at a version."""
    return {"id": agent_id, "resource_version": str(version)}


def an_event(kind: WatchEventType, version: int, agent_id: str | None = None) -> WatchEvent:
    """Return an event of a watch."""
    agent = {"resource_version": str(version)} if agent_id is None else an_agent(agent_id, version)
    return {"type": kind, "object": agent, "timestamp": "now", "resource_version": str(version)}


@given(STATES, STATES)
def test_the_difference_leads_from_what_was_known_to_what_is(before: dict[str, int], after: dict[str, int]) -> None:
    """Told to another mirror it makes the same state; versions rise; what is the same is not told."""
    mirror, told = WatchedAgents(), dict(before)
    mirror.relist([an_agent(*each) for each in before.items()], an_event("BOOKMARK", 100))

    events = mirror.relist([an_agent(*each) for each in after.items()], an_event("BOOKMARK", 200))

    for event in events:
        agent_id = event["object"]["id"]
        assert event["object"]["resource_version"] == event["resource_version"]
        if event["type"] == "DELETED":
            assert event["resource_version"] == "200"
            del told[agent_id]
        else:
            assert event["type"] == ("MODIFIED" if agent_id in told else "ADDED")
            assert told.get(agent_id) != after[agent_id]
            told[agent_id] = after[agent_id]
    assert told == after
    versions = [int(event["resource_version"]) for event in events]
    assert versions == sorted(versions)


def test_events_are_taken_as_they_are_told() -> None:
    """Known is who was added or modified and not deleted; bookmarks are about nobody."""
    mirror = WatchedAgents()
    for event in (an_event("ADDED", 1, "a"), an_event("ADDED", 2, "b"), an_event("MODIFIED", 3, "b")):
        mirror.apply(event)
    mirror.apply(an_event("DELETED", 4, "a"))
    mirror.apply(an_event("DELETED", 5, "never there"))
    mirror.apply(an_event("BOOKMARK", 6))

    (event,) = mirror.relist([], an_event("BOOKMARK", 7))

    assert event == an_event("DELETED", 7, "b")
