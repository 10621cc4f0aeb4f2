"""A watch returns every event once and in order, across reconnections."""

import asyncio
from typing import Any

import pytest
import redis
from mcp_mesh_client import RegistryClient, RequestRejected, Watch, WatchEvent, WatchExpired

from tests.client.client_setup import REGISTRATION, client_state, expect_success, http_url, prefer_replica
from tests.support.canned_server import CannedServer, http_response
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.machine_speed import scaled
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.served_registry import ServedRegistry, served_registry

TIMEOUT_S = scaled(60)


async def next_events(watch: Watch, count: int = 1) -> list[WatchEvent]:
    """Return the next `count` events; fail if they do not arrive."""
    async with asyncio.timeout(TIMEOUT_S):
        return [await anext(watch) for _ in range(count)]


def summary(events: list[WatchEvent]) -> list[tuple[str, str]]:
    """Return type and agent id of each event."""
    return [(event["type"], str(event["object"].get("id", ""))) for event in events]


async def register(served: ServedRegistry, agent_id: str, **fields: Any) -> None:
    """Register an agent without the client under test."""
    response = await served.client.post("/agents", json=REGISTRATION | {"id": agent_id} | fields)
    assert response.status_code == 200, response.text


async def test_a_watch_returns_the_changes_after_its_start(redis_url: str) -> None:
    """The initial state is returned on request; a watch can be resumed from the version of any event."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        await register(served, "before")
        async with client.watch() as changes, client.watch(send_initial=True, bookmarks=True) as with_initial:
            await register(served, "a")
            expect_success(await client.heartbeat("a"))
            expect_success(await client.unregister_agent("a"))

            events = await next_events(changes, 3)
            assert summary(events) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
            assert summary(await next_events(with_initial, 5)) == [
                ("ADDED", "before"),
                ("BOOKMARK", ""),
                *summary(events),
            ]
            assert changes.resource_version == events[-1]["resource_version"]
            assert events[1]["object"]["status"] == "healthy"
        async with client.watch(resource_version=events[0]["resource_version"]) as resumed:
            assert await next_events(resumed, 2) == events[1:]


async def test_a_watch_returns_only_events_that_match_its_filters(redis_url: str) -> None:
    """An agent that no longer matches is DELETED."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        watch = client.watch(capability="greeting", label_selector="env=prod")
        async with watch:
            await register(served, "other", labels={"env": "dev"})
            await register(served, "a", labels={"env": "prod"})
            await register(served, "a", labels={"env": "dev"})

            assert summary(await next_events(watch, 2)) == [("ADDED", "a"), ("DELETED", "a")]


async def test_a_watch_resumes_on_another_replica(dedicated_redis: RedisServer) -> None:
    """Every event arrives once and in order, although first one replica is killed and then the other."""
    with Replica(dedicated_redis.url) as one, Replica(dedicated_redis.url) as two:
        async with RegistryClient([one.url, two.url]) as client, RegistryClient([two.url, one.url]) as writer:
            await prefer_replica(client, one.url)
            async with client.watch() as watch:
                expect_success(await writer.register_agent(REGISTRATION | {"id": "a"}))
                events = await next_events(watch)
                one.kill()
                for name in "bcd":
                    expect_success(await writer.register_agent(REGISTRATION | {"id": name}))
                events += await next_events(watch, 3)
                one.start()
                two.kill()
                expect_success(await writer.heartbeat("a"))
                events += await next_events(watch)
                two.start()

    assert summary(events) == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c"), ("ADDED", "d"), ("MODIFIED", "a")]
    versions = [int(event["resource_version"]) for event in events]
    assert versions == sorted(set(versions))


async def test_after_a_gap_the_watch_returns_the_difference(dedicated_redis: RedisServer) -> None:
    """The log lost the changes: new agents are ADDED, changed ones MODIFIED, missing ones DELETED, each once."""
    async with (
        served_registry(dedicated_redis.url) as served,
        FaultyTcpProxy(served.url) as proxy,
        RegistryClient(http_url(proxy)) as client,
    ):
        for name in ("same", "changed", "gone"):
            await register(served, name)
        async with client.watch() as watch:
            await register(served, "short-lived")
            assert summary(await next_events(watch)) == [("ADDED", "short-lived")]
            proxy.refuse()
            await register(served, "changed", labels={"k": "v"})
            await register(served, "new")
            for name in ("gone", "short-lived"):
                assert (await served.client.delete(f"/agents/{name}")).status_code == 200
            await trim_the_log(dedicated_redis, served)
            await proxy.accept()

            events = await next_events(watch, 4)
            await register(served, "later")
            events += await next_events(watch)

    assert summary(events) == [
        ("MODIFIED", "changed"),
        ("ADDED", "new"),
        ("DELETED", "gone"),
        ("DELETED", "short-lived"),
        ("ADDED", "later"),
    ]
    versions = [int(event["resource_version"]) for event in events]
    assert versions == sorted(versions)


async def trim_the_log(server: RedisServer, served: ServedRegistry) -> None:
    """Remove the entries of the change log, so that a watch cannot resume from an older version."""
    with redis.Redis.from_url(server.url) as redis_client:
        redis_client.xtrim("{mesh}:log", maxlen=0)
    old = (await served.client.get("/agents")).json()["resource_version"]
    await served.client.get("/agents")
    response = await served.client.get(f"/agents?watch=true&timeout=1s&resource_version={int(old) - 1}")
    assert response.status_code == 410


async def test_a_watch_from_a_version_that_is_too_old_raises_watch_expired(dedicated_redis: RedisServer) -> None:
    """The client has no state to compare with, so the caller must list again."""
    async with served_registry(dedicated_redis.url) as served, RegistryClient(served.url) as client:
        await register(served, "same")
        before: Any = await client.agents()
        await register(served, "same", labels={"k": "v"})
        await trim_the_log(dedicated_redis, served)

        watch = client.watch(resource_version=before["resource_version"])
        with pytest.raises(WatchExpired, match="list again") as expired:
            await next_events(watch)

        assert expired.value.response["error"] == "version_too_old"
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_a_new_timeline_is_returned_as_the_difference(dedicated_redis: RedisServer) -> None:
    """The store lost its data while the watch was open: agents that no longer exist are DELETED."""
    async with served_registry(dedicated_redis.url) as served, RegistryClient(served.url) as client:
        await register(served, "lost")
        async with client.watch() as watch:
            with redis.Redis.from_url(dedicated_redis.url) as redis_client:
                redis_client.flushall()
            await register(served, "new")

            events = await next_events(watch, 2)

    assert sorted(summary(events)) == [("ADDED", "new"), ("DELETED", "lost")]


async def test_a_connection_without_data_is_given_up(redis_url: str) -> None:
    """After `watch_idle_timeout` without a byte the connection counts as dead, although it is still open."""
    async with (
        served_registry(redis_url) as served,
        FaultyTcpProxy(served.url) as proxy,
        RegistryClient([http_url(proxy), served.url], watch_idle_timeout=1.0) as client,
    ):
        await prefer_replica(client, http_url(proxy))
        async with client.watch() as watch:
            proxy.swallow_replies = True
            await register(served, "a")
            events = await next_events(watch)

            assert summary(events) == [("ADDED", "a")]
            assert proxy.connections == 1


async def test_a_watch_starts_when_the_registry_is_reachable(redis_url: str) -> None:
    """A watch can be created without a registry."""
    async with served_registry(redis_url) as served, FaultyTcpProxy(served.url) as proxy:
        proxy.refuse()
        async with RegistryClient(http_url(proxy)) as client:
            watch = client.watch(send_initial=True)
            waiting = asyncio.create_task(next_events(watch))
            await async_wait_until(lambda: client_state(client) == "offline", description="the client is offline")
            await register(served, "a")
            await proxy.accept()

            assert summary(await waiting) == [("ADDED", "a")]
            assert client_state(client) == "online"


async def test_watches_survive_an_outage_of_redis(dedicated_redis: RedisServer) -> None:
    """An open watch continues after the outage; a watch created during the outage opens after it."""
    async with (
        served_registry(dedicated_redis.url) as served,
        RegistryClient(served.url) as client,
        client.watch() as open_watch,
    ):
        dedicated_redis.pause()
        new_watch = client.watch(send_initial=True)
        waiting = asyncio.create_task(next_events(new_watch))
        await async_wait_until(lambda: client_state(client) == "degraded", description="the store is unavailable")
        dedicated_redis.resume()
        await register(served, "a")

        assert summary(await next_events(open_watch)) == summary(await waiting) == [("ADDED", "a")]


async def test_a_rejected_request_is_raised_with_its_response(redis_url: str) -> None:
    """A wrong filter or token would be rejected again, so the watch does not retry."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        with pytest.raises(RequestRejected, match="label_selector") as rejected:
            async with client.watch(label_selector="=="):
                pass

        assert rejected.value.response["error"] == "malformed_request"
        with pytest.raises(ValueError, match=r"^send_initial: "):
            client.watch(send_initial=True, resource_version=1)


async def test_closing_ends_the_wait_for_an_event(redis_url: str) -> None:
    """Closing the watch or its client ends an `async for` without an error."""
    async with served_registry(redis_url) as served:
        client = RegistryClient(served.url)
        for close in (lambda watch: watch.close(), lambda _watch: client.close()):
            watch = client.watch()
            await watch.__aenter__()
            seen: list[WatchEvent] = []

            async def iterate(watch: Watch = watch, seen: list[WatchEvent] = seen) -> None:
                seen.extend([event async for event in watch])

            task = asyncio.create_task(iterate())
            await register(served, "a")
            await register(served, "a", labels={"k": str(id(watch))})
            await async_wait_until(lambda watch=watch: watch.resource_version, description="an event arrived")  # type: ignore[misc]
            await close(watch)
            await task
        assert served.registry.watch_service.watchers == set() or await _wait_until_all_closed(served)


async def _wait_until_all_closed(served: ServedRegistry) -> bool:
    await async_wait_until(
        lambda: not served.registry.watch_service.watchers, description="the registry closed the streams"
    )
    return True


async def test_a_cancelled_wait_loses_no_event(redis_url: str) -> None:
    """`asyncio.wait_for` may wrap each `anext`."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client, client.watch() as watch:
        for name in "abc":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.02)
            await register(served, name)
            assert summary(await next_events(watch)) == [("ADDED", name)]


async def test_a_slow_reader_pauses_the_stream(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of buffered events is bounded, and no event is lost."""
    monkeypatch.setattr("mcp_mesh_client.watch._MAX_BUFFERED_EVENTS", 5)
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client, client.watch() as watch:
        for number in range(30):
            await register(served, f"a{number:02}")
        await async_wait_until(lambda: len(watch._events) > 5, description="events are buffered")
        assert len(watch._events) == 6

        assert [name for _, name in summary(await next_events(watch, 30))] == [f"a{number:02}" for number in range(30)]


async def test_invalid_lines_end_the_connection() -> None:
    """Another server may listen at the URL; the watch connects again."""
    stream = http_response(200, b'{"type":"BOOKMARK","object":{},"resource_version":"5","timestamp":"t"}\nnot json\n')
    async with CannedServer(stream) as server, RegistryClient(server.url) as client, client.watch() as watch:
        await async_wait_until(lambda: len(server.requests) > 2, description="it connected again")

        assert "resource_version=5" in server.requests[1]
        assert not watch._events or watch._events[0]["type"] == "BOOKMARK"


async def test_a_replica_that_closes_every_stream_is_not_flooded() -> None:
    """The pause between connections grows, although each connection succeeds."""
    stream = http_response(200, b'{"type":"BOOKMARK","object":{},"resource_version":"5","timestamp":"t"}\n')
    async with CannedServer(stream) as server, RegistryClient(server.url) as client, client.watch():
        await async_wait_until(lambda: len(server.requests) > 1, description="it connected again")
        before = len(server.requests)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 1.0)

        assert len(server.requests) - before < 60


async def test_without_a_registry_the_watch_retries_with_pauses() -> None:
    """Closing the watch ends the retries."""
    async with RegistryClient(f"http://127.0.0.1:{free_port()}") as client:
        watch = client.watch()
        waiting = asyncio.create_task(anext(watch))
        await async_wait_until(lambda: client_state(client) == "offline", description="the client is offline")
        await watch.close()

        with pytest.raises(StopAsyncIteration):
            await waiting
