"""The link: replies in order to the right caller, forgotten scripts unnoticed, trouble named and timed."""

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


def pulse() -> ScriptCall:
    """A script that always succeeds."""
    return SCRIPTS["probe"].call(KEYS.shared, {})


def open_() -> ScriptCall:
    """Another one."""
    return SCRIPTS["init_log"].call(KEYS.shared, {"new_timeline_id": "h", "log_length": 100})


async def echo(link: Pipeline, word: str) -> bytes:
    """Ask for a word and return what came back."""
    (reply,) = await link.execute([("ECHO", word)])
    return bytes(reply)


@contextlib.asynccontextmanager
async def linked(url: str, **options: Any) -> AsyncIterator[Pipeline]:
    """A link to the server, closed at the end."""
    link = Pipeline(endpoint_from_url(url).connect, **options)
    try:
        yield link
    finally:
        await link.close()


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[Pipeline]:
    """A link to the test server."""
    async with linked(redis_url) as link:
        yield link


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[FaultyTcpProxy]:
    """A proxy in front of the test server."""
    async with FaultyTcpProxy(redis_url) as proxy:
        yield proxy


async def failure(
    link: Pipeline, commands: Sequence[tuple[str, ...]] = (("PING",),), **options: Any
) -> StoreUnavailable:
    """Return what an exchange fails with."""
    with pytest.raises(StoreUnavailable) as caught:
        await link.execute(commands, **options)
    return caught.value


async def test_replies_come_in_the_order_of_the_commands(link: Pipeline) -> None:
    """One for each, and the connection is opened when it is first needed."""
    assert link.connections_opened == 0

    assert await link.execute([("ECHO", "a"), ("PING",), ("ECHO", "b")]) == [b"a", b"PONG", b"b"]
    assert link.connections_opened == 1


async def test_each_of_many_callers_at_once_gets_its_own_reply(link: Pipeline) -> None:
    """Over one connection."""
    words = [f"w{number}" for number in range(300)]

    assert await asyncio.gather(*(echo(link, word) for word in words)) == [word.encode() for word in words]
    assert link.connections_opened == 1


async def test_an_error_reply_is_returned_and_its_neighbours_stand(link: Pipeline, raw: redis.Redis) -> None:
    """It belongs to one command; the connection goes on."""
    raw.hset("{mesh}:counters", "n", "1")

    before, error, after = await link.execute([("ECHO", "a"), ("GET", "{mesh}:counters"), ("ECHO", "b")])

    assert (before, after) == (b"a", b"b")
    assert isinstance(error, ResponseError)
    assert link.connections_opened == 1


async def test_a_forgotten_script_goes_unnoticed(link: Pipeline, raw: redis.Redis) -> None:
    """After SCRIPT FLUSH the call is sent again, whole; the reply is the script's."""
    for _ in range(3):
        raw.script_flush()
        ((word, *_),) = await link.call_scripts([pulse()])
        assert word == b"ok"


async def test_only_what_was_forgotten_is_sent_again(link: Pipeline, raw: redis.Redis) -> None:
    """The others were carried out and keep their replies, in order."""
    raw.script_flush()
    await link.call_scripts([open_()])

    replies = await link.call_scripts([open_(), pulse(), open_(), pulse()])

    assert [reply[0] for reply in replies] == [b"ok"] * 4
    assert len(raw.xrange("{mesh}:log") or []) == 1


async def test_scripts_are_forgotten_under_load_and_nobody_notices(redis_url: str, raw: redis.Redis) -> None:
    """Two links call while a third keeps flushing."""
    flushes = 0

    async def calls(link: Pipeline) -> list[Any]:
        return [reply for _ in range(100) for reply in await link.call_scripts([pulse(), open_()])]

    async def flush(link: Pipeline) -> None:
        nonlocal flushes
        while True:
            await link.execute([("SCRIPT", "FLUSH")])
            flushes += 1

    async with linked(redis_url) as one, linked(redis_url) as two, linked(redis_url) as three:
        flushing = asyncio.create_task(flush(three))
        replies = await asyncio.gather(*(calls(link) for link in (one, two, one, two)))
        flushing.cancel()

    assert flushes > 10
    assert {reply[0] for some in replies for reply in some} <= {b"ok", b"created"}
    assert len(raw.xrange("{mesh}:log") or []) == 1


async def test_script_calls_are_observed_with_their_duration(redis_url: str, raw: redis.Redis) -> None:
    """Once for each run, by the name of its script."""
    raw.script_flush()
    seen: list[tuple[str, float]] = []

    async with linked(redis_url, observe=lambda script, seconds: seen.append((script, seconds))) as link:
        await link.call_scripts([pulse(), pulse()])
        await link.call_scripts([open_()])

    assert [script for script, _ in seen] == ["probe", "init_log"]
    assert all(0 < seconds < 2 for _, seconds in seen)


async def test_a_refused_connection_means_not_sent(tmp_path: Path) -> None:
    """Nobody listens: nothing can have happened."""
    async with linked(f"unix://{tmp_path}/nobody.sock") as link:
        error = await failure(link)

    assert (error.outcome, error.reason) == ("not_sent", "unreachable")
    assert link.connections_opened == 0


async def test_a_refused_tcp_connection_means_not_sent(proxy: FaultyTcpProxy) -> None:
    """Likewise; and once somebody listens, the same link goes on."""
    proxy.refuse()
    async with linked(proxy.url) as link:
        error = await failure(link)
        await proxy.accept()

        assert (error.outcome, error.reason) == ("not_sent", "unreachable")
        assert await echo(link, "back") == b"back"


async def test_a_frozen_server_means_unknown_in_time(own_server: RedisServer) -> None:
    """It may have read the command, and may answer after we have gone."""
    async with linked(own_server.url, timeout=0.2) as link:
        await echo(link, "first")
        own_server.pause()
        began = time.monotonic()
        error = await failure(link)
        took = time.monotonic() - began
        own_server.resume()

        assert (error.outcome, error.reason) == ("unknown", "timeout")
        assert 0.15 < took < 1.9
        assert await echo(link, "second") == b"second"
        assert link.connections_opened == 2


async def test_by_default_a_frozen_server_costs_two_seconds(own_server: RedisServer) -> None:
    """The promise is an answer within three."""
    async with linked(own_server.url) as link:
        await echo(link, "first")
        own_server.pause()
        began = time.monotonic()
        await failure(link)
        took = time.monotonic() - began
        own_server.resume()

    assert 1.9 < took < 3


async def test_who_still_waits_for_its_turn_was_not_sent(own_server: RedisServer) -> None:
    """The one before it holds the connection."""
    async with linked(own_server.url, timeout=0.2) as link:
        await echo(link, "first")
        own_server.pause()
        first, second = await asyncio.gather(failure(link), failure(link, timeout=0.1))
        own_server.resume()

    assert (first.outcome, second.outcome) == ("unknown", "not_sent")
    assert (first.reason, second.reason) == ("timeout", "timeout")


async def test_a_server_that_dies_under_a_call_means_unknown(own_server: RedisServer) -> None:
    """The connection broke: a reason to try again at once."""
    async with linked(own_server.url) as link:
        await echo(link, "first")
        own_server.pause()
        exchange = asyncio.create_task(failure(link))
        await asyncio.sleep(0)
        own_server.kill()

        error = await exchange

    assert (error.outcome, error.reason) == ("unknown", "unreachable")


async def test_a_restarted_server_goes_unnoticed_between_two_calls(own_server: RedisServer) -> None:
    """The link sees that its connection has ended before it sends."""
    async with linked(own_server.url) as link:
        await echo(link, "first")
        await asyncio.to_thread(own_server.restart)

        assert await echo(link, "second") == b"second"
        assert link.connections_opened == 2


async def test_a_cut_connection_is_replaced(proxy: FaultyTcpProxy) -> None:
    """The call under which it broke fails, the next one does not."""
    async with linked(proxy.url) as link:
        await echo(link, "first")
        proxy.cut_replies = 1

        error = await failure(link)

        assert (error.outcome, error.reason) == ("unknown", "unreachable")
        assert await echo(link, "second") == b"second"
        assert proxy.connections == link.connections_opened == 2


async def test_a_cancelled_call_takes_its_reply_with_it(proxy: FaultyTcpProxy) -> None:
    """The connection is dropped, so the next call gets its own answer; in 2023 somebody else's was given away."""
    proxy.delay_s = 0.02
    async with linked(proxy.url) as link:
        await echo(link, "first")
        calling = asyncio.create_task(echo(link, "cancelled"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(calling), 0.01)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

        assert await echo(link, "next") == b"next"
        assert link.connections_opened == 2


async def test_cancelling_many_calls_at_random_mixes_up_nothing(proxy: FaultyTcpProxy) -> None:
    """Each that is left gets its own answer."""
    proxy.delay_s = 0.002
    chance = random.Random(1)  # noqa: S311 - the same at each run
    async with linked(proxy.url) as link:
        calls = {f"w{number}": asyncio.create_task(echo(link, f"w{number}")) for number in range(60)}
        for call in calls.values():
            if chance.random() < 0.4:
                asyncio.get_running_loop().call_later(chance.random() * 0.2, call.cancel)
        replies = await asyncio.gather(*calls.values(), return_exceptions=True)

    answered = {word: reply for word, reply in zip(calls, replies, strict=True) if isinstance(reply, bytes)}
    assert len(answered) > 20
    assert answered == {word: word.encode() for word in answered}


async def test_swallowed_replies_end_in_time(proxy: FaultyTcpProxy) -> None:
    """A half-open connection: requests pass, replies are lost."""
    async with linked(proxy.url, timeout=0.1) as link:
        await echo(link, "first")
        proxy.swallow_replies = True
        error = await failure(link)
        proxy.swallow_replies = False

        assert (error.outcome, error.reason) == ("unknown", "timeout")
        assert await echo(link, "second") == b"second"


async def test_a_closed_link_stays_closed(link: Pipeline) -> None:
    """What comes late must not open a connection that nobody closes any more."""
    await echo(link, "first")
    await link.close()

    assert (await failure(link)).outcome == "not_sent"
    assert link.connections_opened == 1


@pytest.mark.parametrize(("before", "outcome"), [([], "not_sent"), (["first"], "unknown")])
async def test_closing_waits_for_nothing(before: list[str], outcome: str, own_server: RedisServer) -> None:
    """A server that hangs must not keep a registry from ending, nor leave it a socket."""
    async with linked(own_server.url, timeout=10) as link:
        for word in before:
            await echo(link, word)
        own_server.pause()
        late = asyncio.create_task(failure(link))
        await asyncio.sleep(0.05)
        await link.close()
        own_server.resume()

        assert (await late).outcome == outcome
        assert link._connection is None


@contextlib.asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[str]:
    """A server that says it is the primary and answers all else with the same bytes; gives its URL."""
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


REFUSALS = {
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


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_what_redis_cannot_do_now_is_trouble_with_a_reason(refusal: str) -> None:
    """Never a bug, and nothing was done: a caller learns `not_sent`, and why."""
    async with answering(b"-%s\r\n" % refusal.encode()) as url, linked(url) as link:
        (reply,) = await link.call_scripts([pulse()])

        with pytest.raises(StoreUnavailable) as caught:
            raise_for_error(reply)

    assert (caught.value.reason, caught.value.outcome) == (REFUSALS[refusal], "not_sent")
    assert caught.value.__cause__ is reply


@pytest.mark.parametrize("refusal", ["NOAUTH Authentication required.", "WRONGPASS invalid username-password pair"])
async def test_refused_credentials_are_trouble(refusal: str) -> None:
    """Redis may be about to rotate them."""
    async with answering(b"-%s\r\n" % refusal.encode()) as url, linked(url) as link:
        error = await failure(link)

    assert (error.reason, error.outcome) == ("auth", "not_sent")


async def test_a_wrong_password_is_trouble(own_server: RedisServer) -> None:
    """With a real server, which refuses while connecting; redis-py wraps that error in another."""
    with redis.Redis.from_url(own_server.url) as client:
        client.config_set("requirepass", "secret")

    async with linked(own_server.url.replace("unix://", "unix://:wrong@")) as link:
        error = await failure(link)

    assert (error.reason, error.outcome) == ("auth", "not_sent")
    assert "wrong" not in str(error).split()


@pytest.mark.parametrize("refusal", ["ERR unknown command", "WRONGTYPE Operation against a key", "EXECABORT no"])
async def test_any_other_error_is_a_bug_and_stays_what_it_is(refusal: str) -> None:
    """It is raised, not disguised as trouble."""
    async with answering(b"-%s\r\n" % refusal.encode()) as url, linked(url) as link:
        (reply,) = await link.execute([("PING",)])

    assert reply_or_error(reply) is reply
    with pytest.raises(ResponseError):
        raise_for_error(reply)


@pytest.mark.parametrize("reply", [None, b"", 0, [], [b"ok", 1]])
def test_a_reply_that_is_no_error_is_passed_on(reply: object) -> None:
    """Whatever it is."""
    assert raise_for_error(reply) is reply


async def test_a_server_that_is_not_the_master_is_left(own_server: RedisServer) -> None:
    """The next call asks for a new connection, behind which the new master may stand."""
    with redis.Redis.from_url(own_server.url) as client:
        async with linked(own_server.url) as link:
            await echo(link, "first")
            client.replicaof("127.0.0.1", 1)
            (reply,) = await link.call_scripts([pulse()])
            assert isinstance(reply_or_error(reply), StoreUnavailable)
            assert reply_or_error(reply).reason == "read_only_replica"
            client.replicaof("NO", "ONE")

            ((word, *_),) = await link.call_scripts([pulse()])

            assert word == b"ok"
            assert link.connections_opened == 2


async def test_leaving_a_server_disturbs_no_other_call(own_server: RedisServer) -> None:
    """Callers share the link: one learns that the server is a replica while the others wait for their turn."""
    async with FaultyTcpProxy(own_server.url) as proxy, linked(proxy.url) as link:
        await link.call_scripts([pulse()])
        with redis.Redis.from_url(own_server.url) as client:
            client.replicaof("127.0.0.1", 1)
        proxy.delay_s = 0.02

        first, *others = await asyncio.gather(
            link.call_scripts([pulse()]), *(failure(link, [("ECHO", word)]) for word in ("a", "b"))
        )

    assert reply_or_error(first[0]).reason == "read_only_replica"
    # They looked anew for the primary, and were not answered by a replica.
    assert [(each.reason, each.outcome) for each in others] == [("read_only_replica", "not_sent")] * 2


async def test_a_replica_answers_nothing_from_the_start(own_server: RedisServer) -> None:
    """Its reads would be of the past; what a server is, is asked when connecting."""
    with redis.Redis.from_url(own_server.url) as client:
        client.replicaof("127.0.0.1", 1)
        async with linked(own_server.url) as link:
            error = await failure(link)
            client.replicaof("NO", "ONE")

            assert (error.reason, error.outcome) == ("read_only_replica", "not_sent")
            assert await echo(link, "now") == b"now"


async def test_a_server_that_does_not_tell_its_role_is_believed(own_server: RedisServer) -> None:
    """Not every user may ask."""
    with redis.Redis.from_url(own_server.url) as client:
        client.acl_setuser("app", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"], commands=["-role"])
    async with linked(own_server.url.replace("unix://", "unix://app:pw@")) as link:
        assert await echo(link, "here") == b"here"


async def test_who_learns_that_a_server_is_a_replica_tells_all_links(own_server: RedisServer) -> None:
    """Those that only read would never notice."""
    server = endpoint_from_url(own_server.url)
    reads, writes = Pipeline(server.connect), Pipeline(server.connect)
    await echo(reads, "first")
    await echo(writes, "first")
    with redis.Redis.from_url(own_server.url) as client:
        client.replicaof("127.0.0.1", 1)
        await writes.call_scripts([pulse()])

        assert (await failure(reads)).reason == "read_only_replica"
        client.replicaof("NO", "ONE")
        assert await echo(reads, "back") == b"back"
    await reads.close()
    await writes.close()


async def test_what_was_carried_out_is_never_called_not_sent(
    link: Pipeline, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One script was known and ran, the other was forgotten, and the server was gone when it was to be sent again.

    The failure of the second exchange said `not_sent`, for both; each has its own answer now.
    """
    raw.script_flush()
    await link.call_scripts([open_()])
    raw.flushdb()
    connections = [link._connection]

    async def ready() -> Any:
        if not connections:
            raise ConnectionRefusedError
        return connections.pop()

    monkeypatch.setattr(link, "_ensure_connected", ready)
    known, forgotten = await link.call_scripts([open_(), pulse()])

    assert raw.exists("{mesh}:version")
    assert known[0] == b"created"
    assert isinstance(forgotten, StoreUnavailable)
    assert forgotten.outcome == "not_sent"


async def test_giving_up_while_connecting_leaves_no_socket_behind(own_server: RedisServer) -> None:
    """The server froze before it answered AUTH; an unclosed socket would be a warning, and warnings are errors."""
    with redis.Redis.from_url(own_server.url) as client:
        client.config_set("requirepass", "secret")
    async with linked(own_server.url.replace("unix://", "unix://:secret@"), timeout=0.05) as link:
        own_server.pause()
        error = await failure(link)
        gc.collect()
        own_server.resume()

        assert (error.outcome, error.reason) == ("not_sent", "timeout")
        assert await echo(link, "back") == b"back"
