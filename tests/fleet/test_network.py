"""Faults between callers, replicas and Redis: lost requests and replies, delays, disconnecting callers."""

import asyncio
import random
import time

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.fleet_under_load import FleetUnderLoad
from tests.support.http_calls import a_registration
from tests.support.raw_http import RawResponse, open_raw_connection
from tests.support.watch_client import open_watch

# More calls than one replica lets wait for Redis.
FLOOD_CALLS = 1500


@pytest.mark.fault(12, "Requests reach Redis, but its replies are lost")
async def test_a_retry_after_lost_replies_has_no_second_effect(run_fleet: FleetMaker) -> None:
    """Calls to the replica are 503 after the time limit; the write it could not confirm is stored once."""
    async with run_fleet(proxied=True) as fleet:
        fleet.tolerate(extra_delay_s=10)
        proxy, url = fleet.proxies[0], fleet.replicas[0].url
        await fleet.wait_for_writes()

        async def outcome_without_reply() -> str:
            proxy.swallow_replies = True
            async with open_raw_connection(url) as connection:
                response = await connection.request("POST", "/agents", a_registration("twice"))
            assert response.status == 503
            proxy.swallow_replies = False
            await fleet.wait_until_all_ready()
            return str(response.body["outcome"])

        # Where a heartbeat before it broke the connection, the registration was not sent: no reply to lose.
        outcomes = [await outcome_without_reply()]
        while outcomes[-1] == "not_sent":
            outcomes.append(await outcome_without_reply())
        assert outcomes[-1] == "unknown"
        async with open_raw_connection(url) as connection:
            response = await connection.request("POST", "/agents", a_registration("twice"))

        assert response.status == 200
        fleet.log_recorder.read()
        entries = [each for each in fleet.log_recorder.logs[-1].changes if each.agent and each.agent.id == "twice"]
        assert [(each.kind, str(each.version)) for each in entries] == [("add", response.body["resource_version"])]


@pytest.mark.fault(13, "The response to a registration is lost")
async def test_a_retried_registration_registers_once(run_fleet: FleetMaker) -> None:
    """The client receives no response and retries on another replica: there is one agent and one ADDED event."""
    async with run_fleet() as fleet, FaultyTcpProxy(fleet.replicas[0].url) as proxy:
        async with open_watch(fleet.replicas[2].url, agent_id="again") as stream:
            proxy.cut_replies = 1
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                async with open_raw_connection(f"http://127.0.0.1:{proxy.port}") as connection:
                    await connection.request("POST", "/agents", a_registration("again"))
            async with open_raw_connection(fleet.replicas[1].url) as connection:
                response = await connection.request("POST", "/agents", a_registration("again"))
                await connection.request("POST", "/heartbeat", {"agent_id": "again"})
            added, modified = await stream.next_events(2)

        assert (added.kind_and_id, modified.kind_and_id) == (("ADDED", "again"), ("MODIFIED", "again"))
        assert modified.object["status"] == "healthy"
        assert response.body["resource_version"] == str(added.version)


@pytest.mark.fault(14, "Redis is slow")
@pytest.mark.slow
async def test_a_slow_store_fails_no_call(run_fleet: FleetMaker) -> None:
    """With 200 ms more for each exchange, every registration of 20 concurrent callers succeeds."""
    async with run_fleet(proxied=True) as fleet:
        for proxy in fleet.proxies:
            proxy.delay_s = 0.1
        durations: list[float] = []

        async def register(number: int) -> None:
            async with open_raw_connection(fleet.urls[number % 3]) as connection:
                for attempt in range(10):
                    started_at = time.monotonic()
                    response = await connection.request(
                        "POST", "/agents", a_registration(f"slow-{number}", labels={"t": str(attempt)})
                    )
                    assert response.status == 200, response.body
                    durations.append(time.monotonic() - started_at)

        await asyncio.gather(*map(register, range(20)))
        for proxy in fleet.proxies:
            proxy.delay_s = 0.0

        assert min(durations) > 0.2
        await fleet.wait_for_resumes()


@pytest.mark.fault(15, "Clients disconnect during a call")
async def test_disconnecting_callers_do_not_mix_up_responses(run_fleet: FleetMaker) -> None:
    """200 callers disconnect at random times over links of 50 ms; every later response belongs to its own request."""
    async with run_fleet(proxied=True) as fleet:
        for proxy in fleet.proxies:
            proxy.delay_s = 0.025

        async def disconnect(number: int) -> None:
            name = f"rude-{number % 20}"
            async with open_raw_connection(fleet.urls[number % 3]) as connection:
                connection.send("POST", "/agents", a_registration(name, labels={"n": str(number)}))
                connection.send("GET", f"/agents/{name}")
                await fleet.load.pause(random.uniform(0, 0.2))  # noqa: S311 - anywhere

        async def register_and_read(number: int) -> None:
            async with open_raw_connection(fleet.urls[number % 3]) as connection:
                for attempt in range(20):
                    name = f"calm-{number}"
                    response = await connection.request(
                        "POST", "/agents", a_registration(name, labels={"t": str(attempt)})
                    )
                    assert (response.status, response.body["agent_id"]) == (200, name)
                    agent = await connection.request("GET", f"/agents/{name}")
                    assert (agent.status, agent.body["id"], agent.body["labels"]) == (200, name, {"t": str(attempt)})

        await asyncio.gather(*map(disconnect, range(200)), *map(register_and_read, range(6)))

        for proxy in fleet.proxies:
            proxy.delay_s = 0.0
        await fleet.wait_for_writes()
        await fleet.wait_for_resumes()


@pytest.mark.fault(16, "More calls arrive than a slow Redis can handle")
async def test_excess_calls_are_rejected_with_retry_after(run_fleet: FleetMaker) -> None:
    """More concurrent calls than a replica accepts, with one second to Redis and back: 200, or 503 with Retry-After."""
    async with run_fleet(proxied=True) as fleet:
        fleet.tolerate(unresponsive=fleet.replicas[:1], extra_delay_s=5)
        url = fleet.load.urls.pop(0)
        fleet.proxies[0].delay_s = 0.5

        async def register(number: int) -> RawResponse:
            async with open_raw_connection(url) as connection:
                return await connection.request("POST", "/agents", a_registration(f"flood-{number}"))

        responses = await asyncio.gather(*map(register, range(FLOOD_CALLS)))
        fleet.proxies[0].delay_s = 0.0

        assert 503 in {response.status for response in responses} <= {200, 503}
        for response in responses:
            assert response.status == 200 or int(response.headers["retry-after"]) > 0
        await fleet.wait_until_all_ready()
        async with open_raw_connection(url) as connection:
            assert (await connection.request("POST", "/agents", a_registration("after"))).status == 200
        fleet.load.urls.append(url)


@pytest.mark.fault(36, "Changes arrive late and without a notification")
@pytest.mark.slow
async def test_no_bookmark_precedes_its_events(run_fleet: FleetMaker) -> None:
    """With random delays between replicas and Redis, no stream sends a bookmark before an event of a lower version."""
    async with run_fleet(proxied=True) as fleet:
        fleet.log_recorder.disable_notifications()
        for attempt in range(20):
            for proxy in fleet.proxies:
                proxy.delay_s = random.uniform(0, 0.15)  # noqa: S311 - anywhere
            await fleet.load.pause(0.2)
            if attempt % 5 == 4:
                await fleet.wait_for_resumes()
        for proxy in fleet.proxies:
            proxy.delay_s = 0.0

        assert count_bookmarks(fleet) > 40


def count_bookmarks(fleet: FleetUnderLoad) -> int:
    """Count the bookmarks that the followers received."""
    return sum(
        event.kind == "BOOKMARK" for each in fleet.followers for past in each.recordings for event in past.received
    )
