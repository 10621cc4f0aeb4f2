"""A watch tells everything once and in order, wherever it has to go on."""

import asyncio
from typing import Any

import pytest
import redis
from mcp_mesh_client import RegistryClient, RequestRejected, Watch, WatchEvent, WatchExpired

from tests.client.client_setup import REGISTRATION, client_state, expect_success, http_url, prefer_replica
from tests.support.canned_server import CannedServer, http_response
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.served_registry import ServedRegistry, served_registry

PATIENCE = 10.0


async def take(watch: Watch, count: int = 1) -> list[WatchEvent]:
    """Return the next so many events, which must come."""
    async with asyncio.timeout(PATIENCE):
        return [await anext(watch) for _ in range(count)]


def brief(events: list[WatchEvent]) -> list[tuple[str, str]]:
    """Return what happened to whom."""
    return [(event["type"], str(event["object"].get("id", ""))) for event in events]


async def register(served: ServedRegistry, agent_id: str, **fields: Any) -> None:
    """Register an agent without the client under test."""
    answer = await served.client.post("/agents", json=REGISTRATION | {"id": agent_id} | fields)
    assert answer.status_code == 200, answer.text


async def test_a_watch_tells_what_happens_from_where_it_stands(redis_url: str) -> None:
    """Not the state before, unless that is asked for; the version of each event is one to go on from."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        await register(served, "before")
        async with client.watch() as quiet, client.watch(send_initial=True, bookmarks=True) as whole:
            await register(served, "a")
            expect_success(await client.heartbeat("a"))
            expect_success(await client.unregister_agent("a"))

            told = await take(quiet, 3)
            assert brief(told) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
            assert brief(await take(whole, 5)) == [("ADDED", "before"), ("BOOKMARK", ""), *brief(told)]
            assert quiet.resource_version == told[-1]["resource_version"]
            assert told[1]["object"]["status"] == "healthy"
        async with client.watch(resource_version=told[0]["resource_version"]) as resumed:
            assert await take(resumed, 2) == told[1:]


async def test_a_watch_tells_only_what_matches_its_filters(redis_url: str) -> None:
    """What stops matching is DELETED for it."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        watch = client.watch(capability="greeting", label_selector="env=prod")
        async with watch:
            await register(served, "other", labels={"env": "dev"})
            await register(served, "a", labels={"env": "prod"})
            await register(served, "a", labels={"env": "dev"})

            assert brief(await take(watch, 2)) == [("ADDED", "a"), ("DELETED", "a")]


async def test_a_replica_killed_in_mid_watch_goes_unnoticed(own_server: RedisServer) -> None:
    """Every change is told once and in order, by whichever replica lives, back and forth."""
    with Replica(own_server.url) as one, Replica(own_server.url) as two:
        async with RegistryClient([one.url, two.url]) as client, RegistryClient([two.url, one.url]) as writer:
            await prefer_replica(client, one.url)
            async with client.watch() as watch:
                expect_success(await writer.register_agent(REGISTRATION | {"id": "a"}))
                told = await take(watch)
                one.kill()
                for name in "bcd":
                    expect_success(await writer.register_agent(REGISTRATION | {"id": name}))
                told += await take(watch, 3)
                one.start()
                two.kill()
                expect_success(await writer.heartbeat("a"))
                told += await take(watch)
                two.start()

    assert brief(told) == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c"), ("ADDED", "d"), ("MODIFIED", "a")]
    versions = [int(event["resource_version"]) for event in told]
    assert versions == sorted(set(versions))


async def test_after_a_gap_the_difference_is_told(own_server: RedisServer) -> None:
    """The log no longer leads on: who came is ADDED, who changed MODIFIED, who went DELETED, nobody twice."""
    async with (
        served_registry(own_server.url) as served,
        FaultyTcpProxy(served.url) as proxy,
        RegistryClient(http_url(proxy)) as client,
    ):
        for name in ("same", "changed", "gone"):
            await register(served, name)
        async with client.watch() as watch:
            await register(served, "told")
            assert brief(await take(watch)) == [("ADDED", "told")]
            proxy.refuse()
            await register(served, "changed", labels={"k": "v"})
            await register(served, "new")
            for name in ("gone", "told"):
                assert (await served.client.delete(f"/agents/{name}")).status_code == 200
            await cut_the_log(own_server, served)
            await proxy.accept()

            told = await take(watch, 4)
            await register(served, "later")
            told += await take(watch)

    assert brief(told) == [
        ("MODIFIED", "changed"),
        ("ADDED", "new"),
        ("DELETED", "gone"),
        ("DELETED", "told"),
        ("ADDED", "later"),
    ]
    versions = [int(event["resource_version"]) for event in told]
    assert versions == sorted(versions)


async def cut_the_log(server: RedisServer, served: ServedRegistry) -> None:
    """Make the registry forget what led to its present version."""
    with redis.Redis.from_url(server.url) as raw:
        raw.xtrim("{mesh}:log", maxlen=0)
    old = (await served.client.get("/agents")).json()["resource_version"]
    await served.client.get("/agents")
    answer = await served.client.get(f"/agents?watch=true&timeout=1s&resource_version={int(old) - 1}")
    assert answer.status_code == 410


async def test_from_a_version_that_is_forgotten_a_watch_says_so(own_server: RedisServer) -> None:
    """There is nothing to compare with: who gave the version must list again."""
    async with served_registry(own_server.url) as served, RegistryClient(served.url) as client:
        await register(served, "same")
        before: Any = await client.agents()
        await register(served, "same", labels={"k": "v"})
        await cut_the_log(own_server, served)

        watch = client.watch(resource_version=before["resource_version"])
        with pytest.raises(WatchExpired, match="list again") as expired:
            await take(watch)

        assert expired.value.response["error"] == "version_too_old"
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_another_history_is_told_as_what_it_changed(own_server: RedisServer) -> None:
    """The store lost everything while the watch was open: whoever is not there any more is DELETED."""
    async with served_registry(own_server.url) as served, RegistryClient(served.url) as client:
        await register(served, "lost")
        async with client.watch() as watch:
            with redis.Redis.from_url(own_server.url) as raw:
                raw.flushall()
            await register(served, "new")

            told = await take(watch, 2)

    assert sorted(brief(told)) == [("ADDED", "new"), ("DELETED", "lost")]


async def test_a_silent_connection_is_left(redis_url: str) -> None:
    """Bytes that do not come for too long are a connection that is dead, though nobody closed it."""
    async with (
        served_registry(redis_url) as served,
        FaultyTcpProxy(served.url) as proxy,
        RegistryClient([http_url(proxy), served.url], watch_idle_timeout=1.0) as client,
    ):
        await prefer_replica(client, http_url(proxy))
        async with client.watch() as watch:
            proxy.swallow_replies = True
            await register(served, "a")
            told = await take(watch)

            assert brief(told) == [("ADDED", "a")]
            assert proxy.connections == 1


async def test_a_watch_stands_once_there_is_a_registry(redis_url: str) -> None:
    """It needs none to begin."""
    async with served_registry(redis_url) as served, FaultyTcpProxy(served.url) as proxy:
        proxy.refuse()
        async with RegistryClient(http_url(proxy)) as client:
            watch = client.watch(send_initial=True)
            waiting = asyncio.create_task(take(watch))
            await async_wait_until(lambda: client_state(client) == "offline", description="the client is offline")
            await register(served, "a")
            await proxy.accept()

            assert brief(await waiting) == [("ADDED", "a")]
            assert client_state(client) == "online"


async def test_a_frozen_store_is_waited_for(own_server: RedisServer) -> None:
    """A watch that stands goes on when it thaws; one that begins meanwhile stands then."""
    async with (
        served_registry(own_server.url) as served,
        RegistryClient(served.url) as client,
        client.watch() as standing,
    ):
        own_server.pause()
        beginning = client.watch(send_initial=True)
        waiting = asyncio.create_task(take(beginning))
        await async_wait_until(lambda: client_state(client) == "degraded", description="it was asked", timeout=PATIENCE)
        own_server.resume()
        await register(served, "a")

        assert brief(await take(standing)) == brief(await waiting) == [("ADDED", "a")]


async def test_what_the_registry_does_not_want_is_raised_with_its_answer(redis_url: str) -> None:
    """A bad filter, a wrong token: trying again would not help."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        with pytest.raises(RequestRejected, match="label_selector") as refused:
            async with client.watch(label_selector="=="):
                pass

        assert refused.value.response["error"] == "malformed_request"
        with pytest.raises(ValueError, match=r"^send_initial: "):
            client.watch(send_initial=True, resource_version=1)


async def test_closing_ends_the_wait_for_an_event(redis_url: str) -> None:
    """By the watch itself, or with the client; an `async for` just ends."""
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
            await async_wait_until(lambda watch=watch: watch.resource_version, description="an event came")  # type: ignore[misc]
            await close(watch)
            async with asyncio.timeout(PATIENCE):
                await task
        assert served.registry.watch_service.watchers == set() or await _all_gone(served)


async def _all_gone(served: ServedRegistry) -> bool:
    await async_wait_until(lambda: not served.registry.watch_service.watchers, description="the registry let go")
    return True


async def test_cancelling_a_wait_loses_no_event(redis_url: str) -> None:
    """`asyncio.wait_for` round each is safe."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client, client.watch() as watch:
        for name in "abc":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.02)
            await register(served, name)
            assert brief(await take(watch)) == [("ADDED", name)]


async def test_who_does_not_come_for_events_makes_the_stream_wait(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held for it is bounded; nothing is lost."""
    monkeypatch.setattr("mcp_mesh_client.watch._MAX_BUFFERED_EVENTS", 5)
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client, client.watch() as watch:
        for number in range(30):
            await register(served, f"a{number:02}")
        await async_wait_until(lambda: len(watch._events) > 5, description="events wait")
        assert len(watch._events) == 6

        assert [name for _, name in brief(await take(watch, 30))] == [f"a{number:02}" for number in range(30)]


async def test_a_stranger_in_the_registrys_place_is_not_believed() -> None:
    """Lines that are no events end the connection, and the watch looks elsewhere."""
    stream = http_response(200, b'{"type":"BOOKMARK","object":{},"resource_version":"5","timestamp":"t"}\nnot json\n')
    async with CannedServer(stream) as server, RegistryClient(server.url) as client, client.watch() as watch:
        await async_wait_until(lambda: len(server.requests) > 2, description="it connected again")

        assert "resource_version=5" in server.requests[1]
        assert not watch._events or watch._events[0]["type"] == "BOOKMARK"


async def test_a_replica_that_ends_every_stream_at_once_is_not_stormed() -> None:
    """There is a growing pause between two tries, though each one works."""
    stream = http_response(200, b'{"type":"BOOKMARK","object":{},"resource_version":"5","timestamp":"t"}\n')
    async with CannedServer(stream) as server, RegistryClient(server.url) as client, client.watch():
        await async_wait_until(lambda: len(server.requests) > 1, description="it connected again")
        before = len(server.requests)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 1.0)

        assert len(server.requests) - before < 60


async def test_no_registry_at_all_is_looked_for_with_pauses() -> None:
    """Closing ends that, too."""
    async with RegistryClient(f"http://127.0.0.1:{free_port()}") as client:
        watch = client.watch()
        waiting = asyncio.create_task(anext(watch))
        await async_wait_until(lambda: client_state(client) == "offline", description="the client is offline")
        await watch.close()

        with pytest.raises(StopAsyncIteration):
            await waiting
