"""A promoted replica lacks the last writes and gives their versions anew: nobody is led from one past to the other."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import redis

from registry.config.settings import Settings
from registry.store.agents import RegistrationWrite
from registry.store.redis.connection import endpoint_from_url
from registry.store.store import Store
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer
from tests.support.served_registry import ServedRegistry, served_registry
from tests.support.watch_client import WatchStream, open_stream, open_watch

LOG = "{mesh}:log"
AN_HOUR = 3_600_000


@dataclass(frozen=True)
class Split:
    """A registry on a primary, and a replica that was promoted behind its back.

    The last version stands for agent `lost` in the one, and for agent `other` in the other. `stream` is a watch that
    has seen `lost`; `failed_over` lets the registry find the new primary.
    """

    served: ServedRegistry
    before: RedisServer
    after: RedisServer
    stream: WatchStream
    proxy: FaultyTcpProxy
    version: int

    def fail_over(self) -> None:
        """Cut the registry off from the old primary; the address leads to the new one."""
        self.proxy.switch_upstream(self.after.url)
        self.proxy.cut()


async def register(served: ServedRegistry, agent_id: str) -> int:
    """Register through the registry; return the version."""
    answer = await served.client.post("/agents", json={"id": agent_id, "endpoint": "http://a:1"})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["resource_version"])


async def register_behind_its_back(server: RedisServer, agent_id: str) -> int:
    """Register as another replica would, which has found the new primary already; return the version."""
    store = Store(endpoint_from_url(server.url), Settings(), lambda _script, _seconds: None)
    try:
        spec = b'{"endpoint":"http://a:1","id":"%s"}' % agent_id.encode()
        return (await store.agents.register(RegistrationWrite(agent_id, spec, 60_000, 120_000))).version
    finally:
        await store.close()


async def post(served: ServedRegistry, agent: dict[str, Any]) -> list[str]:
    """Register an agent in flat form; return the endpoints its function `f` gets."""
    answer = await served.client.post("/heartbeat", json=agent)
    assert answer.json()["status"] == "success", answer.text
    return [entry["endpoint"] for entry in answer.json()["dependencies_resolved"].get("f", [])]


async def head(served: ServedRegistry, agent: dict[str, Any]) -> int:
    """Send a sign of life of an agent in flat form; return the status."""
    return (await served.client.head(f"/heartbeat/{agent['agent_id']}")).status_code


@contextlib.asynccontextmanager
async def split(*agents: dict[str, Any]) -> AsyncIterator[Split]:
    """Let a replica lack one write, be promoted, and give its version to another; these agents are in both.

    Versions are an hour ahead of the clock, as they are a little after each burst of more than 1,000 a second: else the
    clock would make versions of two pasts differ.
    """
    with contextlib.ExitStack() as servers:
        before = servers.enter_context(RedisServer(tcp=True))
        follow = ("--replicaof", "127.0.0.1", str(before.port), "--repl-diskless-sync-delay", "0")
        after = servers.enter_context(RedisServer(*follow, tcp=True))
        old = servers.enter_context(redis.Redis.from_url(before.url))
        new = servers.enter_context(redis.Redis.from_url(after.url))
        old.set("{mesh}:version", int(old.time()[0]) * 1000 + AN_HOUR)
        async with FaultyTcpProxy(before.url) as proxy, served_registry(proxy.url) as served:
            for agent in agents:
                await post(served, agent)
            common = await register(served, "common")
            await async_wait_until(lambda: bool(new.xrange(LOG, common)), description="the replica has it", timeout=20)
            new.replicaof("NO", "ONE")
            async with open_watch(served.url, resource_version=common) as stream:
                version = await register(served, "lost")
                assert [event.kind_and_id for event in await stream.next_events(1)] == [("ADDED", "lost")]
                assert await register_behind_its_back(after, "other") == version
                yield Split(served, before, after, stream, proxy, version)


async def listed(served: ServedRegistry) -> list[str]:
    """Return who is registered."""
    answer = await served.client.get("/agents")
    return [agent["id"] for agent in answer.json()["agents"]] if answer.status_code == 200 else []


async def ends_with_410(stream: WatchStream) -> dict[str, Any]:
    """Return the error with which a stream ends at once; nothing of the other past comes before it."""
    event = await stream.next_event()
    assert event is not None
    assert event.kind == "ERROR", event
    assert await stream.next_event() is None
    return event.object


async def test_a_stream_that_saw_what_was_lost_is_told_to_list_again() -> None:
    """It had the version for one agent; it is not led on from the same version of another."""
    async with split() as world:
        world.fail_over()

        error = await ends_with_410(world.stream)

        assert error["error"] == "version_too_old"
        await async_wait_until(lambda: listed(world.served), description="lists are answered again")
        assert await listed(world.served) == ["common", "other"]


async def test_who_was_away_meanwhile_is_told_to_list_again_wherever_it_asks() -> None:
    """Also by a replica that has never seen the lost past: the version exists there, with another content."""
    async with split() as world:
        world.fail_over()
        await ends_with_410(world.stream)
        await async_wait_until(lambda: listed(world.served), description="lists are answered again")

        async with served_registry(world.after.url) as newcomer:
            for each in (world.served, newcomer):
                target = f"/agents?watch=true&resource_version={world.version}"
                async with open_stream(each.url, target) as stream:
                    assert (stream.status, (await stream.json_body())["error"]) == (410, "version_too_old")


async def test_versions_go_on_above_all_that_was_seen() -> None:
    """In another history, in which nothing is missing."""
    async with split() as world:
        before = world.served.registry.status.health()["timeline"]
        world.fail_over()
        await ends_with_410(world.stream)
        await async_wait_until(lambda: listed(world.served), description="lists are answered again")

        assert await register(world.served, "next") > world.version
        assert await listed(world.served) == ["common", "next", "other"]
        assert world.served.registry.status.health()["timeline"] != before


async def test_a_log_that_changes_under_an_open_connection_is_noticed() -> None:
    """The held entry must read as it did: same version, same history, same connection, but another content."""
    async with split() as world:
        with redis.Redis.from_url(world.before.url) as old, redis.Redis.from_url(world.after.url) as new:
            for key in (LOG, "{mesh}:agent:other", "{mesh}:deadlines"):
                old.restore(key, 0, new.dump(key), replace=True)
            old.delete("{mesh}:agent:lost")
        fills = world.served.registry.reflector.fills

        await ends_with_410(world.stream)

        await async_wait_until(lambda: world.served.registry.reflector.fills > fills, description="it is filled anew")
        assert await listed(world.served) == ["common", "other"]
        assert world.proxy.connections


async def test_what_mesh_clients_were_told_and_said_is_not_lost_with_the_writes() -> None:
    """Both are asked to send all they are once, and all is well; only the store knew what it had told them.

    It forgot that a provider had moved, and that its consumer had been told so: by what it knew there was nothing new
    to tell, so it sent nobody to ask, and the consumer and the mesh did not agree for as long as nothing else happened.
    """
    consumer = {"agent_id": "me", "tools": [{"function_name": "f", "dependencies": [{"capability": "c"}]}]}
    provider = {"agent_id": "p", "http_host": "h", "tools": [{"function_name": "g", "capability": "c"}]}
    before, after = provider | {"http_port": 1}, provider | {"http_port": 2}
    async with split(before, consumer) as world:
        await post(world.served, after)
        assert await post(world.served, consumer) == ["http://h:2"]
        world.fail_over()
        await async_wait_until(lambda: listed(world.served), description="lists are answered again")

        assert [await head(world.served, agent) for agent in (consumer, provider)] == [202, 202]
        await post(world.served, after)
        assert await post(world.served, consumer) == ["http://h:2"]
        assert [await head(world.served, agent) for agent in (consumer, provider)] == [200, 200]
