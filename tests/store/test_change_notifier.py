"""The bell rings for each new log entry, whatever the server allows, and comes back after anything."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import redis

from registry.store import change_notifier as bell_module
from registry.store.change_notifier import ChangeNotifier, NotifierMode
from registry.store.keys import Keys
from registry.store.redis.connection import RedisEndpoint, endpoint_from_url, in_memory_endpoint
from registry.store.redis.pipeline import Pipeline
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer

KEYS = Keys("mesh")
LOG = "{mesh}:log"

pytestmark = pytest.mark.poisoned("log entries are written by hand")


class Rung:
    """Counts the rings of one bell."""

    def __init__(self, server: RedisEndpoint) -> None:
        self.rings = 0
        self.bell = ChangeNotifier(KEYS, server.connect, self._ring)

    def _ring(self) -> None:
        self.rings += 1

    async def sounds(self, sound: NotifierMode) -> None:
        """Wait until the bell hears in this way."""
        await async_wait_until(lambda: self.bell.mode == sound, description=f"the bell is {sound}")

    async def rings_after(self, client: redis.Redis) -> None:
        """Add an entry to the log and wait for a ring."""
        before = self.rings
        client.xadd(LOG, {"kind": "add"})
        await async_wait_until(lambda: self.rings > before, description="the bell rings")


@contextlib.asynccontextmanager
async def listening(server: RedisEndpoint) -> AsyncIterator[Rung]:
    """A bell that listens meanwhile."""
    rung = Rung(server)
    task = asyncio.create_task(rung.bell.run())
    try:
        yield rung
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds in service takes hundredths here."""
    monkeypatch.setattr(bell_module, "_RECONNECT_DELAY_S", 0.01)
    monkeypatch.setattr(bell_module, "_PING_AFTER_IDLE_S", 0.05)


def flags(client: redis.Redis) -> set[str]:
    """Return the server's notify-keyspace-events, letter by letter."""
    return {*str(client.config_get("notify-keyspace-events")["notify-keyspace-events"])}


def calls(client: redis.Redis, command: str) -> int:
    """Return how often the server was asked this."""
    return int(client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


def without_config(server: RedisServer, client: redis.Redis) -> str:
    """Return the URL of a user who may do everything but CONFIG."""
    client.acl_setuser(
        "feed", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], categories=["+@all"], commands=["-config"]
    )
    return server.url.replace("unix://", "unix://feed:pw@")


async def test_it_rings_for_each_new_entry(redis_url: str, raw: redis.Redis) -> None:
    """And once when it begins to listen, for what came before."""
    async with listening(endpoint_from_url(redis_url)) as rung:
        await rung.sounds("keyspace")
        assert rung.rings == 1

        for _ in range(3):
            await rung.rings_after(raw)


async def test_it_rings_for_nothing_else(redis_url: str, raw: redis.Redis) -> None:
    """Neither for other keys nor for what else befalls the log."""
    async with listening(endpoint_from_url(redis_url)) as rung:
        await rung.sounds("keyspace")
        raw.xadd("{mesh}:other", {"kind": "add"})
        raw.xadd(LOG, {"kind": "add"}, id="1-0")
        await async_wait_until(lambda: rung.rings == 2, description="the bell rings for the entry")

        raw.xtrim(LOG, maxlen=0)
        raw.set("{mesh}:version", "2")
        raw.xadd(LOG, {"kind": "add"}, id="2-0")

        await async_wait_until(lambda: rung.rings >= 3, description="the bell rings for the next entry")
        assert rung.rings == 3


async def test_it_turns_the_events_on(redis_url: str, raw: redis.Redis) -> None:
    """Those for streams, by key."""
    async with listening(endpoint_from_url(redis_url)) as rung:
        await rung.sounds("keyspace")

    assert flags(raw) == {"K", "t"}


async def test_it_keeps_the_events_that_others_need(redis_url: str, raw: redis.Redis) -> None:
    """Existing flags stay."""
    raw.config_set("notify-keyspace-events", "Ex")

    async with listening(endpoint_from_url(redis_url)) as rung:
        await rung.sounds("keyspace")

        assert flags(raw) == {"K", "t", "E", "x"}
        await rung.rings_after(raw)


async def test_it_leaves_alone_what_suffices(redis_url: str, raw: redis.Redis) -> None:
    """`A` means all types, streams too."""
    raw.config_set("notify-keyspace-events", "KA")
    before = calls(raw, "config|set")

    async with listening(endpoint_from_url(redis_url)) as rung:
        await rung.sounds("keyspace")
        await rung.rings_after(raw)

    assert flags(raw) == {"K", "A"}
    assert calls(raw, "config|set") == before


async def test_it_turns_the_events_on_again_after_a_reconnect(redis_url: str, raw: redis.Redis) -> None:
    """A server that was restarted has forgotten them."""
    async with FaultyTcpProxy(redis_url) as proxy, listening(endpoint_from_url(proxy.url)) as rung:
        await rung.sounds("keyspace")
        raw.config_set("notify-keyspace-events", "")
        proxy.cut()
        await async_wait_until(lambda: proxy.connections == 2, description="the bell is back")
        await rung.sounds("keyspace")

        await rung.rings_after(raw)


async def test_it_blocks_on_the_log_where_config_is_refused(own_server: RedisServer) -> None:
    """As with managed servers; the rings are the same."""
    with redis.Redis.from_url(own_server.url) as client:
        async with listening(endpoint_from_url(without_config(own_server, client))) as rung:
            await rung.sounds("blocking_read")
            for _ in range(3):
                await rung.rings_after(client)


async def test_it_blocks_on_the_log_where_config_is_another_command() -> None:
    """Renamed away, as some providers do."""
    with RedisServer("--rename-command", "CONFIG", "") as server, redis.Redis.from_url(server.url) as client:
        async with listening(endpoint_from_url(server.url)) as rung:
            await rung.sounds("blocking_read")
            await rung.rings_after(client)


async def test_it_blocks_on_the_log_where_channels_are_refused(own_server: RedisServer) -> None:
    """From Redis 7 on a new user has no channels unless it is given some: then SUBSCRIBE is refused, not CONFIG."""
    with redis.Redis.from_url(own_server.url) as client:
        client.acl_setuser("feed", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"])
        async with listening(endpoint_from_url(own_server.url.replace("unix://", "unix://feed:pw@"))) as rung:
            await rung.sounds("blocking_read")
            await rung.rings_after(client)


async def test_a_refusal_that_passes_is_not_for_good(own_server: RedisServer) -> None:
    """A script that runs too long makes Redis refuse CONFIG and SUBSCRIBE, too; afterwards it allows them."""
    with redis.Redis.from_url(own_server.url) as client, redis.Redis.from_url(own_server.url) as busy:
        client.config_set("busy-reply-threshold", 1)
        running = asyncio.create_task(asyncio.to_thread(_run_for_ever, busy))
        await async_wait_until(lambda: _is_busy(client), description="the server is busy")
        async with listening(endpoint_from_url(own_server.url)) as rung:
            await async_wait_until(lambda: rung.rings >= 3, description="three tries")
            assert rung.bell.mode == "disconnected"
            client.execute_command("SCRIPT", "KILL")
            await running

            await rung.sounds("keyspace")
            await rung.rings_after(client)


def _run_for_ever(client: redis.Redis) -> None:
    with contextlib.suppress(redis.ResponseError):
        client.eval("while true do end", 0)


def _is_busy(client: redis.Redis) -> bool:
    try:
        return not client.ping()
    except redis.ResponseError as error:
        return "BUSY" in str(error)


async def test_a_server_that_refuses_is_asked_again_after_a_reconnect(own_server: RedisServer) -> None:
    """Another one may stand behind the connection by then."""
    with redis.Redis.from_url(own_server.url) as client:
        url = without_config(own_server, client)
        async with listening(endpoint_from_url(url)) as rung:
            await rung.sounds("blocking_read")
            client.acl_setuser("feed", commands=["+config"], enabled=True)
            client.client_kill_filter(_type="normal", skipme=True)

            await rung.sounds("keyspace")


async def test_it_listens_in_the_database_of_its_url(own_server: RedisServer) -> None:
    """Channels of keys carry its number."""
    url = f"{own_server.url}?db=3"
    with redis.Redis.from_url(url) as client:
        async with listening(endpoint_from_url(url)) as rung:
            await rung.sounds("keyspace")
            await rung.rings_after(client)


async def test_a_blocking_read_outlasts_silence(own_server: RedisServer) -> None:
    """It asks again when its time is over, on the same connection."""
    with redis.Redis.from_url(own_server.url) as client:
        async with listening(endpoint_from_url(without_config(own_server, client))) as rung:
            await rung.sounds("blocking_read")
            await async_wait_until(lambda: calls(client, "xread") >= 2, description="two reads found nothing")

            await rung.rings_after(client)
            assert rung.bell.mode == "blocking_read"


async def test_distrust_makes_it_block_on_the_log(redis_url: str, raw: redis.Redis) -> None:
    """Where events are on, but do not arrive."""
    async with listening(endpoint_from_url(redis_url)) as rung:
        await rung.sounds("keyspace")
        raw.config_set("notify-keyspace-events", "")

        rung.bell.fall_back()

        await rung.sounds("blocking_read")
        await rung.rings_after(raw)
        assert flags(raw) == set()


async def test_distrust_of_blocking_reads_changes_nothing(redis_url: str, raw: redis.Redis) -> None:
    """There is nothing better; and while it is silent it is distrusted anyway."""
    rung = Rung(endpoint_from_url(redis_url))
    rung.bell.fall_back()
    assert rung.bell.mode == "disconnected"

    async with listening(endpoint_from_url(redis_url)) as rung:
        await rung.sounds("keyspace")
        rung.bell.fall_back()
        await rung.sounds("blocking_read")
        rung.bell.fall_back()

        await rung.rings_after(raw)
        assert rung.bell.mode == "blocking_read"


async def test_it_comes_back_after_a_restart(own_server: RedisServer) -> None:
    """Silent meanwhile; and it rings, for what it may have missed."""
    async with listening(endpoint_from_url(own_server.url)) as rung:
        await rung.sounds("keyspace")
        own_server.kill()
        await rung.sounds("disconnected")
        rings = rung.rings
        own_server.start()
        await rung.sounds("keyspace")

        assert rung.rings > rings
        with redis.Redis.from_url(own_server.url) as client:
            await rung.rings_after(client)


async def test_it_notices_a_server_that_froze(own_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pub/sub alone would wait for ever: after a silence it asks."""
    monkeypatch.setattr(bell_module, "_REPLY_TIMEOUT_S", 0.1)
    async with listening(endpoint_from_url(own_server.url)) as rung:
        await rung.sounds("keyspace")
        own_server.pause()
        await rung.sounds("disconnected")
        own_server.resume()

        await rung.sounds("keyspace")
        with redis.Redis.from_url(own_server.url) as client:
            await rung.rings_after(client)


async def test_a_silence_costs_nothing_but_a_question(redis_url: str, raw: redis.Redis) -> None:
    """The answer to it is no ring, and the connection stays."""
    async with FaultyTcpProxy(redis_url) as proxy, listening(endpoint_from_url(proxy.url)) as rung:
        await rung.sounds("keyspace")
        asked = proxy.requests
        await async_wait_until(lambda: proxy.requests >= asked + 3, description="three silences")

        assert (rung.rings, proxy.connections) == (1, 1)
        await rung.rings_after(raw)


async def test_a_question_swallows_no_ring(redis_url: str, raw: redis.Redis) -> None:
    """After a silence the bell asks whether the server lives; an entry that came meanwhile was taken for the answer."""
    async with FaultyTcpProxy(redis_url) as proxy, listening(endpoint_from_url(proxy.url)) as rung:
        await rung.sounds("keyspace")
        proxy.delay_s = 0.02
        await async_wait_until(lambda: proxy.delayed_requests, description="a question is on its way")

        await rung.rings_after(raw)


async def test_it_waits_for_a_server_that_is_not_there_yet(own_server: RedisServer) -> None:
    """For ever, without a word beyond the first."""
    own_server.kill()
    async with listening(endpoint_from_url(own_server.url)) as rung:
        await async_wait_until(lambda: rung.rings >= 3, description="three tries")
        own_server.start()

        await rung.sounds("keyspace")


async def test_it_rings_in_memory() -> None:
    """By whatever way the server inside the process allows."""
    server = in_memory_endpoint()
    link = Pipeline(server.connect)
    async with listening(server) as rung:
        await async_wait_until(lambda: rung.bell.mode != "disconnected", description="the bell listens")
        before = rung.rings
        await link.execute([("XADD", LOG, "1-0", "kind", "add")])

        await async_wait_until(lambda: rung.rings > before, description="the bell rings")
    await link.close()
