"""What goes wrong on the way to the store: replies lost, requests lost, slowness, callers that hang up."""

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

# More than one replica lets wait for Redis.
FLOOD = 1500


@pytest.mark.fault(12, "Requests reach Redis, but its replies are lost")
async def test_lost_replies_have_no_second_effect(a_fleet: FleetMaker) -> None:
    """Calls of that replica are 503 within three seconds; what it wrote without knowing is there, once."""
    async with a_fleet(proxied=True) as fleet:
        fleet.tolerate(extra_delay_s=10)
        wire, url = fleet.proxies[0], fleet.replicas[0].url
        await fleet.wait_for_writes()

        wire.swallow_replies = True
        cut = time.monotonic()
        async with open_raw_connection(url) as line:
            answer = await line.request("POST", "/agents", a_registration("twice"))
        assert time.monotonic() - cut < 3
        assert (answer.status, answer.body["outcome"]) == (503, "unknown")
        wire.swallow_replies = False
        await fleet.wait_until_all_ready(timeout=5)
        async with open_raw_connection(url) as line:
            answer = await line.request("POST", "/agents", a_registration("twice"))

        assert answer.status == 200
        fleet.log_recorder.read()
        entries = [each for each in fleet.log_recorder.logs[-1].changes if each.agent and each.agent.id == "twice"]
        assert [(each.kind, str(each.version)) for each in entries] == [("add", answer.body["resource_version"])]


@pytest.mark.fault(13, "The response to a registration is lost")
async def test_a_registration_that_is_tried_again_is_one(a_fleet: FleetMaker) -> None:
    """The client hears nothing, tries the same on another replica, and there is one object and one ADDED."""
    async with a_fleet() as fleet, FaultyTcpProxy(fleet.replicas[0].url) as wire:
        async with open_watch(fleet.replicas[2].url, agent_id="again") as stream:
            wire.cut_replies = 1
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                async with open_raw_connection(f"http://127.0.0.1:{wire.port}") as line:
                    await line.request("POST", "/agents", a_registration("again"))
            async with open_raw_connection(fleet.replicas[1].url) as line:
                answer = await line.request("POST", "/agents", a_registration("again"))
                await line.request("POST", "/heartbeat", {"agent_id": "again"})
            added, modified = await stream.next_events(2)

        assert (added.kind_and_id, modified.kind_and_id) == (("ADDED", "again"), ("MODIFIED", "again"))
        assert modified.object["status"] == "healthy"
        assert answer.body["resource_version"] == str(added.version)


@pytest.mark.fault(14, "Redis is slow")
@pytest.mark.slow
async def test_a_slow_store_slows_and_fails_nothing(a_fleet: FleetMaker) -> None:
    """200 ms more for each exchange: 20 who register at a time wait less than a second, in 99 of 100 cases."""
    async with a_fleet(proxied=True) as fleet:
        for wire in fleet.proxies:
            wire.delay_s = 0.1
        took: list[float] = []

        async def register(number: int) -> None:
            async with open_raw_connection(fleet.urls[number % 3]) as line:
                for turn in range(10):
                    began = time.monotonic()
                    answer = await line.request(
                        "POST", "/agents", a_registration(f"slow-{number}", labels={"t": str(turn)})
                    )
                    assert answer.status == 200, answer.body
                    took.append(time.monotonic() - began)

        await asyncio.gather(*map(register, range(20)))
        for wire in fleet.proxies:
            wire.delay_s = 0.0

        assert sorted(took)[int(0.99 * len(took))] < 1
        assert min(took) > 0.2
        await fleet.wait_for_resumes()


@pytest.mark.fault(15, "Clients disconnect during a call")
async def test_callers_that_hang_up_mix_up_nothing(a_fleet: FleetMaker) -> None:
    """200 that drop the connection at any time, on a wire of 50 ms: every later answer is that of its own question."""
    async with a_fleet(proxied=True) as fleet:
        for wire in fleet.proxies:
            wire.delay_s = 0.025

        async def hang_up(number: int) -> None:
            name = f"rude-{number % 20}"
            async with open_raw_connection(fleet.urls[number % 3]) as line:
                line.send("POST", "/agents", a_registration(name, labels={"n": str(number)}))
                line.send("GET", f"/agents/{name}")
                await fleet.load.pause(random.uniform(0, 0.2))  # noqa: S311 - anywhere

        async def ask(number: int) -> None:
            async with open_raw_connection(fleet.urls[number % 3]) as line:
                for turn in range(20):
                    name = f"calm-{number}"
                    answer = await line.request("POST", "/agents", a_registration(name, labels={"t": str(turn)}))
                    assert (answer.status, answer.body["agent_id"]) == (200, name)
                    shown = await line.request("GET", f"/agents/{name}")
                    assert (shown.status, shown.body["id"], shown.body["labels"]) == (200, name, {"t": str(turn)})

        await asyncio.gather(*map(hang_up, range(200)), *map(ask, range(6)))

        for wire in fleet.proxies:
            wire.delay_s = 0.0
        await fleet.wait_for_writes()
        await fleet.wait_for_resumes()


@pytest.mark.fault(16, "More calls arrive than a slow Redis can handle")
async def test_too_many_calls_are_refused_and_told_when_to_come_again(a_fleet: FleetMaker) -> None:
    """Far more at once than there is room for, a second to Redis and back: 200, or 503 and when to come again."""
    async with a_fleet(proxied=True) as fleet:
        fleet.tolerate(unresponsive=fleet.replicas[:1], extra_delay_s=5)
        url = fleet.load.urls.pop(0)
        fleet.proxies[0].delay_s = 0.5

        async def register(number: int) -> RawResponse:
            async with open_raw_connection(url) as line:
                return await line.request("POST", "/agents", a_registration(f"flood-{number}"))

        answers = await asyncio.gather(*map(register, range(FLOOD)))
        fleet.proxies[0].delay_s = 0.0

        assert {answer.status for answer in answers} == {200, 503}
        for answer in answers:
            assert answer.status == 200 or int(answer.headers["retry-after"]) > 0
        await fleet.wait_until_all_ready(timeout=5)
        async with open_raw_connection(url) as line:
            assert (await line.request("POST", "/agents", a_registration("after"))).status == 200
        fleet.load.urls.append(url)


@pytest.mark.fault(36, "Changes arrive late and without a notification")
@pytest.mark.slow
async def test_bookmarks_wait_for_what_they_vouch_for(a_fleet: FleetMaker) -> None:
    """On wires of any slowness no bookmark runs ahead of an event that was not written to its stream."""
    async with a_fleet(proxied=True) as fleet:
        fleet.log_recorder.disable_notifications()
        for turn in range(20):
            for wire in fleet.proxies:
                wire.delay_s = random.uniform(0, 0.15)  # noqa: S311 - anywhere
            await fleet.load.pause(0.2)
            if turn % 5 == 4:
                await fleet.wait_for_resumes()
        for wire in fleet.proxies:
            wire.delay_s = 0.0

        assert bookmarks(fleet) > 40


def bookmarks(fleet: FleetUnderLoad) -> int:
    """Count the bookmarks that followers have seen."""
    return sum(
        event.kind == "BOOKMARK" for each in fleet.followers for past in each.recordings for event in past.received
    )
