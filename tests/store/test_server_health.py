"""What the store says of itself, and what it warns of."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import redis

from registry.store.agents import RegistrationWrite
from registry.store.keys import Keys
from registry.store.redis.connection import RedisEndpoint, endpoint_from_url, in_memory_endpoint
from registry.store.redis.pipeline import Pipeline
from registry.store.server_health import ConfigCheck, SelfPreservation, ServerHealth
from registry.store.store import Store
from tests.support.redis_server import RedisServer


@contextlib.asynccontextmanager
async def vitals(server: RedisEndpoint, acks: int = 0) -> AsyncIterator[ServerHealth]:
    """The vitals of a server."""
    link = Pipeline(server.connect)
    try:
        yield ServerHealth(Keys("mesh"), link, shebang=server.shebang, acks=acks)
    finally:
        await link.close()


async def test_a_server_as_it_should_be_gives_no_warning() -> None:
    """Append-only file on, nothing evicted."""
    with RedisServer("--appendonly", "yes", "--maxmemory-policy", "noeviction") as server:
        async with vitals(endpoint_from_url(server.url)) as found:
            assert await found.check_config() == ConfigCheck()


async def test_a_server_that_forgets_is_warned_of(own_server: RedisServer) -> None:
    """With what to set."""
    async with vitals(endpoint_from_url(own_server.url)) as found:
        (warning,) = (await found.check_config()).warnings

    assert warning.startswith("appendonly is off")
    assert "set appendonly yes and appendfsync always" in warning


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_a_server_that_evicts_is_warned_of(policy: str) -> None:
    """Whatever it evicts: versions and agents are keys like any other."""
    with RedisServer("--appendonly", "yes", "--maxmemory", "99mb", "--maxmemory-policy", policy) as server:
        async with vitals(endpoint_from_url(server.url)) as found:
            (warning,) = (await found.check_config()).warnings

    assert warning.startswith(f"maxmemory-policy is {policy}")
    assert warning.endswith("set maxmemory-policy noeviction")


async def test_all_that_is_wrong_is_told(own_server: RedisServer) -> None:
    """Not only the first."""
    with redis.Redis.from_url(own_server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "99mb")

    async with vitals(endpoint_from_url(own_server.url)) as found:
        assert len((await found.check_config()).warnings) == 2


async def test_without_a_limit_nothing_is_evicted() -> None:
    """Whatever the policy would be."""
    with RedisServer("--appendonly", "yes", "--maxmemory-policy", "allkeys-lru", "--maxmemory", "0") as server:
        async with vitals(endpoint_from_url(server.url)) as found:
            assert await found.check_config() == ConfigCheck()


async def test_too_few_replicas_for_the_acknowledgements_asked_for_are_warned_of(own_server: RedisServer) -> None:
    """For then no write succeeds."""
    async with vitals(endpoint_from_url(own_server.url), acks=2) as found:
        warning = (await found.check_config()).warnings[-1]

    assert warning.startswith("0 Redis replicas are connected, REGISTRY_WRITE_ACKS requires 2")


async def test_a_new_connection_is_a_reason_to_look_again(own_server: RedisServer) -> None:
    """Another server may stand behind it, set up in another way."""
    async with vitals(endpoint_from_url(own_server.url)) as found:
        at_first, _, examined = found.reconnected, await found.check_config(), found.reconnected
        assert (at_first, examined) == (True, False)

        await found._pipeline._disconnect()
        await found.probe()

        assert found.reconnected


async def test_a_server_that_does_not_let_us_ask_is_not_judged(own_server: RedisServer) -> None:
    """INFO may be refused by its access list."""
    with redis.Redis.from_url(own_server.url) as client:
        client.acl_setuser("app", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"], commands=["-info"])

    async with vitals(endpoint_from_url(own_server.url.replace("unix://", "unix://app:pw@"))) as found:
        assert await found.check_config() == ConfigCheck()


async def test_a_server_in_memory_is_not_judged() -> None:
    """It has no INFO; that nothing is kept was said at the start."""
    async with vitals(in_memory_endpoint()) as found:
        assert await found.check_config() == ConfigCheck()


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
async def test_a_server_that_is_too_old_is_told(info: dict[str, str], *, warned: bool) -> None:
    """Scripts that begin with `#!lua` need 7.0; a server that hides its version is not judged by it."""

    class Told(Pipeline):
        async def execute(self, *_args: object, **_kwargs: object) -> list[bytes]:
            lines = {"aof_enabled": "1", "maxmemory_policy": "noeviction"} | info
            return ["\r\n".join(["# Server", *(f"{name}:{value}" for name, value in lines.items())]).encode()]

    found = await ServerHealth(Keys("mesh"), Told(in_memory_endpoint().connect)).check_config()

    assert bool(found.unsupported_version) == warned
    assert "7.0 or later" in (found.unsupported_version or "7.0 or later")
    assert found.warnings == ()


async def test_a_pulse_is_noted(store: Store, raw: redis.Redis) -> None:
    """In the server's milliseconds."""
    seconds, _ = raw.time()

    await store.server_health.probe()

    assert int(raw.get("{mesh}:last_probe") or 0) >= seconds * 1000


async def test_totals_are_those_of_the_whole_mesh(store: Store) -> None:
    """None at first; then by the names of what happened."""
    assert await store.server_health.totals() == {}
    await store.change_log.open()
    await store.agents.register(RegistrationWrite("a", b"{}", 60_000, 120_000))
    await store.agents.register(RegistrationWrite("b", b"{}", 60_000, 120_000))
    await store.agents.heartbeat("a")
    await store.agents.unregister("a")

    assert await store.server_health.totals() == {"registrations": 2, "heartbeats": 1, "unregistrations": 1}


async def test_a_pulse_sees_the_last_outage_and_the_hold(store: Store, raw: redis.Redis) -> None:
    """As the scripts wrote them; the first pulse of all ends an outage of which nobody knows the beginning."""
    first = await store.server_health.probe()
    assert (first.outage_end, first.outage_start, first.self_preservation) == (first.now, None, None)
    raw.set("{mesh}:last_probe", first.now + 60_000)
    raw.hset(
        "{mesh}:self_preservation", mapping={"since": "1", "until": "2", "ended": "3", "overdue": "4", "healthy": "5"}
    )
    raw.hset("{mesh}:counters", mapping={"grace_granted": "6", "self_preservation_activations": "7"})

    second = await store.server_health.probe()

    assert (second.outage_end, second.outage_start, second.repairing_clock_rollback) == (
        second.now,
        first.now + 60_000,
        True,
    )
    assert (second.grace_granted, second.self_preservation_activations, second.self_preservation) == (
        6,
        7,
        SelfPreservation(1, 2, 3, 4, 5),
    )
