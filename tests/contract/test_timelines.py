"""A promoted replica lacks the last writes and reuses their versions: no client continues with wrong data."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
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
    """A registry on a primary, and a replica that was promoted without the registry.

    The last version belongs to agent `lost` on the one server and to agent `other` on the other. `stream` is a watch
    that has received `lost`; `fail_over` connects the registry to the new primary.
    """

    served: ServedRegistry
    before: RedisServer
    after: RedisServer
    stream: WatchStream
    proxy: FaultyTcpProxy
    version: int

    def fail_over(self) -> None:
        """Close the connections to the old primary; the address then leads to the new one."""
        self.proxy.switch_upstream(self.after.url)
        self.proxy.cut()


async def register(served: ServedRegistry, agent_id: str) -> int:
    """Register an agent through the registry; return the version."""
    response = await served.client.post("/agents", json={"id": agent_id, "endpoint": "http://a:1"})
    assert response.status_code == 200, response.text
    return int(response.json()["resource_version"])


async def register_on(server: RedisServer, agent_id: str) -> int:
    """Register an agent on a server, as another replica does that already uses it; return the version."""
    store = Store(endpoint_from_url(server.url), Settings(), lambda _script, _seconds: None)
    try:
        spec = b'{"endpoint":"http://a:1","id":"%s"}' % agent_id.encode()
        return (await store.agents.register(RegistrationWrite(agent_id, spec, 60_000, 120_000))).version
    finally:
        await store.close()


async def post(served: ServedRegistry, agent: dict[str, Any]) -> list[str]:
    """Register an agent in mcp-mesh format; return the endpoints that its function `f` gets."""
    response = await served.client.post("/heartbeat", json=agent)
    assert response.json()["status"] == "success", response.text
    return [entry["endpoint"] for entry in response.json()["dependencies_resolved"].get("f", [])]


async def head(served: ServedRegistry, agent: dict[str, Any]) -> int:
    """Send a HEAD heartbeat of an agent in mcp-mesh format; return the status."""
    return (await served.client.head(f"/heartbeat/{agent['agent_id']}")).status_code


async def wait_for_full_heartbeat_request(served: ServedRegistry, agent: dict[str, Any]) -> None:
    """Send HEAD heartbeats until one returns 202: if Redis takes longer than 30 ms, the answer is 200."""

    async def requested() -> bool:
        return await head(served, agent) == 202

    await async_wait_until(requested, description=f"a full heartbeat of {agent['agent_id']} is requested")


@contextlib.asynccontextmanager
async def split(*agents: dict[str, Any]) -> AsyncIterator[Split]:
    """Promote a replica that lacks one write, and reuse the version of that write; these agents are on both servers.

    Versions are an hour ahead of the clock, as they are briefly after a burst of more than 1,000 a second: otherwise
    the clock would make the versions of the two servers differ.
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
            await async_wait_until(lambda: bool(new.xrange(LOG, common)), description="the replica has the write")
            new.replicaof("NO", "ONE")
            async with open_watch(served.url, resource_version=common) as stream:
                version = await register(served, "lost")
                assert [event.kind_and_id for event in await stream.next_events(1)] == [("ADDED", "lost")]
                assert await register_on(after, "other") == version
                yield Split(served, before, after, stream, proxy, version)


async def listed_ids(served: ServedRegistry) -> list[str]:
    """Return the ids of the registered agents."""
    response = await served.client.get("/agents")
    return [agent["id"] for agent in response.json()["agents"]] if response.status_code == 200 else []


async def wait_for_410(stream: WatchStream) -> dict[str, Any]:
    """Return the error that ends a stream at once; no event of the new primary precedes it."""
    event = await stream.next_event()
    assert event is not None
    assert event.kind == "ERROR", event
    assert await stream.next_event() is None
    return event.object


async def test_a_watch_that_received_a_lost_write_must_list_again() -> None:
    """Its version now belongs to another agent, so the watch is not continued from there."""
    async with split() as setup:
        setup.fail_over()

        error = await wait_for_410(setup.stream)

        assert error["error"] == "version_too_old"
        await async_wait_until(lambda: listed_ids(setup.served), description="lists succeed again")
        assert await listed_ids(setup.served) == ["common", "other"]


async def test_a_resume_after_a_lost_write_must_list_again_on_any_replica() -> None:
    """This includes a replica that never saw the lost write: the version exists there, with another content."""
    async with split() as setup:
        setup.fail_over()
        await wait_for_410(setup.stream)
        await async_wait_until(lambda: listed_ids(setup.served), description="lists succeed again")

        async with served_registry(setup.after.url) as new_replica:
            for each in (setup.served, new_replica):
                target = f"/agents?watch=true&resource_version={setup.version}"
                async with open_stream(each.url, target) as stream:
                    assert (stream.status, (await stream.json_body())["error"]) == (410, "version_too_old")


async def test_versions_continue_above_all_earlier_ones() -> None:
    """They belong to another timeline, and no stored agent is missing."""
    async with split() as setup:
        before = setup.served.registry.status.health()["timeline"]
        setup.fail_over()
        await wait_for_410(setup.stream)
        await async_wait_until(lambda: listed_ids(setup.served), description="lists succeed again")

        assert await register(setup.served, "next") > setup.version
        assert await listed_ids(setup.served) == ["common", "next", "other"]
        assert setup.served.registry.status.health()["timeline"] != before


async def test_a_log_that_changes_under_an_open_connection_is_detected() -> None:
    """The last entry is compared: version, timeline and connection are the same, but its content differs."""
    async with split() as setup:
        with redis.Redis.from_url(setup.before.url) as old, redis.Redis.from_url(setup.after.url) as new:
            for key in (LOG, "{mesh}:agent:other", "{mesh}:deadlines"):
                old.restore(key, 0, new.dump(key), replace=True)
            old.delete("{mesh}:agent:lost")
        fills = setup.served.registry.reflector.fills

        await wait_for_410(setup.stream)

        await async_wait_until(
            lambda: setup.served.registry.reflector.fills > fills, description="the cache is filled again"
        )
        assert await listed_ids(setup.served) == ["common", "other"]
        assert setup.proxy.connections


async def test_a_lost_write_does_not_leave_an_outdated_resolution() -> None:
    """Consumer and provider must each send a full heartbeat once.

    The new primary has lost the new address of the provider, and that its consumer received it. By its own data nothing
    had changed, so no full heartbeat was requested, and the consumer had another address than the registry until the
    next change.
    """
    consumer = {"agent_id": "me", "tools": [{"function_name": "f", "dependencies": [{"capability": "c"}]}]}
    provider = {"agent_id": "p", "http_host": "h", "tools": [{"function_name": "g", "capability": "c"}]}
    before, after = provider | {"http_port": 1}, provider | {"http_port": 2}
    async with split(before, consumer) as setup:
        await post(setup.served, after)
        assert await post(setup.served, consumer) == ["http://h:2"]
        setup.fail_over()
        await async_wait_until(lambda: listed_ids(setup.served), description="lists succeed again")

        for agent in (consumer, provider):
            await wait_for_full_heartbeat_request(setup.served, agent)
        await post(setup.served, after)
        assert await post(setup.served, consumer) == ["http://h:2"]
        assert [await head(setup.served, agent) for agent in (consumer, provider)] == [200, 200]


async def request_until_served(send: Callable[[], Awaitable[httpx2.Response]]) -> httpx2.Response:
    """Repeat a request while the response is 503; return the first other response."""
    responses: list[httpx2.Response] = []

    async def is_served() -> bool:
        responses.append(await send())
        return responses[-1].status_code != 503

    await async_wait_until(is_served, description="the request is served")
    return responses[-1]


async def listed_version(served: ServedRegistry) -> int:
    """Return the resource version of a list, once the replica returns one."""
    return int((await request_until_served(lambda: served.client.get("/agents"))).json()["resource_version"])


@pytest.mark.parametrize("second_loss", ["fail-back", "FLUSHALL"])
@pytest.mark.parametrize("first_request", ["write", "read"])
async def test_versions_never_go_back_over_two_losses_within_a_minute(second_loss: str, first_request: str) -> None:
    """Three replicas continue above all versions of the lost timelines, so an old precondition does not match."""
    async with (
        split() as setup,
        served_registry(setup.proxy.url) as second,
        served_registry(setup.proxy.url) as third,
    ):
        replicas = (setup.served, second, third)
        setup.fail_over()
        await wait_for_410(setup.stream)
        seen = [await listed_version(each) for each in replicas]
        prize = await register(second, "prize")
        assert prize > max(seen) > setup.version

        if second_loss == "FLUSHALL":
            with redis.Redis.from_url(setup.after.url) as server:
                server.flushall()
        else:
            setup.proxy.switch_upstream(setup.before.url)
            setup.proxy.cut()
        other = {"id": "prize", "endpoint": "http://other:1"}
        lowest = prize
        if first_request == "read":
            lowest = min([await listed_version(each) for each in replicas])
        written = await request_until_served(lambda: third.client.post("/agents", json=other))
        mine = {"id": "prize", "endpoint": "http://mine:1", "resource_version": str(prize)}
        conditional = await request_until_served(lambda: setup.served.client.post("/agents", json=mine))

        assert int(written.json()["resource_version"]) > lowest >= prize
        assert (conditional.status_code, conditional.json()["error"]) == (409, "stale_version")
        for each in replicas:
            assert await listed_version(each) >= int(written.json()["resource_version"])
            assert (await each.client.get("/agents/prize")).json()["endpoint"] == "http://other:1"
            async with open_stream(each.url, f"/agents?watch=true&resource_version={prize}") as stream:
                assert stream.status == 410
