"""The agents in Redis: batching of calls, and which of them are repeated after a broken connection."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis

from registry.config.settings import Settings
from registry.errors import StaleVersion, StoreUnavailable, UnknownAgent
from registry.store.agents import AgentDrainResult, Agents, EdgesChangedError, RegistrationResult, RegistrationWrite
from registry.store.keys import Keys
from registry.store.record_codec import encode_log_limits
from registry.store.redis.connection import endpoint_from_url
from registry.store.redis.pipeline import Pipeline
from registry.store.seen_version import SeenVersion
from registry.store.store import Store
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.redis_server import RedisServer

KEYS = Keys("mesh")
LOG_LIMITS = encode_log_limits(1000, 256 * 1024**2)
SPEC = b'{"endpoint":"http://a:1"}'


def registration(agent_id: str = "a", precondition: str = "", spec: bytes = SPEC) -> RegistrationWrite:
    """Return a registration with a timeout of one minute and an eviction of two."""
    return RegistrationWrite(agent_id, spec, timeout=60_000, eviction=120_000, precondition=precondition)


def agents_at(url: str, observe: Callable[[str, float], None] = lambda _script, _seconds: None) -> Agents:
    """Return the agents of the test mesh with their own pipelines."""
    connect = endpoint_from_url(url).connect
    heartbeats, writes, reads = (Pipeline(connect, observe=observe) for _ in range(3))
    return Agents(
        KEYS, encode_log_limits(1000, 256 * 1024**2), SeenVersion(), heartbeats=heartbeats, writes=writes, reads=reads
    )


async def close(agents: Agents) -> None:
    """Finish all accepted calls, then close the pipelines."""
    await agents.close()
    for pipeline in (agents._heartbeat_pipeline, agents._write_pipeline, agents._read_pipeline):
        await pipeline.close()


@pytest.fixture
async def agents(redis_url: str) -> AsyncIterator[Agents]:
    """Provide the agents on the test server."""
    agents = agents_at(redis_url)
    yield agents
    await close(agents)


@pytest.fixture
async def proxy(redis_url: str, store: Store) -> AsyncIterator[FaultyTcpProxy]:
    """Provide a proxy in front of the test server, with an open log."""
    await store.change_log.open()
    async with FaultyTcpProxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def proxied(proxy: FaultyTcpProxy) -> AsyncIterator[Agents]:
    """Provide the agents behind the proxy: agent a is registered, connections are open, scripts are loaded."""
    agents = agents_at(proxy.url)
    await agents.register(registration())
    await agents.drain(["a"], draining=True)
    await agents.unregister("a")
    await agents.register(registration())
    await agents.heartbeat("a")
    yield agents
    await close(agents)


async def failure(call: Awaitable[Any]) -> StoreUnavailable:
    """Return the error with which the call fails."""
    with pytest.raises(StoreUnavailable) as caught:
        await call
    return caught.value


def total(redis_client: redis.Redis, name: str) -> int:
    """Return a counter of the mesh: how often the server has executed an operation."""
    return int(redis_client.hget("{mesh}:counters", name) or 0)


async def test_a_registration_returns_its_outcome(store: Store) -> None:
    """It is created, updated or unchanged, with the current version of the agent."""
    await store.change_log.open()

    created = await store.agents.register(registration())
    unchanged = await store.agents.register(registration())
    updated = await store.agents.register(registration(spec=b"{}"))

    assert created == RegistrationResult("created", created.version)
    assert unchanged == RegistrationResult("unchanged", created.version)
    assert updated == RegistrationResult("updated", updated.version)
    assert created.version < updated.version


async def test_a_spec_is_stored_byte_for_byte(store: Store, redis_client: redis.Redis) -> None:
    """Neither Lua nor the Redis protocol changes it."""
    spec = '{"name":"\\u0000 \\" \r\n é 日本"}'.encode()
    await store.change_log.open()

    await store.agents.register(registration(spec=spec))

    assert redis_client.hget("{mesh}:agent:a", "spec") == spec.decode()


async def test_a_failed_precondition_returns_the_current_version(store: Store) -> None:
    """It is None for an unknown agent."""
    await store.change_log.open()
    version = (await store.agents.register(registration())).version

    with pytest.raises(StaleVersion) as there:
        await store.agents.register(registration(precondition="absent"))
    with pytest.raises(StaleVersion) as nowhere:
        await store.agents.register(registration("b", precondition="present"))

    assert (there.value.agent_id, there.value.current) == ("a", version)
    assert (nowhere.value.agent_id, nowhere.value.current) == ("b", None)


async def test_a_new_edge_is_accepted_only_with_the_current_revision(store: Store, redis_client: redis.Redis) -> None:
    """The revision of the check is sent with it; names are escaped, so that any two stay different."""
    await store.change_log.open()
    edges = frozenset({("a b", "c"), ("a", "b c"), ("é\n", "%20")})
    assert await store.agents.edges_revision() == "0"

    for seen in "", "1":
        with pytest.raises(EdgesChangedError):
            await store.agents.register(
                RegistrationWrite("a", SPEC, 60_000, 120_000, required_edges=edges, edges_revision=seen)
            )
    assert redis_client.exists("{mesh}:agent:a") == 0
    await store.agents.register(RegistrationWrite("a", SPEC, 60_000, 120_000, required_edges=edges, edges_revision="0"))

    assert await store.agents.edges_revision() == "3"
    assert redis_client.hgetall("{mesh}:required_edges") == {
        "a%20b c": "1",
        "a b%20c": "1",
        "%C3%A9%0A %2520": "1",
        "revision": "3",
    }
    assert (
        await store.agents.register(RegistrationWrite("b", SPEC, 60_000, 120_000, required_edges=edges))
    ).outcome == "created"
    assert await store.agents.edges_revision() == "3"


async def test_draining_returns_an_outcome_for_each_id_in_order(store: Store) -> None:
    """Each has the version of the change; None for an unknown agent."""
    await store.change_log.open()
    versions = [(await store.agents.register(registration(agent_id))).version for agent_id in "ab"]

    (a, unknown) = await store.agents.drain(["a", "unknown"], draining=True)
    (b, again) = await store.agents.drain(["b", "a"], draining=True)

    assert (a.outcome, b.outcome, again) == ("changed", "changed", AgentDrainResult("unchanged", a.version))
    assert versions[1] < (a.version or 0) < (b.version or 0)
    assert unknown == AgentDrainResult("unknown_agent", None)
    assert [each.outcome for each in await store.agents.drain(["a", "b"], draining=False)] == ["changed", "changed"]


async def test_unregistering_returns_the_version_of_the_removal(store: Store) -> None:
    """A second call raises `UnknownAgent`."""
    await store.change_log.open()
    created = await store.agents.register(registration())

    assert await store.agents.unregister("a") > created.version
    with pytest.raises(UnknownAgent) as unknown:
        await store.agents.unregister("a")

    assert unknown.value.agent_id == "a"


async def test_a_heartbeat_returns_its_outcome_and_time(store: Store, redis_client: redis.Redis) -> None:
    """The time is in milliseconds of the server."""
    await store.change_log.open()
    await store.agents.register(registration())
    started = redis_client.time()

    found, at, *_ = await store.agents.heartbeat("a")
    extended = await store.agents.heartbeat("a", "extend")
    unknown = await store.agents.heartbeat("b")

    assert (found, extended.outcome, unknown.outcome) == ("healthy", "healthy", "unknown_agent")
    assert started[0] * 1000 + started[1] // 1000 <= at <= extended.now


async def test_concurrent_heartbeats_are_sent_together(redis_url: str, store: Store) -> None:
    """A thousand are five calls, and each gets its own result."""
    await store.change_log.open()
    calls: Counter[str] = Counter()
    agents = agents_at(redis_url, lambda script, _seconds: calls.update([script]))
    even = [f"n{number}" for number in range(0, 1000, 2)]
    await asyncio.gather(*(agents.register(registration(name)) for name in even))

    heartbeats = await asyncio.gather(*(agents.heartbeat(f"n{number}") for number in range(1000)))

    assert [heartbeat.outcome for heartbeat in heartbeats] == ["healthy", "unknown_agent"] * 500
    assert calls == {"register": 3, "heartbeat": 5}
    await close(agents)


@pytest.mark.leaves_damaged_data("an agent's key is a string")
async def test_a_damaged_record_fails_only_its_own_heartbeat(store: Store, redis_client: redis.Redis) -> None:
    """The other agents in the call are healthy."""
    await store.change_log.open()
    await store.agents.register(registration())
    redis_client.set("{mesh}:agent:b", "not a hash")

    heartbeats = await asyncio.gather(*map(store.agents.heartbeat, ("a", "b", "a")))

    assert [heartbeat.outcome for heartbeat in heartbeats] == ["healthy", "bad_record", "healthy"]


@pytest.mark.leaves_damaged_data("an agent has a status of no release")
async def test_an_unknown_status_fails_only_its_own_heartbeat(store: Store, redis_client: redis.Redis) -> None:
    """`extend` returns the stored status; an unknown one once failed the whole call."""
    await store.change_log.open()
    await store.agents.register(registration())
    await store.agents.register(registration("b"))
    redis_client.hset("{mesh}:agent:b", "status", "on holiday")

    heartbeats = await asyncio.gather(
        *(store.agents.heartbeat(name, "extend") for name in ("a", "b")), return_exceptions=True
    )

    assert [getattr(heartbeat, "outcome", heartbeat) for heartbeat in heartbeats] == ["pending", "bad_record"]


async def test_last_heartbeats_have_the_order_of_the_ids(store: Store) -> None:
    """None without a heartbeat; more ids than a slice work too."""
    await store.change_log.open()
    await store.agents.register(registration("a"))
    await store.agents.register(registration("b"))
    heartbeat = await store.agents.heartbeat("b")

    few, none, many = await asyncio.gather(
        *map(store.agents.last_heartbeats, (["b", "a", "b"], [], ["x"] * 2500 + ["b"]))
    )

    assert few.times == [heartbeat.now, None, heartbeat.now]
    assert none.times == []
    assert many.times == [None] * 2500 + [heartbeat.now]
    assert heartbeat.now <= few.now == none.now


async def test_heartbeats_since_a_time_are_complete(store: Store, redis_client: redis.Redis) -> None:
    """They are read in slices, even if more than a slice has the same time; the default is five seconds ago."""
    await store.change_log.open()
    heartbeats = {f"a{number}": 10_000 + number // 1500 for number in range(4000)}
    redis_client.zadd("{mesh}:heartbeats", heartbeats)

    everything = await store.agents.heartbeats_since(10_000)
    later = await store.agents.heartbeats_since(10_002)
    recent = await store.agents.heartbeats_since(None)
    redis_client.delete("{mesh}:heartbeats")

    assert dict(everything.heartbeats) == heartbeats
    assert dict(later.heartbeats) == {agent_id: at for agent_id, at in heartbeats.items() if at == 10_002}
    assert recent.heartbeats == []
    assert everything.now <= recent.now


async def test_record_extends_no_deadline(store: Store, redis_client: redis.Redis) -> None:
    """It stores the digest sent, and returns the status of the agent."""
    await store.change_log.open()
    await store.agents.register(registration())

    recorded = await store.agents.heartbeat("a", "record", response_digest="d1")

    assert recorded.outcome == "pending"
    assert redis_client.hget("{mesh}:agent:a", "response_digest") == "d1"
    assert (await store.agents.last_heartbeats(["a"])).times == [None]


async def test_a_heartbeat_returns_the_resource_version(store: Store, redis_client: redis.Redis) -> None:
    """It includes the change of the heartbeat itself; 0 in a store that has lost the version."""
    await store.change_log.open()

    done = await store.agents.register(registration())
    first = await store.agents.heartbeat("a")
    second = await store.agents.heartbeat("a")
    removed = await store.agents.unregister("a")
    after = await store.agents.heartbeat("a")
    redis_client.rename("{mesh}:version", "lost")
    without = await store.agents.heartbeat("a")
    redis_client.rename("lost", "{mesh}:version")

    assert done.version < first.version == second.version < removed == after.version
    assert (after.outcome, without.version) == ("unknown_agent", 0)


async def test_a_heartbeat_is_repeated_once_when_the_connection_breaks(
    proxied: Agents, proxy: FaultyTcpProxy, redis_client: redis.Redis
) -> None:
    """A repeated heartbeat has the same effect as one, so the caller sees no error."""
    before = total(redis_client, "heartbeats")
    proxy.cut_replies = 1

    assert (await proxied.heartbeat("a")).outcome == "healthy"
    assert total(redis_client, "heartbeats") == before + 2


async def test_an_unconditional_registration_is_repeated_once(
    proxied: Agents, proxy: FaultyTcpProxy, redis_client: redis.Redis
) -> None:
    """A repeated registration has the same effect as one: the second one is unchanged."""
    before = total(redis_client, "registrations")
    proxy.cut_replies = 1

    assert (await proxied.register(registration("b"))).outcome == "unchanged"
    assert total(redis_client, "registrations") == before + 2


async def test_a_request_that_did_not_arrive_is_repeated_too(
    proxied: Agents, proxy: FaultyTcpProxy, redis_client: redis.Redis
) -> None:
    """The pipeline cannot detect the difference; the result is correct in both cases."""
    before = total(redis_client, "registrations")
    proxy.cut_requests = 1

    assert (await proxied.register(registration("b"))).outcome == "created"
    assert total(redis_client, "registrations") == before + 1


@pytest.mark.parametrize("precondition", ["absent", "present", "5"])
async def test_a_conditional_registration_is_sent_once(
    precondition: str, proxied: Agents, proxy: FaultyTcpProxy, redis_client: redis.Redis
) -> None:
    """A second attempt could fail because of the first one; the outcome is reported as unknown."""
    sent = proxy.requests
    proxy.cut_replies = 1

    error = await failure(proxied.register(registration("b", precondition)))

    assert (error.outcome, error.reason) == ("unknown", "unreachable")
    assert proxy.requests == sent + 1
    assert bool(redis_client.exists("{mesh}:agent:b")) == (precondition == "absent")


async def test_unregistering_is_sent_once(proxied: Agents, proxy: FaultyTcpProxy, redis_client: redis.Redis) -> None:
    """A second attempt would report unknown_agent for a success."""
    sent = proxy.requests
    proxy.cut_replies = 1

    error = await failure(proxied.unregister("a"))

    assert (error.outcome, error.reason) == ("unknown", "unreachable")
    assert proxy.requests == sent + 1
    assert not redis_client.exists("{mesh}:agent:a")


async def test_a_drain_is_sent_once(proxied: Agents, proxy: FaultyTcpProxy, redis_client: redis.Redis) -> None:
    """A second attempt would report "unchanged" for a change."""
    sent = proxy.requests
    proxy.cut_replies = 1

    error = await failure(proxied.drain(["a"], draining=True))

    assert (error.outcome, error.reason) == ("unknown", "unreachable")
    assert proxy.requests == sent + 1
    assert redis_client.hget("{mesh}:agent:a", "draining") == "1"


async def test_in_one_pipeline_each_call_is_repeated_by_its_own_rule(proxied: Agents, proxy: FaultyTcpProxy) -> None:
    """Calls sent together may have different results."""
    proxy.cut_replies = 1

    plain, conditional, gone, other = await asyncio.gather(
        proxied.register(registration("b")),
        proxied.register(registration("c", "absent")),
        proxied.unregister("a"),
        proxied.register(registration("d")),
        return_exceptions=True,
    )

    assert isinstance(plain, RegistrationResult)
    assert isinstance(other, RegistrationResult)
    for error in (conditional, gone):
        assert isinstance(error, StoreUnavailable)
        assert error.outcome == "unknown"


async def test_a_flushed_script_whose_second_sending_breaks_is_repeated_too(
    proxied: Agents, proxy: FaultyTcpProxy, redis_client: redis.Redis
) -> None:
    """After NOSCRIPT the whole script is sent, and the connection breaks: one more attempt follows."""
    for call in (lambda: proxied.heartbeat("a"), lambda: proxied.register(registration("b"))):
        redis_client.script_flush()
        sent = proxy.requests
        proxy.spare_replies, proxy.cut_replies = 1, 1

        await call()

        # The digest, the whole script, the role, and the digest again, which is loaded by then.
        assert proxy.requests == sent + 4
    assert redis_client.exists("{mesh}:agent:b")


async def test_a_call_rejected_by_a_replica_is_repeated_on_the_primary(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """READONLY means that nothing was executed; a write that may not be repeated fails with `not_sent`."""
    with RedisServer(tcp=True) as before:
        async with FaultyTcpProxy(before.url) as proxy:
            agents = agents_at(proxy.url)
            await agents.register(registration())
            await agents.heartbeat("a")
            with redis.Redis.from_url(before.url) as client:
                client.replicaof("127.0.0.1", 1)
            proxy.switch_upstream(redis_url)

            conditional = await failure(agents.register(registration("b", "absent")))
            assert (conditional.outcome, conditional.reason) == ("not_sent", "read_only_replica")
            assert "READONLY" not in str(conditional)
            assert (await agents.register(registration())).outcome == "created"
            assert (await agents.heartbeat("a")).outcome == "healthy"
            assert redis_client.exists("{mesh}:agent:a")
            await close(agents)


async def test_there_is_no_second_repetition(proxied: Agents, proxy: FaultyTcpProxy) -> None:
    """A connection that breaks twice is an error."""
    proxy.cut_replies = 2
    heartbeat = await failure(proxied.heartbeat("a"))
    proxy.cut_replies = 2
    write = await failure(proxied.register(registration("b")))

    assert (heartbeat.outcome, write.outcome) == ("unknown", "unknown")


async def test_a_timeout_is_not_repeated(proxied: Agents, proxy: FaultyTcpProxy) -> None:
    """The time for a response is over."""
    for pipeline in (proxied._heartbeat_pipeline, proxied._write_pipeline):
        pipeline._timeout = 0.05
    sent = proxy.requests
    proxy.swallow_replies = True
    errors = await asyncio.gather(failure(proxied.heartbeat("a")), failure(proxied.register(registration("b"))))
    proxy.swallow_replies = False

    assert {(error.outcome, error.reason) for error in errors} == {("unknown", "timeout")}
    assert proxy.requests == sent + 2


async def send_heartbeat(agents: Agents) -> object:
    """Send one heartbeat."""
    return await agents.heartbeat("a")


async def register_unconditionally(agents: Agents) -> object:
    """Send a registration that may be repeated."""
    return await agents.register(registration("b"))


async def register_conditionally(agents: Agents) -> object:
    """Send a registration that may not be repeated, together with one that may."""
    _, conditional = await asyncio.gather(
        agents.register(registration("c")), agents.register(registration("b", "absent")), return_exceptions=True
    )
    if isinstance(conditional, BaseException):
        raise conditional
    return conditional


@pytest.mark.parametrize("call", [send_heartbeat, register_unconditionally, register_conditionally])
async def test_a_call_that_was_sent_is_not_reported_as_not_sent(
    call: Callable[[Agents], Awaitable[object]], proxied: Agents, proxy: FaultyTcpProxy, redis_client: redis.Redis
) -> None:
    """The server executed the call and died before its reply; the repetition found no server and reported `not_sent`.

    For the caller that meant that nothing had been executed, also for a conditional write in the same pipeline.
    """
    before = total(redis_client, "heartbeats") + total(redis_client, "registrations")
    proxy.refuse_with_next_reply = True

    error = await failure(call(proxied))

    assert total(redis_client, "heartbeats") + total(redis_client, "registrations") > before
    assert error.outcome == "unknown"


async def test_an_unavailable_store_means_not_sent(proxied: Agents, proxy: FaultyTcpProxy) -> None:
    """There was no connection over which the call could be sent."""
    proxy.refuse()
    for pipeline in (proxied._heartbeat_pipeline, proxied._write_pipeline):
        await pipeline.close()

    errors = await asyncio.gather(
        *(
            failure(call)
            for call in (proxied.heartbeat("a"), proxied.register(registration("b")), proxied.unregister("a"))
        )
    )

    assert {(error.outcome, error.reason) for error in errors} == {("not_sent", "unreachable")}


async def test_a_full_server_rejects_new_agents_with_a_reason(dedicated_redis: RedisServer) -> None:
    """Nothing was written, and registered agents work."""
    agents = agents_at(dedicated_redis.url)
    await agents.register(registration())
    with redis.Redis.from_url(dedicated_redis.url) as client:
        client.config_set("maxmemory", 1)

    error = await failure(agents.register(registration("b")))

    assert (error.outcome, error.reason) == ("not_sent", "out_of_memory")
    assert (await agents.heartbeat("a")).outcome == "healthy"
    assert await agents.unregister("a")
    await close(agents)


@pytest.mark.leaves_damaged_data("an agent's key is a string")
async def test_a_record_of_another_type_can_be_removed(store: Store, redis_client: redis.Redis) -> None:
    """A heartbeat reports such a record as damaged, with the advice to unregister and register the agent."""
    await store.change_log.open()
    redis_client.set("{mesh}:agent:a", "not a hash")
    redis_client.zadd("{mesh}:deadlines", {"a": 1})

    await store.agents.unregister("a")

    assert (await store.agents.register(registration())).outcome == "created"


@pytest.mark.leaves_damaged_data("an agent's key is a string")
async def test_a_record_of_another_type_is_not_an_internal_error(store: Store, redis_client: redis.Redis) -> None:
    """Registering repairs it or fails as a damaged record; a ResponseError would be a 500."""
    redis_client.set("{mesh}:agent:a", "not a hash")

    result = await asyncio.gather(store.agents.register(registration()), return_exceptions=True)

    assert isinstance(result[0], (RegistrationResult, StoreUnavailable)), result


@pytest.mark.leaves_damaged_data("without its status, the agent is counted as healthy twice")
@pytest.mark.parametrize("changed", [False, True], ids=["same spec", "another spec"])
@pytest.mark.parametrize(
    "missing", ["spec", "status", "draining", "version", "spec_version", "created", "updated", "timeout", "eviction"]
)
async def test_registering_again_repairs_a_record_with_a_missing_field(
    missing: str, *, changed: bool, store: Store, redis_client: redis.Redis
) -> None:
    """The log advises the operator of such a record to register the agent again."""
    await store.change_log.open()
    await store.agents.register(registration())
    await store.agents.heartbeat("a")
    redis_client.hdel("{mesh}:agent:a", missing)

    await store.agents.register(registration(spec=b'{"endpoint":"http://a:2"}' if changed else SPEC))

    assert [one.agent.id async for some in store.change_log.scan() for one in some] == ["a"]


@pytest.mark.leaves_damaged_data("without its status, the agent is counted as healthy twice")
@pytest.mark.parametrize("missing", ["status", "updated"])
async def test_a_repaired_record_is_the_same_in_the_log_and_in_a_scan(
    missing: str, store: Store, redis_client: redis.Redis
) -> None:
    """This includes the last heartbeat."""
    position = await store.change_log.open()
    await store.agents.register(registration())
    await store.agents.heartbeat("a")
    redis_client.hdel("{mesh}:agent:a", missing)

    await store.agents.register(registration(spec=b"{}"))

    followed = (await store.change_log.read_since(position.version)).changes[-1]
    (filled,) = [one async for some in store.change_log.scan() for one in some]
    assert (followed.agent, followed.heartbeat) == (filled.agent, filled.heartbeat)


async def test_the_setting_limits_the_length_of_the_log(
    settings: Settings, store: Store, redis_client: redis.Redis
) -> None:
    """The log is trimmed by whole nodes of 100 entries."""
    assert settings.watch_history == 1000
    await store.change_log.open()

    for at in range(13):
        await asyncio.gather(*(store.agents.register(registration(f"n{at * 100 + n}")) for n in range(100)))

    assert 1000 <= redis_client.xlen("{mesh}:log") <= 1100
