"""The health of the Redis server: store probe, counters, and warnings about its configuration."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import redis

from registry.store.agents import RegistrationWrite
from registry.store.keys import Keys
from registry.store.redis.connection import RedisEndpoint, endpoint_from_url, in_memory_endpoint
from registry.store.redis.pipeline import Pipeline
from registry.store.redis_health import ConfigCheck, SelfPreservation, ServerHealth
from registry.store.store import Store
from tests.support.redis_server import RedisServer


@contextlib.asynccontextmanager
async def health_of(server: RedisEndpoint, acks: int = 0) -> AsyncIterator[ServerHealth]:
    """Provide the health check of a server."""
    pipeline = Pipeline(server.connect, shebang=server.shebang)
    try:
        yield ServerHealth(Keys("mesh"), pipeline, acks=acks)
    finally:
        await pipeline.close()


async def test_a_correct_configuration_has_no_warnings() -> None:
    """The append-only file is on, and no key is evicted."""
    with RedisServer("--appendonly", "yes", "--maxmemory-policy", "noeviction") as server:
        async with health_of(endpoint_from_url(server.url)) as health:
            assert await health.check_config() == ConfigCheck()


async def test_missing_persistence_is_a_warning(dedicated_redis: RedisServer) -> None:
    """It names the settings to use."""
    async with health_of(endpoint_from_url(dedicated_redis.url)) as health:
        (warning,) = (await health.check_config()).warnings

    assert warning.startswith("appendonly is off")
    assert "set appendonly yes and appendfsync always" in warning


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_eviction_is_a_warning(policy: str) -> None:
    """Versions and agents are keys that could be evicted."""
    with RedisServer("--appendonly", "yes", "--maxmemory", "99mb", "--maxmemory-policy", policy) as server:
        async with health_of(endpoint_from_url(server.url)) as health:
            (warning,) = (await health.check_config()).warnings

    assert warning.startswith(f"maxmemory-policy is {policy}")
    assert warning.endswith("set maxmemory-policy noeviction")


async def test_all_warnings_are_returned(dedicated_redis: RedisServer) -> None:
    """The check does not stop at the first."""
    with redis.Redis.from_url(dedicated_redis.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "99mb")

    async with health_of(endpoint_from_url(dedicated_redis.url)) as health:
        assert len((await health.check_config()).warnings) == 2


async def test_an_eviction_policy_without_a_memory_limit_is_no_warning() -> None:
    """Without a limit no key is evicted."""
    with RedisServer("--appendonly", "yes", "--maxmemory-policy", "allkeys-lru", "--maxmemory", "0") as server:
        async with health_of(endpoint_from_url(server.url)) as health:
            assert await health.check_config() == ConfigCheck()


async def test_too_few_replicas_for_the_write_acknowledgements_are_a_warning(dedicated_redis: RedisServer) -> None:
    """No write would succeed."""
    async with health_of(endpoint_from_url(dedicated_redis.url), acks=2) as health:
        warning = (await health.check_config()).warnings[-1]

    assert warning.startswith("0 Redis replicas are connected, REGISTRY_WRITE_ACKS requires 2")


async def test_a_new_connection_requires_another_check(dedicated_redis: RedisServer) -> None:
    """It may lead to another server with another configuration."""
    async with health_of(endpoint_from_url(dedicated_redis.url)) as health:
        at_first, _, after_check = health.reconnected, await health.check_config(), health.reconnected
        assert (at_first, after_check) == (True, False)

        await health._pipeline._disconnect()
        await health.probe()

        assert health.reconnected


def restrict_user(server: RedisServer, *commands: str) -> str:
    """Create a user with all permissions except these; return the URL with the user."""
    with redis.Redis.from_url(server.url) as client:
        client.acl_setuser(
            "app", reset=True, enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"], commands=commands
        )
    return server.url.replace("unix://", "unix://app:pw@")


async def test_without_info_the_values_of_config_are_checked(dedicated_redis: RedisServer) -> None:
    """A warning names the values that only INFO contains."""
    with redis.Redis.from_url(dedicated_redis.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "99mb")

    async with health_of(endpoint_from_url(restrict_user(dedicated_redis, "-info"))) as health:
        found = await health.check_config()

    assert [warning.partition(":")[0] for warning in found.warnings] == [
        "Version, replicas and failed disk writes of Redis are unknown",
        "maxmemory-policy is allkeys-lru",
        "appendonly is off",
    ]
    assert health.refused_commands == ()


async def test_without_config_the_values_of_info_are_checked(dedicated_redis: RedisServer) -> None:
    """They contain everything that is checked, so there is no other warning."""
    async with health_of(endpoint_from_url(restrict_user(dedicated_redis, "-config|get"))) as health:
        (warning,) = (await health.check_config()).warnings

    assert warning.startswith("appendonly is off")


async def test_a_configuration_that_cannot_be_read_is_a_warning(dedicated_redis: RedisServer) -> None:
    """The connection remains open."""
    async with health_of(endpoint_from_url(restrict_user(dedicated_redis, "-info", "-config"))) as health:
        (warning,) = (await health.check_config()).warnings
        opened = health._pipeline.connections_opened
        await health.check_config()

    assert warning.startswith("Persistence, eviction and version of Redis are unknown")
    assert health._pipeline.connections_opened == opened


async def test_a_server_in_memory_has_no_warnings() -> None:
    """It has no INFO; the missing persistence was logged at startup."""
    async with health_of(in_memory_endpoint()) as health:
        assert await health.check_config() == ConfigCheck()


@pytest.mark.parametrize(
    ("info", "warned"),
    [
        ({"redis_version": "6.2.14"}, True),
        ({"redis_version": "7.0.0"}, False),
        ({"redis_version": "8.2.1"}, False),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, False),
        ({"redis_version": "10.0"}, False),
        ({}, False),
    ],
    ids=str,
)
async def test_a_server_that_is_too_old_is_reported(info: dict[str, str], *, warned: bool) -> None:
    """Scripts with `#!lua` require 7.0; a server without a version is accepted."""

    class FixedInfo(Pipeline):
        async def execute(self, *_args: object, **_kwargs: object) -> list[object]:
            lines = {"aof_enabled": "1", "maxmemory_policy": "noeviction"} | info
            return ["\r\n".join(["# Server", *(f"{name}:{value}" for name, value in lines.items())]).encode(), []]

    found = await ServerHealth(Keys("mesh"), FixedInfo(in_memory_endpoint().connect)).check_config()

    assert bool(found.unsupported_version) == warned
    assert "7.0 or later" in (found.unsupported_version or "7.0 or later")
    assert found.warnings == ()


async def test_a_probe_is_recorded(store: Store, redis_client: redis.Redis) -> None:
    """The time is in milliseconds of the server."""
    seconds, _ = redis_client.time()

    await store.server_health.probe()

    assert int(redis_client.get("{mesh}:last_probe") or 0) >= seconds * 1000


async def test_totals_are_those_of_the_whole_mesh(store: Store) -> None:
    """There are none at first."""
    assert await store.server_health.totals() == {}
    await store.change_log.open()
    await store.agents.register(RegistrationWrite("a", b"{}", 60_000, 120_000))
    await store.agents.register(RegistrationWrite("b", b"{}", 60_000, 120_000))
    await store.agents.heartbeat("a")
    await store.agents.unregister("a")

    assert await store.server_health.totals() == {"registrations": 2, "heartbeats": 1, "unregistrations": 1}


async def test_a_probe_returns_the_last_outage_and_self_preservation(store: Store, redis_client: redis.Redis) -> None:
    """They are as the scripts stored them; the first probe of all ends an outage with an unknown start."""
    first = await store.server_health.probe()
    assert (first.outage_end, first.outage_start, first.self_preservation) == (first.now, None, ())
    redis_client.set("{mesh}:last_probe", first.now + 60_000)
    redis_client.hset("{mesh}:self_preservation", "n", "1 2 3 - 4 5")
    redis_client.zadd("{mesh}:protected", {"n": -1})
    redis_client.hset("{mesh}:counters", mapping={"grace_granted": "6", "self_preservation_activations": "7"})

    second = await store.server_health.probe()

    assert (second.outage_end, second.outage_start, second.repairing_clock_rollback) == (
        second.now,
        first.now + 60_000,
        True,
    )
    assert (second.grace_granted, second.self_preservation_activations, second.self_preservation) == (
        6,
        7,
        (SelfPreservation("n", 1, 2, 3, 4, 5, 0),),
    )
