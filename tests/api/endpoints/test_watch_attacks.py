"""Attacks on watches (T11): changes that push out the history of others, and agents that leave a filter."""

import asyncio
from typing import Any

import redis

from registry.store.store import Store
from tests.support.http_calls import expect_success
from tests.support.in_process_registry import in_process_registry
from tests.support.redis_server import RedisServer
from tests.support.served_registry import ServedRegistry, served_registry
from tests.support.watch_client import WatchEvent, open_watch

_MIB = 1024**2
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


def large_agent(at: int, size: int) -> dict[str, Any]:
    """Return a registration of about this many bytes; `at` distinguishes it from others."""
    capabilities = [{"name": f"c{number}", "description": "x" * 10_000} for number in range(size // 10_000)]
    return _DEV | {"capabilities": capabilities, "annotations": {"at": str(at)}}


async def last_matched(served: ServedRegistry) -> dict[str, Any]:
    """Return the agent as a read shows it now, without its heartbeat, which has no version."""
    found: dict[str, Any] = (await served.client.get("/agents/a")).json()
    return {name: value for name, value in found.items() if name != "last_heartbeat"}


def shown_as(agent: dict[str, Any], event: WatchEvent) -> bool:
    """Return whether the event deletes the agent with exactly this data, under the version of the event."""
    shown = {name: value for name, value in event.object.items() if name != "last_heartbeat"}
    return event.kind == "DELETED" and shown == agent | {"resource_version": str(event.version)}


async def test_400_drain_and_undrain_calls_of_one_agent_send_no_watcher_410(redis_url: str, store: Store) -> None:
    """With default settings: open watches continue, and a watch from before the calls resumes on every replica."""
    async with served_registry(redis_url) as served, served_registry(redis_url) as other:
        await register(served, _DEV | {"id": "quiet"})
        since = await register(served, _DEV)
        async with open_watch(served.url) as everything, open_watch(served.url, agent_id="quiet") as quiet:
            await asyncio.gather(*(store.agents.drain(["a"], draining=at % 2 == 0) for at in range(400)))
            last = await register(served, _DEV | {"id": "quiet", "version": "2.0.0"})
            received = [event.version for event in await everything.next_events(401)]
            assert [event.version for event in await quiet.next_events(1)] == received[-1:] == [int(last)]
        async with served_registry(redis_url) as restarted:
            for url in (served.url, other.url, restarted.url):
                async with open_watch(url, resource_version=since) as resumed:
                    assert [event.version for event in await resumed.next_events(401)] == received


async def test_40_updates_of_a_1_mb_agent_add_at_most_the_limit_to_redis(dedicated_redis: RedisServer) -> None:
    """They added 91 MB. A watch from a recent version resumes, also on a replica that started later."""
    limit = 16 * _MIB
    with redis.Redis.from_url(dedicated_redis.url) as client:
        async with served_registry(dedicated_redis.url, watch_history_bytes=limit) as served:
            versions = []
            for at in range(40):
                versions.append(await register(served, large_agent(at, 1_000_000)))
                memory: Any = client.memory_usage("{mesh}:log", samples=0)
                assert memory <= limit
            assert served.registry.reflector.watch_history.buffer.free_bytes >= 0
            async with open_watch(served.url, resource_version=versions[-2]) as resumed:
                assert [str(event.version) for event in await resumed.next_events(1)] == versions[-1:]
        async with (
            served_registry(dedicated_redis.url, watch_history_bytes=limit) as restarted,
            open_watch(restarted.url, resource_version=versions[-2]) as resumed,
        ):
            assert [str(event.version) for event in await resumed.next_events(1)] == versions[-1:]


async def test_a_resumed_watch_reads_no_more_of_the_log_than_fits_into_memory(redis_url: str) -> None:
    """The log has more than this replica may store: 410 instead of reading all of it."""
    async with in_process_registry(redis_url) as writer:
        for at in range(12):
            body = expect_success(await writer.post("/agents", json=large_agent(at, 300_000)))
            if at == 0:
                since = body["resource_version"]
        async with in_process_registry(redis_url, watch_history_bytes=4 * _MIB) as small:
            response = await small.get("/agents", params={"watch": "true", "resource_version": since})

        assert (response.status_code, response.json()["error"]) == (410, "version_too_old")
        resumed = await writer.get("/agents", params={"watch": "true", "resource_version": since, "timeout": "0.01s"})
        assert resumed.text.count('"MODIFIED"') == 11


async def test_a_watcher_of_dev_does_not_receive_the_new_endpoint_of_an_agent_that_moved_to_hr(redis_url: str) -> None:
    """DELETED has the agent as it last matched, with each kind of filter and in both stream formats."""
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
    """The events turn the list into a later list, and show no agent of another namespace."""
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
