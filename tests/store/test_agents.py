"""The agents in Redis: what goes out together, what is repeated when the connection breaks, and what never is."""

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
from registry.store.redis.connection import endpoint_from_url
from registry.store.redis.pipeline import Pipeline
from registry.store.store import Store
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.redis_server import RedisServer

KEYS = Keys("mesh")
SPEC = b'{"endpoint":"http://a:1"}'


def registration(agent_id: str = "a", precondition: str = "", spec: bytes = SPEC) -> RegistrationWrite:
    """A minute until degraded, two until expired."""
    return RegistrationWrite(agent_id, spec, timeout=60_000, eviction=120_000, precondition=precondition)


def agents_at(url: str, observe: Callable[[str, float], None] = lambda _script, _seconds: None) -> Agents:
    """The agents of the test mesh, over links of their own."""
    connect = endpoint_from_url(url).connect
    beats, writes, reads = (Pipeline(connect, observe=observe) for _ in range(3))
    return Agents(KEYS, 1000, heartbeats=beats, writes=writes, reads=reads)


async def close(agents: Agents) -> None:
    """Finish what was accepted, then close the links."""
    await agents.close()
    for link in (agents._heartbeat_pipeline, agents._write_pipeline, agents._read_pipeline):
        await link.close()


@pytest.fixture
async def agents(redis_url: str) -> AsyncIterator[Agents]:
    """The agents on the test server; the history is open."""
    agents = agents_at(redis_url)
    yield agents
    await close(agents)


@pytest.fixture
async def proxy(redis_url: str, store: Store) -> AsyncIterator[FaultyTcpProxy]:
    """A proxy in front of the test server, where a history is open."""
    await store.change_log.open()
    async with FaultyTcpProxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def proxied(proxy: FaultyTcpProxy) -> AsyncIterator[Agents]:
    """The agents behind the proxy, with agent a registered, every connection open and every script known."""
    agents = agents_at(proxy.url)
    await agents.register(registration())
    await agents.drain(["a"], draining=True)
    await agents.unregister("a")
    await agents.register(registration())
    await agents.heartbeat("a")
    yield agents
    await close(agents)


async def failure(call: Awaitable[Any]) -> StoreUnavailable:
    """Return what the call fails with."""
    with pytest.raises(StoreUnavailable) as caught:
        await call
    return caught.value


def total(raw: redis.Redis, name: str) -> int:
    """Return a mesh-wide counter: how often the server has carried something out."""
    return int(raw.hget("{mesh}:counters", name) or 0)


async def test_a_registration_tells_what_became_of_it(store: Store) -> None:
    """Created, updated, or unchanged, and the version the agent has now."""
    await store.change_log.open()

    created = await store.agents.register(registration())
    unchanged = await store.agents.register(registration())
    updated = await store.agents.register(registration(spec=b"{}"))

    assert created == RegistrationResult("created", created.version)
    assert unchanged == RegistrationResult("unchanged", created.version)
    assert updated == RegistrationResult("updated", updated.version)
    assert created.version < updated.version


async def test_a_spec_is_stored_byte_for_byte(store: Store, raw: redis.Redis) -> None:
    """Lua and the wire leave it alone."""
    spec = '{"name":"\\u0000 \\" \r\n é 日本"}'.encode()
    await store.change_log.open()

    await store.agents.register(registration(spec=spec))

    assert raw.hget("{mesh}:agent:a", "spec") == spec.decode()


async def test_a_precondition_that_fails_says_where_the_agent_is(store: Store) -> None:
    """At its version, or nowhere."""
    await store.change_log.open()
    version = (await store.agents.register(registration())).version

    with pytest.raises(StaleVersion) as there:
        await store.agents.register(registration(precondition="absent"))
    with pytest.raises(StaleVersion) as nowhere:
        await store.agents.register(registration("b", precondition="present"))

    assert (there.value.agent_id, there.value.current) == ("a", version)
    assert (nowhere.value.agent_id, nowhere.value.current) == ("b", None)


async def test_an_edge_is_checked_against_all_there_are_or_checked_again(store: Store, raw: redis.Redis) -> None:
    """The number it was checked as of is told with it; names are told apart whatever stands in them."""
    await store.change_log.open()
    edges = frozenset({("a b", "c"), ("a", "b c"), ("é\n", "%20")})
    assert await store.agents.edges_revision() == "0"

    for seen in "", "1":
        with pytest.raises(EdgesChangedError):
            await store.agents.register(
                RegistrationWrite("a", SPEC, 60_000, 120_000, required_edges=edges, edges_revision=seen)
            )
    assert raw.exists("{mesh}:agent:a") == 0
    await store.agents.register(RegistrationWrite("a", SPEC, 60_000, 120_000, required_edges=edges, edges_revision="0"))

    assert await store.agents.edges_revision() == "3"
    assert raw.hgetall("{mesh}:required_edges") == {
        "a%20b c": "1",
        "a b%20c": "1",
        "%C3%A9%0A %2520": "1",
        "revision": "3",
    }
    assert (
        await store.agents.register(RegistrationWrite("b", SPEC, 60_000, 120_000, required_edges=edges))
    ).outcome == "created"
    assert await store.agents.edges_revision() == "3"


async def test_draining_tells_each_by_itself_in_the_order_asked(store: Store) -> None:
    """With the version from which on it is so; None where there is no agent."""
    await store.change_log.open()
    versions = [(await store.agents.register(registration(agent_id))).version for agent_id in "ab"]

    (a, nobody) = await store.agents.drain(["a", "nobody"], draining=True)
    (b, again) = await store.agents.drain(["b", "a"], draining=True)

    assert (a.outcome, b.outcome, again) == ("changed", "changed", AgentDrainResult("unchanged", a.version))
    assert versions[1] < (a.version or 0) < (b.version or 0)
    assert nobody == AgentDrainResult("unknown_agent", None)
    assert [each.outcome for each in await store.agents.drain(["a", "b"], draining=False)] == ["changed", "changed"]


async def test_unregistering_gives_the_version_of_the_removal(store: Store) -> None:
    """And once the agent is gone, says so."""
    await store.change_log.open()
    created = await store.agents.register(registration())

    assert await store.agents.unregister("a") > created.version
    with pytest.raises(UnknownAgent) as unknown:
        await store.agents.unregister("a")

    assert unknown.value.agent_id == "a"


async def test_a_heartbeat_tells_what_it_found_and_when(store: Store, raw: redis.Redis) -> None:
    """In the server's milliseconds."""
    await store.change_log.open()
    await store.agents.register(registration())
    began = raw.time()

    found, at, _ = await store.agents.heartbeat("a")
    kept = await store.agents.heartbeat("a", "extend")
    nobody = await store.agents.heartbeat("b")

    assert (found, kept.outcome, nobody.outcome) == ("healthy", "healthy", "unknown_agent")
    assert began[0] * 1000 + began[1] // 1000 <= at <= kept.now


async def test_heartbeats_that_arrive_together_leave_together(redis_url: str, store: Store) -> None:
    """A thousand are five calls, and each gets its own answer."""
    await store.change_log.open()
    calls: Counter[str] = Counter()
    agents = agents_at(redis_url, lambda script, _seconds: calls.update([script]))
    even = [f"n{number}" for number in range(0, 1000, 2)]
    await asyncio.gather(*(agents.register(registration(name)) for name in even))

    beats = await asyncio.gather(*(agents.heartbeat(f"n{number}") for number in range(1000)))

    assert [beat.outcome for beat in beats] == ["healthy", "unknown_agent"] * 500
    assert calls == {"register": 3, "heartbeat": 5}
    await close(agents)


@pytest.mark.poisoned("an agent's key is a string")
async def test_a_damaged_record_fails_its_own_heartbeat_alone(store: Store, raw: redis.Redis) -> None:
    """The neighbours in the call are healthy."""
    await store.change_log.open()
    await store.agents.register(registration())
    raw.set("{mesh}:agent:b", "not a hash")

    beats = await asyncio.gather(*map(store.agents.heartbeat, ("a", "b", "a")))

    assert [beat.outcome for beat in beats] == ["healthy", "bad_record", "healthy"]


@pytest.mark.poisoned("an agent has a status of no release")
async def test_a_status_that_nobody_knows_fails_alone(store: Store, raw: redis.Redis) -> None:
    """`keep` reports a status as it stands; one that no release knows took the whole call down with it."""
    await store.change_log.open()
    await store.agents.register(registration())
    await store.agents.register(registration("b"))
    raw.hset("{mesh}:agent:b", "status", "on holiday")

    beats = await asyncio.gather(
        *(store.agents.heartbeat(name, "extend") for name in ("a", "b")), return_exceptions=True
    )

    assert [getattr(beat, "outcome", beat) for beat in beats] == ["pending", "bad_record"]


async def test_last_heard_answers_in_the_order_asked(store: Store) -> None:
    """None where no heartbeat came yet; more than a slice at a time too."""
    await store.change_log.open()
    await store.agents.register(registration("a"))
    await store.agents.register(registration("b"))
    beat = await store.agents.heartbeat("b")

    few, none, many = await asyncio.gather(
        *map(store.agents.last_heartbeats, (["b", "a", "b"], [], ["x"] * 2500 + ["b"]))
    )

    assert few.times == [beat.now, None, beat.now]
    assert none.times == []
    assert many.times == [None] * 2500 + [beat.now]
    assert beat.now <= few.now == none.now


async def test_heard_since_names_all_who_beat_since_then(store: Store, raw: redis.Redis) -> None:
    """In slices, none left out where more than a slice beat in one millisecond; without a moment, of five seconds."""
    await store.change_log.open()
    beats = {f"a{number}": 10_000 + number // 1500 for number in range(4000)}
    raw.zadd("{mesh}:heartbeats", beats)

    everything = await store.agents.heartbeats_since(10_000)
    later = await store.agents.heartbeats_since(10_002)
    lately = await store.agents.heartbeats_since(None)
    raw.delete("{mesh}:heartbeats")

    assert dict(everything.heartbeats) == beats
    assert dict(later.heartbeats) == {agent_id: at for agent_id, at in beats.items() if at == 10_002}
    assert lately.heartbeats == []
    assert everything.now <= lately.now


async def test_a_note_prolongs_nobody(store: Store, raw: redis.Redis) -> None:
    """It stores what was told, and says how the agent is."""
    await store.change_log.open()
    await store.agents.register(registration())

    noted = await store.agents.heartbeat("a", "record", response_digest="d1")

    assert noted.outcome == "pending"
    assert raw.hget("{mesh}:agent:a", "response_digest") == "d1"
    assert (await store.agents.last_heartbeats(["a"])).times == [None]


async def test_the_newest_version_written_is_known(store: Store) -> None:
    """By registrations and removals."""
    await store.change_log.open()

    done = await store.agents.register(registration())
    assert store.agents.last_written_version == done.version
    removed = await store.agents.unregister("a")
    assert store.agents.last_written_version == removed > done.version


async def test_a_heartbeat_is_repeated_once_when_the_connection_breaks(
    proxied: Agents, proxy: FaultyTcpProxy, raw: redis.Redis
) -> None:
    """Beating twice is beating once, so the caller notices nothing."""
    before = total(raw, "heartbeats")
    proxy.cut_replies = 1

    assert (await proxied.heartbeat("a")).outcome == "healthy"
    assert total(raw, "heartbeats") == before + 2


async def test_an_unconditional_registration_is_repeated_once(
    proxied: Agents, proxy: FaultyTcpProxy, raw: redis.Redis
) -> None:
    """Registering twice is registering once: the second finds it unchanged."""
    before = total(raw, "registrations")
    proxy.cut_replies = 1

    assert (await proxied.register(registration("b"))).outcome == "unchanged"
    assert total(raw, "registrations") == before + 2


async def test_what_did_not_reach_the_server_is_repeated_too(
    proxied: Agents, proxy: FaultyTcpProxy, raw: redis.Redis
) -> None:
    """The link cannot know; the result is right either way."""
    before = total(raw, "registrations")
    proxy.cut_requests = 1

    assert (await proxied.register(registration("b"))).outcome == "created"
    assert total(raw, "registrations") == before + 1


@pytest.mark.parametrize("precondition", ["absent", "present", "5"])
async def test_a_conditional_registration_is_sent_once(
    precondition: str, proxied: Agents, proxy: FaultyTcpProxy, raw: redis.Redis
) -> None:
    """A second try could fail for what the first has done; the caller learns that the outcome is unknown."""
    sent = proxy.requests
    proxy.cut_replies = 1

    error = await failure(proxied.register(registration("b", precondition)))

    assert (error.outcome, error.reason) == ("unknown", "unreachable")
    assert proxy.requests == sent + 1
    assert bool(raw.exists("{mesh}:agent:b")) == (precondition == "absent")


async def test_unregistering_is_sent_once(proxied: Agents, proxy: FaultyTcpProxy, raw: redis.Redis) -> None:
    """A second try would find nobody, and call a success unknown_agent."""
    sent = proxy.requests
    proxy.cut_replies = 1

    error = await failure(proxied.unregister("a"))

    assert (error.outcome, error.reason) == ("unknown", "unreachable")
    assert proxy.requests == sent + 1
    assert not raw.exists("{mesh}:agent:a")


async def test_a_drain_is_sent_once(proxied: Agents, proxy: FaultyTcpProxy, raw: redis.Redis) -> None:
    """A second try would tell that nothing changed, which the first did."""
    sent = proxy.requests
    proxy.cut_replies = 1

    error = await failure(proxied.drain(["a"], draining=True))

    assert (error.outcome, error.reason) == ("unknown", "unreachable")
    assert proxy.requests == sent + 1
    assert raw.hget("{mesh}:agent:a", "draining") == "1"


async def test_in_one_pipeline_each_is_repeated_by_its_own_right(proxied: Agents, proxy: FaultyTcpProxy) -> None:
    """What left together may fare differently."""
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


async def test_a_forgotten_script_whose_second_sending_breaks_is_repeated_too(
    proxied: Agents, proxy: FaultyTcpProxy, raw: redis.Redis
) -> None:
    """NOSCRIPT comes, the whole script is sent, and the connection breaks under that: one more try is due."""
    for call in (lambda: proxied.heartbeat("a"), lambda: proxied.register(registration("b"))):
        raw.script_flush()
        sent = proxy.requests
        proxy.spare_replies, proxy.cut_replies = 1, 1

        await call()

        # The digest, the whole script, who is this, and the digest anew, which is known by now.
        assert proxy.requests == sent + 4
    assert raw.exists("{mesh}:agent:b")


async def test_what_meets_a_replica_is_repeated_where_the_primary_is(redis_url: str, raw: redis.Redis) -> None:
    """READONLY means that nothing was done; a write that may not be repeated says `not_sent`, and the next works."""
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
            assert raw.exists("{mesh}:agent:a")
            await close(agents)


async def test_there_is_no_second_repetition(proxied: Agents, proxy: FaultyTcpProxy) -> None:
    """A connection that breaks twice is an answer."""
    proxy.cut_replies = 2
    beat = await failure(proxied.heartbeat("a"))
    proxy.cut_replies = 2
    write = await failure(proxied.register(registration("b")))

    assert (beat.outcome, write.outcome) == ("unknown", "unknown")


async def test_a_timeout_is_not_repeated(proxied: Agents, proxy: FaultyTcpProxy) -> None:
    """The time for an answer is over."""
    for link in (proxied._heartbeat_pipeline, proxied._write_pipeline):
        link._timeout = 0.05
    sent = proxy.requests
    proxy.swallow_replies = True
    errors = await asyncio.gather(failure(proxied.heartbeat("a")), failure(proxied.register(registration("b"))))
    proxy.swallow_replies = False

    assert {(error.outcome, error.reason) for error in errors} == {("unknown", "timeout")}
    assert proxy.requests == sent + 2


async def a_beat(agents: Agents) -> object:
    """One heartbeat."""
    return await agents.heartbeat("a")


async def a_registration(agents: Agents) -> object:
    """One that is repeated."""
    return await agents.register(registration("b"))


async def a_condition(agents: Agents) -> object:
    """One that is not, in the same pipeline as one that is."""
    _, conditional = await asyncio.gather(
        agents.register(registration("c")), agents.register(registration("b", "absent")), return_exceptions=True
    )
    if isinstance(conditional, BaseException):
        raise conditional
    return conditional


@pytest.mark.parametrize("call", [a_beat, a_registration, a_condition])
async def test_what_was_sent_once_is_never_called_not_sent(
    call: Callable[[Agents], Awaitable[object]], proxied: Agents, proxy: FaultyTcpProxy, raw: redis.Redis
) -> None:
    """The server carried it out and was gone before it answered; the repetition found nobody and said `not_sent`.

    That told the caller that nothing had happened, also for a conditional write that only shared the pipeline.
    """
    before = total(raw, "heartbeats") + total(raw, "registrations")
    proxy.refuse_with_next_reply = True

    error = await failure(call(proxied))

    assert total(raw, "heartbeats") + total(raw, "registrations") > before
    assert error.outcome == "unknown"


async def test_an_away_store_means_not_sent(proxied: Agents, proxy: FaultyTcpProxy) -> None:
    """Nobody was there to do it, and no connection to send it over."""
    proxy.refuse()
    for link in (proxied._heartbeat_pipeline, proxied._write_pipeline):
        await link.close()

    errors = await asyncio.gather(
        *(
            failure(call)
            for call in (proxied.heartbeat("a"), proxied.register(registration("b")), proxied.unregister("a"))
        )
    )

    assert {(error.outcome, error.reason) for error in errors} == {("not_sent", "unreachable")}


async def test_a_full_server_refuses_newcomers_with_a_reason(own_server: RedisServer) -> None:
    """Nothing was written, and those who are there live on."""
    agents = agents_at(own_server.url)
    await agents.register(registration())
    with redis.Redis.from_url(own_server.url) as client:
        client.config_set("maxmemory", 1)

    error = await failure(agents.register(registration("b")))

    assert (error.outcome, error.reason) == ("not_sent", "out_of_memory")
    assert (await agents.heartbeat("a")).outcome == "healthy"
    assert await agents.unregister("a")
    await close(agents)


@pytest.mark.poisoned("an agent's key is a string")
async def test_a_record_that_is_no_hash_can_be_removed(store: Store, raw: redis.Redis) -> None:
    """A heartbeat answers that the record is damaged: unregister and register it. So that must work."""
    await store.change_log.open()
    raw.set("{mesh}:agent:a", "not a hash")
    raw.zadd("{mesh}:deadlines", {"a": 1})

    await store.agents.unregister("a")

    assert (await store.agents.register(registration())).outcome == "created"


@pytest.mark.poisoned("an agent's key is a string")
async def test_a_record_that_is_no_hash_is_never_a_bug_of_ours(store: Store, raw: redis.Redis) -> None:
    """Registering such an agent mends it or is refused as trouble with its record; a ResponseError would be a 500."""
    raw.set("{mesh}:agent:a", "not a hash")

    result = await asyncio.gather(store.agents.register(registration()), return_exceptions=True)

    assert isinstance(result[0], (RegistrationResult, StoreUnavailable)), result


@pytest.mark.parametrize("changed", [False, True], ids=["same spec", "another spec"])
@pytest.mark.parametrize(
    "missing", ["spec", "status", "draining", "version", "spec_version", "created", "updated", "timeout", "eviction"]
)
async def test_registering_anew_mends_a_record_with_a_field_missing(
    missing: str, *, changed: bool, store: Store, raw: redis.Redis
) -> None:
    """The log tells the operator of such a record to register the agent anew."""
    await store.change_log.open()
    await store.agents.register(registration())
    await store.agents.heartbeat("a")
    raw.hdel("{mesh}:agent:a", missing)

    await store.agents.register(registration(spec=b'{"endpoint":"http://a:2"}' if changed else SPEC))

    assert [one.agent.id async for some in store.change_log.scan() for one in some] == ["a"]


@pytest.mark.parametrize("missing", ["status", "updated"])
async def test_a_mended_record_is_the_same_for_those_who_follow_and_those_who_fill(
    missing: str, store: Store, raw: redis.Redis
) -> None:
    """The log and the hashes tell one story, the last heartbeat included."""
    begun = await store.change_log.open()
    await store.agents.register(registration())
    await store.agents.heartbeat("a")
    raw.hdel("{mesh}:agent:a", missing)

    await store.agents.register(registration(spec=b"{}"))

    followed = (await store.change_log.read_since(begun.version)).changes[-1]
    (filled,) = [one async for some in store.change_log.scan() for one in some]
    assert (followed.agent, followed.heartbeat) == (filled.agent, filled.heartbeat)


async def test_settings_say_how_much_history_is_kept(settings: Settings, store: Store, raw: redis.Redis) -> None:
    """The log is trimmed by whole nodes of 100 entries."""
    assert settings.watch_history == 1000
    await store.change_log.open()

    for at in range(13):
        await asyncio.gather(*(store.agents.register(registration(f"n{at * 100 + n}")) for n in range(100)))

    assert 1000 <= raw.xlen("{mesh}:log") <= 1100
