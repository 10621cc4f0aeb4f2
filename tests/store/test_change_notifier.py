"""The change notifier: one notification for each new log entry, on any server, and again after any failure."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import redis

from registry.store import change_notifier as notifier_module
from registry.store.change_notifier import ChangeNotifier, NotifierMode
from registry.store.keys import Keys
from registry.store.redis.connection import RedisEndpoint, endpoint_from_url, in_memory_endpoint
from registry.store.redis.pipeline import Pipeline
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer

KEYS = Keys("mesh")
LOG = "{mesh}:log"

pytestmark = pytest.mark.leaves_damaged_data("log entries are written by hand")


class CountingNotifier:
    """A change notifier that counts its notifications."""

    def __init__(self, server: RedisEndpoint) -> None:
        self.count = 0
        self.notifier = ChangeNotifier(KEYS, server.connect, self._count)

    def _count(self) -> None:
        self.count += 1

    async def wait_for_mode(self, mode: NotifierMode) -> None:
        """Wait until the notifier is in this mode."""
        await async_wait_until(lambda: self.notifier.mode == mode, description=f"the notifier is {mode}")

    async def assert_notified(self, client: redis.Redis) -> None:
        """Add an entry to the log and wait for a notification."""
        before = self.count
        client.xadd(LOG, {"kind": "add"})
        await async_wait_until(lambda: self.count > before, description="the notification arrives")


@contextlib.asynccontextmanager
async def running_notifier(server: RedisEndpoint) -> AsyncIterator[CountingNotifier]:
    """Run a change notifier during the block."""
    counter = CountingNotifier(server)
    task = asyncio.create_task(counter.notifier.run())
    try:
        yield counter
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the intervals from seconds to hundredths of a second."""
    monkeypatch.setattr(notifier_module, "_RECONNECT_DELAY_S", 0.01)
    monkeypatch.setattr(notifier_module, "_PING_AFTER_IDLE_S", 0.05)


def flags(client: redis.Redis) -> set[str]:
    """Return the flags of `notify-keyspace-events` of the server."""
    return {*str(client.config_get("notify-keyspace-events")["notify-keyspace-events"])}


def command_calls(client: redis.Redis, command: str) -> int:
    """Return how often the server executed a command."""
    return int(client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


def without_config(server: RedisServer, client: redis.Redis) -> str:
    """Return the URL of a user with all permissions except CONFIG."""
    client.acl_setuser(
        "registry",
        enabled=True,
        passwords=["+pw"],
        keys=["*"],
        channels=["*"],
        categories=["+@all"],
        commands=["-config"],
    )
    return server.url.replace("unix://", "unix://registry:pw@")


async def test_each_new_entry_is_notified(redis_url: str, redis_client: redis.Redis) -> None:
    """One more notification follows the subscription, for earlier entries."""
    async with running_notifier(endpoint_from_url(redis_url)) as counter:
        await counter.wait_for_mode("keyspace")
        assert counter.count == 1

        for _ in range(3):
            await counter.assert_notified(redis_client)


async def test_other_changes_are_not_notified(redis_url: str, redis_client: redis.Redis) -> None:
    """Neither other keys nor other commands on the log cause a notification."""
    async with running_notifier(endpoint_from_url(redis_url)) as counter:
        await counter.wait_for_mode("keyspace")
        redis_client.xadd("{mesh}:other", {"kind": "add"})
        redis_client.xadd(LOG, {"kind": "add"}, id="1-0")
        await async_wait_until(lambda: counter.count == 2, description="the notification arrives for the entry")

        redis_client.xtrim(LOG, maxlen=0)
        redis_client.set("{mesh}:version", "2")
        redis_client.xadd(LOG, {"kind": "add"}, id="2-0")

        await async_wait_until(lambda: counter.count >= 3, description="the notification arrives for the next entry")
        assert counter.count == 3


async def test_it_enables_keyspace_events(redis_url: str, redis_client: redis.Redis) -> None:
    """It enables those for streams, by key."""
    async with running_notifier(endpoint_from_url(redis_url)) as counter:
        await counter.wait_for_mode("keyspace")

    assert flags(redis_client) == {"K", "t"}


async def test_it_keeps_the_flags_of_other_programs(redis_url: str, redis_client: redis.Redis) -> None:
    """Existing flags stay."""
    redis_client.config_set("notify-keyspace-events", "Ex")

    async with running_notifier(endpoint_from_url(redis_url)) as counter:
        await counter.wait_for_mode("keyspace")

        assert flags(redis_client) == {"K", "t", "E", "x"}
        await counter.assert_notified(redis_client)


async def test_it_does_not_change_sufficient_flags(redis_url: str, redis_client: redis.Redis) -> None:
    """`A` includes all types, also streams."""
    redis_client.config_set("notify-keyspace-events", "KA")
    before = command_calls(redis_client, "config|set")

    async with running_notifier(endpoint_from_url(redis_url)) as counter:
        await counter.wait_for_mode("keyspace")
        await counter.assert_notified(redis_client)

    assert flags(redis_client) == {"K", "A"}
    assert command_calls(redis_client, "config|set") == before


async def test_it_enables_the_events_again_after_a_reconnect(redis_url: str, redis_client: redis.Redis) -> None:
    """A restarted server has lost the flags."""
    async with FaultyTcpProxy(redis_url) as proxy, running_notifier(endpoint_from_url(proxy.url)) as counter:
        await counter.wait_for_mode("keyspace")
        redis_client.config_set("notify-keyspace-events", "")
        proxy.cut()
        await async_wait_until(lambda: proxy.connections == 2, description="the notifier is connected again")
        await counter.wait_for_mode("keyspace")

        await counter.assert_notified(redis_client)


async def test_it_uses_blocking_reads_if_config_is_rejected(dedicated_redis: RedisServer) -> None:
    """Managed servers do that; the notifications are the same."""
    with redis.Redis.from_url(dedicated_redis.url) as client:
        async with running_notifier(endpoint_from_url(without_config(dedicated_redis, client))) as counter:
            await counter.wait_for_mode("blocking_read")
            for _ in range(3):
                await counter.assert_notified(client)


async def test_it_uses_blocking_reads_if_config_is_renamed() -> None:
    """Some providers rename the command."""
    with RedisServer("--rename-command", "CONFIG", "") as server, redis.Redis.from_url(server.url) as client:
        async with running_notifier(endpoint_from_url(server.url)) as counter:
            await counter.wait_for_mode("blocking_read")
            await counter.assert_notified(client)


async def test_it_uses_blocking_reads_if_channels_are_rejected(dedicated_redis: RedisServer) -> None:
    """From Redis 7 on a new user has no channels by default: SUBSCRIBE is rejected, CONFIG is not."""
    with redis.Redis.from_url(dedicated_redis.url) as client:
        client.acl_setuser("registry", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"])
        async with running_notifier(
            endpoint_from_url(dedicated_redis.url.replace("unix://", "unix://registry:pw@"))
        ) as counter:
            await counter.wait_for_mode("blocking_read")
            await counter.assert_notified(client)


async def test_a_temporary_rejection_does_not_change_the_mode(dedicated_redis: RedisServer) -> None:
    """During a script that runs too long, Redis rejects CONFIG and SUBSCRIBE too; afterwards it accepts them."""
    with redis.Redis.from_url(dedicated_redis.url) as client, redis.Redis.from_url(dedicated_redis.url) as busy:
        client.config_set("busy-reply-threshold", 1)
        running = asyncio.create_task(asyncio.to_thread(_run_endless_script, busy))
        await async_wait_until(lambda: _is_busy(client), description="the server is busy")
        async with running_notifier(endpoint_from_url(dedicated_redis.url)) as counter:
            await async_wait_until(lambda: counter.count >= 3, description="three attempts")
            assert counter.notifier.mode == "disconnected"
            client.execute_command("SCRIPT", "KILL")
            await running

            await counter.wait_for_mode("keyspace")
            await counter.assert_notified(client)


def _run_endless_script(client: redis.Redis) -> None:
    with contextlib.suppress(redis.ResponseError):
        client.eval("while true do end", 0)


def _is_busy(client: redis.Redis) -> bool:
    try:
        return not client.ping()
    except redis.ResponseError as error:
        return "BUSY" in str(error)


async def test_a_server_that_rejects_config_is_tried_again_after_a_reconnect(dedicated_redis: RedisServer) -> None:
    """The connection may then lead to another server."""
    with redis.Redis.from_url(dedicated_redis.url) as client:
        url = without_config(dedicated_redis, client)
        async with running_notifier(endpoint_from_url(url)) as counter:
            await counter.wait_for_mode("blocking_read")
            client.acl_setuser("registry", commands=["+config"], enabled=True)
            client.client_kill_filter(_type="normal", skipme=True)

            await counter.wait_for_mode("keyspace")


async def test_it_subscribes_in_the_database_of_its_url(dedicated_redis: RedisServer) -> None:
    """The channels of keys contain the number of the database."""
    url = f"{dedicated_redis.url}?db=3"
    with redis.Redis.from_url(url) as client:
        async with running_notifier(endpoint_from_url(url)) as counter:
            await counter.wait_for_mode("keyspace")
            await counter.assert_notified(client)


async def test_a_blocking_read_is_repeated_after_its_timeout(dedicated_redis: RedisServer) -> None:
    """It is sent again on the same connection."""
    with redis.Redis.from_url(dedicated_redis.url) as client:
        async with running_notifier(endpoint_from_url(without_config(dedicated_redis, client))) as counter:
            await counter.wait_for_mode("blocking_read")
            await async_wait_until(lambda: command_calls(client, "xread") >= 2, description="two reads found nothing")

            await counter.assert_notified(client)
            assert counter.notifier.mode == "blocking_read"


async def test_fall_back_starts_blocking_reads(redis_url: str, redis_client: redis.Redis) -> None:
    """Events are enabled, but do not arrive."""
    async with running_notifier(endpoint_from_url(redis_url)) as counter:
        await counter.wait_for_mode("keyspace")
        redis_client.config_set("notify-keyspace-events", "")

        counter.notifier.fall_back()

        await counter.wait_for_mode("blocking_read")
        await counter.assert_notified(redis_client)
        assert flags(redis_client) == set()


async def test_fall_back_has_no_effect_on_blocking_reads(redis_url: str, redis_client: redis.Redis) -> None:
    """There is no better mode; it has no effect while disconnected either."""
    counter = CountingNotifier(endpoint_from_url(redis_url))
    counter.notifier.fall_back()
    assert counter.notifier.mode == "disconnected"

    async with running_notifier(endpoint_from_url(redis_url)) as counter:
        await counter.wait_for_mode("keyspace")
        counter.notifier.fall_back()
        await counter.wait_for_mode("blocking_read")
        counter.notifier.fall_back()

        await counter.assert_notified(redis_client)
        assert counter.notifier.mode == "blocking_read"


async def test_it_reconnects_after_a_restart(dedicated_redis: RedisServer) -> None:
    """It then notifies once, for entries that it may have missed."""
    async with running_notifier(endpoint_from_url(dedicated_redis.url)) as counter:
        await counter.wait_for_mode("keyspace")
        dedicated_redis.kill()
        await counter.wait_for_mode("disconnected")
        count = counter.count
        dedicated_redis.start()
        await counter.wait_for_mode("keyspace")

        assert counter.count > count
        with redis.Redis.from_url(dedicated_redis.url) as client:
            await counter.assert_notified(client)


async def test_it_detects_a_frozen_server(dedicated_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pub/sub alone would wait without end, so it sends a ping after an idle time."""
    monkeypatch.setattr(notifier_module, "_REPLY_TIMEOUT_S", 0.1)
    async with running_notifier(endpoint_from_url(dedicated_redis.url)) as counter:
        await counter.wait_for_mode("keyspace")
        dedicated_redis.pause()
        await counter.wait_for_mode("disconnected")
        dedicated_redis.resume()

        await counter.wait_for_mode("keyspace")
        with redis.Redis.from_url(dedicated_redis.url) as client:
            await counter.assert_notified(client)


async def test_an_idle_time_costs_only_a_ping(redis_url: str, redis_client: redis.Redis) -> None:
    """The reply to it is no notification, and the connection stays open."""
    async with FaultyTcpProxy(redis_url) as proxy, running_notifier(endpoint_from_url(proxy.url)) as counter:
        await counter.wait_for_mode("keyspace")
        requests_before = proxy.requests
        await async_wait_until(lambda: proxy.requests >= requests_before + 3, description="three pings")

        assert (counter.count, proxy.connections) == (1, 1)
        await counter.assert_notified(redis_client)


async def test_a_ping_does_not_hide_a_notification(redis_url: str, redis_client: redis.Redis) -> None:
    """An entry that arrived during the ping was once taken for its reply."""
    async with FaultyTcpProxy(redis_url) as proxy, running_notifier(endpoint_from_url(proxy.url)) as counter:
        await counter.wait_for_mode("keyspace")
        proxy.delay_s = 0.02
        await async_wait_until(lambda: proxy.delayed_requests, description="a ping is in flight")

        await counter.assert_notified(redis_client)


async def test_it_waits_for_a_server_that_is_not_running_yet(dedicated_redis: RedisServer) -> None:
    """It retries without end, and logs only the first failure."""
    dedicated_redis.kill()
    async with running_notifier(endpoint_from_url(dedicated_redis.url)) as counter:
        await async_wait_until(lambda: counter.count >= 3, description="three attempts")
        dedicated_redis.start()

        await counter.wait_for_mode("keyspace")


async def test_it_works_with_the_server_in_memory() -> None:
    """It uses any mode that this server supports."""
    server = in_memory_endpoint()
    pipeline = Pipeline(server.connect)
    async with running_notifier(server) as counter:
        await async_wait_until(lambda: counter.notifier.mode != "disconnected", description="the notifier is connected")
        before = counter.count
        await pipeline.execute([("XADD", LOG, "1-0", "kind", "add")])

        await async_wait_until(lambda: counter.count > before, description="the notification arrives")
    await pipeline.close()
