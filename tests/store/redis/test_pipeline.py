"""The pipeline: replies go to the right caller, flushed scripts are sent again, errors are classified in time."""

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import ResponseError

from registry.errors import StoreUnavailable
from registry.store.keys import Keys
from registry.store.redis.connection import endpoint_from_url
from registry.store.redis.errors import raise_for_error, reply_or_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import ScriptCall, load_scripts
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.redis_server import RedisServer

KEYS = Keys("mesh")
SCRIPTS = load_scripts()


def probe() -> ScriptCall:
    """Return a call of a script that always succeeds."""
    return SCRIPTS["probe"].call(KEYS.shared, {"lag_ms": 0})


def init_log() -> ScriptCall:
    """Return a call of another script."""
    return SCRIPTS["init_log"].call(KEYS.shared, {"new_timeline_id": "h", "log_length": 100, "seen_version": 0})


async def echo(pipeline: Pipeline, word: str, timeout: float | None = None) -> bytes:
    """Send ECHO with a word and return the reply."""
    (reply,) = await pipeline.execute([("ECHO", word)], timeout=timeout)
    return bytes(reply)


@contextlib.asynccontextmanager
async def open_pipeline(url: str, **options: Any) -> AsyncIterator[Pipeline]:
    """Provide a pipeline to the server, and close it at the end."""
    pipeline = Pipeline(endpoint_from_url(url).connect, **options)
    try:
        yield pipeline
    finally:
        await pipeline.close()


@pytest.fixture
async def pipeline(redis_url: str) -> AsyncIterator[Pipeline]:
    """Provide a pipeline to the test server."""
    async with open_pipeline(redis_url) as pipeline:
        yield pipeline


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[FaultyTcpProxy]:
    """Provide a proxy in front of the test server."""
    async with FaultyTcpProxy(redis_url) as proxy:
        yield proxy


async def failure(
    pipeline: Pipeline, commands: Sequence[tuple[str, ...]] = (("PING",),), **options: Any
) -> StoreUnavailable:
    """Return the error with which an exchange fails."""
    with pytest.raises(StoreUnavailable) as caught:
        await pipeline.execute(commands, **options)
    return caught.value


async def test_replies_have_the_order_of_the_commands(pipeline: Pipeline) -> None:
    """Each command has one, and the connection is opened at the first call."""
    assert pipeline.connections_opened == 0

    assert await pipeline.execute([("ECHO", "a"), ("PING",), ("ECHO", "b")]) == [b"a", b"PONG", b"b"]
    assert pipeline.connections_opened == 1


async def test_each_of_many_concurrent_callers_gets_its_own_reply(pipeline: Pipeline) -> None:
    """They share one connection."""
    words = [f"w{number}" for number in range(300)]

    assert await asyncio.gather(*(echo(pipeline, word) for word in words)) == [word.encode() for word in words]
    assert pipeline.connections_opened == 1


async def test_an_error_reply_does_not_affect_the_other_replies(pipeline: Pipeline, redis_client: redis.Redis) -> None:
    """It belongs to one command; the connection stays open."""
    redis_client.hset("{mesh}:counters", "n", "1")

    before, error, after = await pipeline.execute([("ECHO", "a"), ("GET", "{mesh}:counters"), ("ECHO", "b")])

    assert (before, after) == (b"a", b"b")
    assert isinstance(error, ResponseError)
    assert pipeline.connections_opened == 1


async def test_a_flushed_script_is_sent_again(pipeline: Pipeline, redis_client: redis.Redis) -> None:
    """After SCRIPT FLUSH the call is repeated with the whole script; the caller gets its reply."""
    for _ in range(3):
        redis_client.script_flush()
        ((word, *_),) = await pipeline.call_scripts([probe()])
        assert word == b"ok"


async def test_only_flushed_scripts_are_sent_again(pipeline: Pipeline, redis_client: redis.Redis) -> None:
    """The other calls ran and keep their replies, in order."""
    redis_client.script_flush()
    await pipeline.call_scripts([init_log()])

    replies = await pipeline.call_scripts([init_log(), probe(), init_log(), probe()])

    assert [reply[0] for reply in replies] == [b"ok"] * 4
    assert len(redis_client.xrange("{mesh}:log") or []) == 1


async def test_scripts_flushed_under_load_cause_no_errors(redis_url: str, redis_client: redis.Redis) -> None:
    """Two pipelines call scripts while a third connection flushes them."""
    flushes = 0

    async def calls(pipeline: Pipeline) -> list[Any]:
        return [reply for _ in range(100) for reply in await pipeline.call_scripts([probe(), init_log()])]

    async def flush(pipeline: Pipeline) -> None:
        nonlocal flushes
        while True:
            await pipeline.execute([("SCRIPT", "FLUSH")])
            flushes += 1

    async with open_pipeline(redis_url) as one, open_pipeline(redis_url) as two, open_pipeline(redis_url) as three:
        flushing = asyncio.create_task(flush(three))
        replies = await asyncio.gather(*(calls(pipeline) for pipeline in (one, two, one, two)))
        flushing.cancel()

    assert flushes > 10
    assert {reply[0] for some in replies for reply in some} <= {b"ok", b"created"}
    assert len(redis_client.xrange("{mesh}:log") or []) == 1


async def test_script_calls_are_observed_with_their_duration(redis_url: str, redis_client: redis.Redis) -> None:
    """Each run is observed once, with the name of its script."""
    redis_client.script_flush()
    seen: list[tuple[str, float]] = []

    async with open_pipeline(redis_url, observe=lambda script, seconds: seen.append((script, seconds))) as pipeline:
        await pipeline.call_scripts([probe(), probe()])
        await pipeline.call_scripts([init_log()])

    assert [script for script, _ in seen] == ["probe", "init_log"]
    assert all(0 < seconds < 2 for _, seconds in seen)


async def test_a_refused_connection_means_not_sent(tmp_path: Path) -> None:
    """No server listens, so no command was executed."""
    async with open_pipeline(f"unix://{tmp_path}/missing.sock") as pipeline:
        error = await failure(pipeline)

    assert (error.outcome, error.reason) == ("not_sent", "unreachable")
    assert pipeline.connections_opened == 0


async def test_a_refused_tcp_connection_means_not_sent(proxy: FaultyTcpProxy) -> None:
    """The same holds over TCP; once a server listens, the same pipeline works."""
    proxy.refuse()
    async with open_pipeline(proxy.url) as pipeline:
        error = await failure(pipeline)
        await proxy.accept()

        assert (error.outcome, error.reason) == ("not_sent", "unreachable")
        assert await echo(pipeline, "back") == b"back"


async def test_a_frozen_server_means_unknown_after_the_timeout(dedicated_redis: RedisServer) -> None:
    """The server may have read the command, and may reply after the timeout."""
    async with open_pipeline(dedicated_redis.url, timeout=0.2) as pipeline:
        await echo(pipeline, "first")
        dedicated_redis.pause()
        began = time.monotonic()
        error = await failure(pipeline)
        took = time.monotonic() - began
        dedicated_redis.resume()

        assert (error.outcome, error.reason) == ("unknown", "timeout")
        assert took > 0.15
        assert await echo(pipeline, "second") == b"second"
        assert pipeline.connections_opened == 2


async def test_the_default_timeout_for_a_frozen_server_is_two_seconds(dedicated_redis: RedisServer) -> None:
    """With it the registry can respond within three seconds."""
    async with open_pipeline(dedicated_redis.url) as pipeline:
        await echo(pipeline, "first")
        dedicated_redis.pause()
        began = time.monotonic()
        await failure(pipeline)
        took = time.monotonic() - began
        dedicated_redis.resume()

    assert took > 1.9


async def test_a_call_that_waits_for_the_connection_was_not_sent(dedicated_redis: RedisServer) -> None:
    """The call before it uses the connection."""
    async with open_pipeline(dedicated_redis.url, timeout=1) as pipeline:
        await echo(pipeline, "first")
        dedicated_redis.pause()
        first, second = await asyncio.gather(failure(pipeline), failure(pipeline, timeout=0.1))
        dedicated_redis.resume()

    assert (first.outcome, second.outcome) == ("unknown", "not_sent")
    assert (first.reason, second.reason) == ("timeout", "timeout")


async def test_a_server_that_dies_during_a_call_means_unknown(dedicated_redis: RedisServer) -> None:
    """The connection broke, so the call may be repeated at once."""
    async with open_pipeline(dedicated_redis.url) as pipeline:
        await echo(pipeline, "first")
        dedicated_redis.pause()
        exchange = asyncio.create_task(failure(pipeline))
        await asyncio.sleep(0)
        dedicated_redis.kill()

        error = await exchange

    assert (error.outcome, error.reason) == ("unknown", "unreachable")


async def test_a_restart_between_two_calls_causes_no_error(dedicated_redis: RedisServer) -> None:
    """The pipeline detects before it sends that its connection has ended."""
    async with open_pipeline(dedicated_redis.url) as pipeline:
        await echo(pipeline, "first")
        await asyncio.to_thread(dedicated_redis.restart)

        assert await echo(pipeline, "second") == b"second"
        assert pipeline.connections_opened == 2


async def test_a_cut_connection_is_replaced(proxy: FaultyTcpProxy) -> None:
    """The call during which it broke fails, the next one succeeds."""
    async with open_pipeline(proxy.url) as pipeline:
        await echo(pipeline, "first")
        proxy.cut_replies = 1

        error = await failure(pipeline)

        assert (error.outcome, error.reason) == ("unknown", "unreachable")
        assert await echo(pipeline, "second") == b"second"
        assert proxy.connections == pipeline.connections_opened == 2


async def test_a_cancelled_call_does_not_leave_its_reply(proxy: FaultyTcpProxy) -> None:
    """The connection is dropped, so the next call gets its own reply; a well-known incident of 2023 had this cause."""
    proxy.delay_s = 0.3
    async with open_pipeline(proxy.url) as pipeline:
        await echo(pipeline, "first")
        calling = asyncio.create_task(echo(pipeline, "cancelled"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(calling), 0.01)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

        assert await echo(pipeline, "next") == b"next"
        assert pipeline.connections_opened == 2


async def test_cancelling_random_calls_does_not_mix_up_replies(proxy: FaultyTcpProxy) -> None:
    """Each remaining call gets its own reply."""
    proxy.delay_s = 0.002
    chance = random.Random(1)  # noqa: S311 - the same at each run
    async with open_pipeline(proxy.url) as pipeline:
        calls = {f"w{number}": asyncio.create_task(echo(pipeline, f"w{number}")) for number in range(60)}
        for call in calls.values():
            if chance.random() < 0.4:
                asyncio.get_running_loop().call_later(chance.random() * 0.2, call.cancel)
        replies = await asyncio.gather(*calls.values(), return_exceptions=True)

    answered = {word: reply for word, reply in zip(calls, replies, strict=True) if isinstance(reply, bytes)}
    assert len(answered) > 20
    assert answered == {word: word.encode() for word in answered}


async def test_lost_replies_end_in_a_timeout(proxy: FaultyTcpProxy) -> None:
    """The connection is half-open: requests arrive, replies are lost."""
    async with open_pipeline(proxy.url, timeout=0.1) as pipeline:
        await echo(pipeline, "first")
        proxy.swallow_replies = True
        error = await failure(pipeline)
        proxy.swallow_replies = False

        assert (error.outcome, error.reason) == ("unknown", "timeout")
        assert await echo(pipeline, "second") == b"second"


async def test_a_closed_pipeline_stays_closed(pipeline: Pipeline) -> None:
    """A late call must not open a connection that is never closed."""
    await echo(pipeline, "first")
    await pipeline.close()

    assert (await failure(pipeline)).outcome == "not_sent"
    assert pipeline.connections_opened == 1


@pytest.mark.parametrize(("before", "outcome"), [([], "not_sent"), (["first"], "unknown")])
async def test_closing_does_not_wait(before: list[str], outcome: str, dedicated_redis: RedisServer) -> None:
    """A server that hangs must neither block the shutdown nor leave an open socket."""
    async with open_pipeline(dedicated_redis.url, timeout=10) as pipeline:
        for word in before:
            await echo(pipeline, word)
        dedicated_redis.pause()
        late = asyncio.create_task(failure(pipeline))
        await asyncio.sleep(0.05)
        await pipeline.close()
        dedicated_redis.resume()

        assert (await late).outcome == outcome
        assert pipeline._connection is None


@contextlib.asynccontextmanager
async def server_with_reply(reply: bytes) -> AsyncIterator[str]:
    """Run a server with the role of a primary that returns the same bytes for all other commands; provide its URL."""
    clients: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                writer.write(b"*1\r\n$6\r\nmaster\r\n" if b"ROLE" in chunk else reply)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        for writer in clients:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


ERROR_REPLIES = {
    "LOADING Redis is loading the dataset in memory": "loading",
    "OOM command not allowed when used memory > 'maxmemory'.": "out_of_memory",
    "MISCONF Errors writing to the AOF file: No space left on device": "store_readonly",
    "READONLY You can't write against a read only replica.": "read_only_replica",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": "busy_script",
    "NOREPLICAS Not enough good replicas to write.": "no_replicas",
    "CLUSTERDOWN The cluster is down": "cluster_down",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": "master_down",
    "MOVED 3999 127.0.0.1:6381": "moved",
    "ASK 3999 127.0.0.1:6381": "resharding",
    "TRYAGAIN Multiple keys request during rehashing of slot": "resharding",
    "NOPERM User default has no permissions to run the 'evalsha' command": "auth",
}


@pytest.mark.parametrize("error_reply", ERROR_REPLIES)
async def test_a_temporary_error_of_redis_is_unavailable_with_a_reason(error_reply: str) -> None:
    """It is not an internal error, and no command was executed: the outcome is `not_sent`."""
    async with server_with_reply(b"-%s\r\n" % error_reply.encode()) as url, open_pipeline(url) as pipeline:
        (reply,) = await pipeline.call_scripts([probe()])

        with pytest.raises(StoreUnavailable) as caught:
            raise_for_error(reply)

    assert (caught.value.reason, caught.value.outcome) == (ERROR_REPLIES[error_reply], "not_sent")
    assert reply in (caught.value, caught.value.__cause__)


@pytest.mark.parametrize("error_reply", ["NOAUTH Authentication required.", "WRONGPASS invalid username-password pair"])
async def test_rejected_credentials_are_unavailable(error_reply: str) -> None:
    """They may just be being rotated."""
    async with server_with_reply(b"-%s\r\n" % error_reply.encode()) as url, open_pipeline(url) as pipeline:
        error = await failure(pipeline)

    assert (error.reason, error.outcome) == ("auth", "not_sent")


async def test_a_wrong_password_is_unavailable(dedicated_redis: RedisServer) -> None:
    """A real server rejects it while connecting; redis-py wraps that error in another."""
    with redis.Redis.from_url(dedicated_redis.url) as client:
        client.config_set("requirepass", "secret")

    async with open_pipeline(dedicated_redis.url.replace("unix://", "unix://:wrong@")) as pipeline:
        error = await failure(pipeline)

    assert (error.reason, error.outcome) == ("auth", "not_sent")
    assert "wrong" not in str(error).split()


@pytest.mark.parametrize("error_reply", ["ERR unknown command", "WRONGTYPE Operation against a key", "EXECABORT no"])
async def test_any_other_error_is_raised_unchanged(error_reply: str) -> None:
    """It is an internal error, not an outage."""
    async with server_with_reply(b"-%s\r\n" % error_reply.encode()) as url, open_pipeline(url) as pipeline:
        (reply,) = await pipeline.execute([("PING",)])

    assert reply_or_error(reply) is reply
    with pytest.raises(ResponseError):
        raise_for_error(reply)


@pytest.mark.parametrize("reply", [None, b"", 0, [], [b"ok", 1]])
def test_a_reply_that_is_no_error_is_returned(reply: object) -> None:
    """Its type does not matter."""
    assert raise_for_error(reply) is reply


async def test_a_server_that_is_not_the_primary_is_disconnected(dedicated_redis: RedisServer) -> None:
    """The next call opens a new connection, which may lead to the new primary."""
    with redis.Redis.from_url(dedicated_redis.url) as client:
        async with open_pipeline(dedicated_redis.url) as pipeline:
            await echo(pipeline, "first")
            client.replicaof("127.0.0.1", 1)
            (reply,) = await pipeline.call_scripts([probe()])
            assert isinstance(reply_or_error(reply), StoreUnavailable)
            assert reply_or_error(reply).reason == "read_only_replica"
            client.replicaof("NO", "ONE")

            ((word, *_),) = await pipeline.call_scripts([probe()])

            assert word == b"ok"
            assert pipeline.connections_opened == 2


async def test_a_disconnect_does_not_affect_other_calls(dedicated_redis: RedisServer) -> None:
    """Callers share the pipeline: one finds that the server is a replica while the others wait for the connection."""
    async with FaultyTcpProxy(dedicated_redis.url) as proxy, open_pipeline(proxy.url) as pipeline:
        await pipeline.call_scripts([probe()])
        with redis.Redis.from_url(dedicated_redis.url) as client:
            client.replicaof("127.0.0.1", 1)
        proxy.delay_s = 0.02

        first, *others = await asyncio.gather(
            pipeline.call_scripts([probe()]), *(failure(pipeline, [("ECHO", word)]) for word in ("a", "b"))
        )

    assert reply_or_error(first[0]).reason == "read_only_replica"
    # They located the primary again, and got no reply of a replica.
    assert [(each.reason, each.outcome) for each in others] == [("read_only_replica", "not_sent")] * 2


async def test_a_replica_is_rejected_when_connecting(dedicated_redis: RedisServer) -> None:
    """Its data could be outdated, so the role is checked first."""
    with redis.Redis.from_url(dedicated_redis.url) as client:
        client.replicaof("127.0.0.1", 1)
        async with open_pipeline(dedicated_redis.url) as pipeline:
            error = await failure(pipeline)
            client.replicaof("NO", "ONE")

            assert (error.reason, error.outcome) == ("read_only_replica", "not_sent")
            assert await echo(pipeline, "now") == b"now"


async def test_a_server_that_hides_its_role_is_accepted(dedicated_redis: RedisServer) -> None:
    """Not every user may call ROLE."""
    with redis.Redis.from_url(dedicated_redis.url) as client:
        client.acl_setuser("app", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"], commands=["-role"])
    async with open_pipeline(dedicated_redis.url.replace("unix://", "unix://app:pw@")) as pipeline:
        assert await echo(pipeline, "here") == b"here"


async def test_finding_a_replica_invalidates_all_pipelines(dedicated_redis: RedisServer) -> None:
    """Pipelines that only read would not detect it."""
    server = endpoint_from_url(dedicated_redis.url)
    reads, writes = Pipeline(server.connect), Pipeline(server.connect)
    await echo(reads, "first")
    await echo(writes, "first")
    with redis.Redis.from_url(dedicated_redis.url) as client:
        client.replicaof("127.0.0.1", 1)
        await writes.call_scripts([probe()])

        assert (await failure(reads)).reason == "read_only_replica"
        client.replicaof("NO", "ONE")
        assert await echo(reads, "back") == b"back"
    await reads.close()
    await writes.close()


async def test_an_executed_call_is_not_reported_as_not_sent(
    pipeline: Pipeline, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One script was cached and ran, the other was flushed, and the server was gone when it was sent again.

    Once the failure of the second exchange reported `not_sent` for both; each call has its own outcome now.
    """
    redis_client.script_flush()
    await pipeline.call_scripts([init_log()])
    redis_client.flushdb()
    connections = [pipeline._connection]

    async def ensure_connected() -> Any:
        if not connections:
            raise ConnectionRefusedError
        return connections.pop()

    monkeypatch.setattr(pipeline, "_ensure_connected", ensure_connected)
    known, forgotten = await pipeline.call_scripts([init_log(), probe()])

    assert redis_client.exists("{mesh}:version")
    assert known[0] == b"created"
    assert isinstance(forgotten, StoreUnavailable)
    assert forgotten.outcome == "not_sent"


async def test_a_timeout_while_connecting_leaves_no_open_socket(dedicated_redis: RedisServer) -> None:
    """The server froze before its reply to AUTH; an open socket would be a warning, and warnings are errors."""
    with redis.Redis.from_url(dedicated_redis.url) as client:
        client.config_set("requirepass", "secret")
    async with open_pipeline(dedicated_redis.url.replace("unix://", "unix://:secret@"), timeout=0.05) as pipeline:
        dedicated_redis.pause()
        error = await failure(pipeline)
        gc.collect()
        dedicated_redis.resume()

        assert (error.outcome, error.reason) == ("not_sent", "timeout")
        assert await echo(pipeline, "back", timeout=60) == b"back"
