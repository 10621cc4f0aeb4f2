"""The agents of a watch, and the events that lead from them to a new list."""

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
def test_the_events_of_a_relist_lead_from_the_old_state_to_the_new_one(
    before: dict[str, int], after: dict[str, int]
) -> None:
    """Applied to the old state they give the new one; versions increase; unchanged agents have no event."""
    agents, state = WatchedAgents(), dict(before)
    agents.relist([an_agent(*each) for each in before.items()], an_event("BOOKMARK", 100))

    events = agents.relist([an_agent(*each) for each in after.items()], an_event("BOOKMARK", 200))

    for event in events:
        agent_id = event["object"]["id"]
        assert event["object"]["resource_version"] == event["resource_version"]
        if event["type"] == "DELETED":
            assert event["resource_version"] == "200"
            del state[agent_id]
        else:
            assert event["type"] == ("MODIFIED" if agent_id in state else "ADDED")
            assert state.get(agent_id) != after[agent_id]
            state[agent_id] = after[agent_id]
    assert state == after
    versions = [int(event["resource_version"]) for event in events]
    assert versions == sorted(versions)


def test_events_update_the_watched_agents() -> None:
    """An agent is watched from ADDED or MODIFIED until DELETED; bookmarks change no agent."""
    agents = WatchedAgents()
    for event in (an_event("ADDED", 1, "a"), an_event("ADDED", 2, "b"), an_event("MODIFIED", 3, "b")):
        agents.apply(event)
    agents.apply(an_event("DELETED", 4, "a"))
    agents.apply(an_event("DELETED", 5, "never there"))
    agents.apply(an_event("BOOKMARK", 6))

    (event,) = agents.relist([], an_event("BOOKMARK", 7))

    assert event == an_event("DELETED", 7, "b")
