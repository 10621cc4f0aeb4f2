"""Attacks on watches (T11): agents that leave a filter."""

from typing import Any

from tests.support.http_calls import expect_success
from tests.support.served_registry import ServedRegistry, served_registry
from tests.support.watch_client import WatchEvent, open_watch

_DEV: dict[str, Any] = {
    "id": "a",
    "namespace": "dev",
    "endpoint": "http://dev:1/mcp",
    "annotations": {"owner": "dev"},
    "capabilities": ["read"],
    "labels": {"team": "dev"},
}
_HR: dict[str, Any] = {
    "id": "a",
    "namespace": "hr",
    "endpoint": "http://payroll.hr:1/mcp",
    "annotations": {"secret": "salaries"},
    "capabilities": ["pay"],
    "labels": {"team": "hr"},
}


async def register(served: ServedRegistry, agent: dict[str, Any]) -> str:
    """Register an agent; return the version."""
    return str(expect_success(await served.client.post("/agents", json=agent))["resource_version"])


async def last_matched(served: ServedRegistry) -> dict[str, Any]:
    """Return the agent as a read shows it now, without its heartbeat, which has no version."""
    found: dict[str, Any] = (await served.client.get("/agents/a")).json()
    return {name: value for name, value in found.items() if name != "last_heartbeat"}


def shown_as(agent: dict[str, Any], event: WatchEvent) -> bool:
    """Return whether the event deletes the agent with exactly this data, under the version of the event."""
    shown = {name: value for name, value in event.object.items() if name != "last_heartbeat"}
    return event.kind == "DELETED" and shown == agent | {"resource_version": str(event.version)}


async def test_a_watcher_of_dev_does_not_receive_the_new_endpoint_of_an_agent_that_moved_to_hr(redis_url: str) -> None:
    """DELETED has the agent as it last matched; also with a filter by label, by capability, or as server-sent events."""
    async with (
        served_registry(redis_url) as served,
        open_watch(served.url, namespace="dev") as namespace,
        open_watch(served.url, {"accept": "text/event-stream"}, namespace="dev") as events,
        open_watch(served.url, label_selector="team=dev") as label,
        open_watch(served.url, capability="read") as capability,
        open_watch(served.url, namespace="hr") as hr,
    ):
        await register(served, _DEV)
        before = await last_matched(served)
        moved = await register(served, _HR)
        for stream in (namespace, events, label, capability):
            added, deleted = await stream.next_events(2)
            assert added.kind == "ADDED"
            assert shown_as(before, deleted), deleted
            assert str(deleted.version) == moved
        (event,) = await hr.next_events(1)
        assert event.kind == "ADDED"
        assert event.object == (await served.client.get("/agents/a")).json()


async def test_a_watch_that_resumes_from_the_log_does_not_receive_the_new_endpoint_either(redis_url: str) -> None:
    """A replica that started after the move reads both states from the log in Redis."""
    async with served_registry(redis_url) as served:
        since = await register(served, _DEV)
        before = await last_matched(served)
        await register(served, _HR)
        async with served_registry(redis_url) as restarted:
            for url in (served.url, restarted.url):
                async with open_watch(url, namespace="dev", resource_version=since) as resumed:
                    (deleted,) = await resumed.next_events(1)
                    assert shown_as(before, deleted), deleted


async def test_an_agent_that_drains_or_changes_its_status_leaves_a_filter_as_it_last_matched(redis_url: str) -> None:
    """Its status and its drain are those before the change; a pending agent has no heartbeat yet."""
    async with (
        served_registry(redis_url) as served,
        open_watch(served.url, draining="false") as in_service,
        open_watch(served.url, status="pending") as pending,
    ):
        await register(served, _DEV)
        registered = await last_matched(served)
        expect_success(await served.client.post("/heartbeat", json={"agent_id": "a"}))
        healthy = await last_matched(served)
        expect_success(await served.client.post("/agents/a/drain"))

        assert shown_as(healthy, (await in_service.next_events(3))[-1])
        first_heartbeat = (await pending.next_events(2))[-1]
        assert shown_as(registered, first_heartbeat)
        assert first_heartbeat.object["last_heartbeat"] is None


async def test_a_list_and_a_watch_from_its_version_agree_when_agents_leave_the_filter(redis_url: str) -> None:
    """A client that applies the events to the list has the agents of a later list, and saw none of another namespace."""
    async with served_registry(redis_url) as served:
        for at in range(20):
            await register(served, _DEV | {"id": f"a{at}"})
        listed = (await served.client.get("/agents?namespace=dev")).json()
        agents = {agent["id"]: agent for agent in listed["agents"]}
        async with open_watch(served.url, namespace="dev", resource_version=listed["resource_version"]) as stream:
            for at in range(20):
                await register(served, (_HR if at % 2 else _DEV) | {"id": f"a{at}", "version": "2.0.0"})
            for event in await stream.next_events(20):
                assert event.object["namespace"] == "dev"
                if event.kind == "DELETED":
                    assert event.object == agents.pop(event.agent_id) | {"resource_version": str(event.version)}
                else:
                    agents[event.agent_id] = event.object
        now = (await served.client.get("/agents?namespace=dev")).json()["agents"]
        assert agents == {agent["id"]: agent for agent in now}
