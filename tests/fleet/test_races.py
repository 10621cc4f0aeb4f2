"""Many at once on the same thing: storms, races and contests, over all replicas."""

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from registry.model.change import Change
from tests.fleet.conftest import FleetMaker
from tests.support.call_journal import ClientCall
from tests.support.fleet_under_load import FleetUnderLoad
from tests.support.http_calls import a_registration
from tests.support.polling import async_wait_until
from tests.support.raw_http import RawResponse, open_raw_connection


def changes_of(fleet: FleetUnderLoad, agent_id: str) -> list[Change]:
    """Return what the log says of one agent."""
    fleet.log_recorder.read()
    return [each for each in fleet.log_recorder.logs[-1].changes if each.agent and each.agent.id == agent_id]


async def register(url: str, body: dict[str, Any]) -> RawResponse:
    """Register over a connection of its own."""
    async with open_raw_connection(url) as line:
        return await line.request("POST", "/agents", body)


@pytest.mark.fault(37, "1,000 agents register at the same instant")
async def test_a_storm_of_registrations_passes(a_fleet: FleetMaker) -> None:
    """All succeed within ten seconds, some after a 503 that tells when to come again; every replica lists all."""
    async with a_fleet() as fleet:
        began = time.monotonic()

        async def arrive(number: int) -> int:
            tries = 0
            while True:
                tries += 1
                url = fleet.urls[(number + tries) % 3]
                answer = await register(url, a_registration(f"storm-{number}", namespace="storm"))
                if answer.status == 200:
                    return tries
                assert answer.status == 503, answer.body
                await fleet.load.pause(float(answer.headers["retry-after"]))

        await asyncio.gather(*map(arrive, range(1000)))
        assert time.monotonic() - began < 10

        for url in fleet.urls:
            async with open_raw_connection(url) as line:
                listed = await line.request("GET", "/agents?namespace=storm")
            assert listed.body["count"] == 1000


@pytest.mark.fault(38, "50 clients register the same agent")
async def test_the_same_agent_by_fifty_is_one_of_theirs(a_fleet: FleetMaker) -> None:
    """One ADDED, then a MODIFIED for each other; what is there at the end is whole, and the last one's."""
    async with a_fleet() as fleet:
        bodies = [
            a_registration("same", labels={"by": str(number)}, metadata={"by": number, "filler": "x" * number * 50})
            for number in range(50)
        ]

        answers = await asyncio.gather(*(register(fleet.urls[at % 3], body) for at, body in enumerate(bodies)))

        assert {answer.status for answer in answers} == {200}
        assert len({answer.body["resource_version"] for answer in answers}) == 50
        assert [each.kind for each in changes_of(fleet, "same")] == ["add"] + ["modify"] * 49
        last = max(range(50), key=lambda at: int(answers[at].body["resource_version"]))
        for url in fleet.urls:
            async with open_raw_connection(url) as line:
                shown = (await line.request("GET", "/agents/same")).body
            assert (shown["labels"], shown["metadata"]) == (bodies[last]["labels"], bodies[last]["metadata"])


@pytest.mark.fault(41, "20 clients update one agent conditionally")
async def test_a_contest_has_one_winner_each_time(a_fleet: FleetMaker) -> None:
    """Of all who ask for the same version one is taken, the others are told 409; no change is lost."""
    async with a_fleet() as fleet:
        first = await register(fleet.urls[0], a_registration("prize", metadata={"count": 0}))
        taken: list[int] = []

        async def contend(number: int) -> None:
            async with open_raw_connection(fleet.urls[number % 3]) as line:
                for _ in range(20):
                    shown = (await line.request("GET", "/agents/prize")).body
                    body = a_registration("prize", metadata={"count": shown["metadata"]["count"] + 1})
                    answer = await line.request(
                        "POST", "/agents", body | {"resource_version": shown["resource_version"]}
                    )
                    assert answer.status in (200, 409), answer.body
                    if answer.status == 200:
                        taken.append(int(answer.body["resource_version"]))

        await asyncio.gather(*map(contend, range(20)))

        async with open_raw_connection(fleet.urls[2]) as line:
            shown = (await line.request("GET", "/agents/prize")).body
        assert shown["metadata"]["count"] == len(taken) > 0
        versions = [each.version for each in changes_of(fleet, "prize")]
        assert versions == [int(first.body["resource_version"]), *sorted(taken)]


# Looks each 10 ms, so that sweeps and heartbeats meet all the time; so many who cross their threshold are no mass.
RACING = {"HEALTH_CHECK_INTERVAL": "10ms", "REGISTRY_SELF_PRESERVATION_SHARE": "100%"}


async def race(fleet: FleetUnderLoad, agents: int, beats: int) -> None:
    """Let agents beat so often, each time within 5 ms of the moment at which they are called silent."""
    timeout = 0.15

    async def beat(number: int) -> None:
        name = f"racer-{number}"
        body = a_registration(name, timeout_threshold=timeout, eviction_threshold=60)
        assert (await register(fleet.urls[number % 3], body)).status == 200
        async with open_raw_connection(fleet.urls[number % 3]) as line:
            for _ in range(beats):
                began = time.monotonic()
                answer = await line.request("POST", "/heartbeat", {"agent_id": name})
                assert answer.status == 200, answer.body
                at = round(datetime.fromisoformat(answer.body["timestamp"]).timestamp() * 1000)
                deed = ClientCall(
                    "heartbeat", name, fleet.urls[number % 3], began, time.monotonic(), 200, server_time_ms=at
                )
                fleet.load.journal.calls.append(deed)
                await fleet.load.pause(timeout + random.uniform(-0.005, 0.005))  # noqa: S311 - around it

    await asyncio.gather(*map(beat, range(agents)))
    fleet.log_recorder.read()
    marked = [
        each.reason for each in fleet.log_recorder.logs[-1].changes if each.agent and each.agent.id.startswith("racer")
    ]
    # On either side of the line, or nothing was shown.
    assert marked.count("degraded") > 10


@pytest.mark.fault(40, "Heartbeats arrive within 5 ms of the expiry")
@pytest.mark.parametrize(
    ("agents", "beats"),
    [(40, 25), pytest.param(50, 200, marks=pytest.mark.slow)],
    ids=["a thousand", "ten thousand"],
)
async def test_a_heartbeat_that_came_first_wins(a_fleet: FleetMaker, agents: int, beats: int) -> None:
    """Nobody is marked whose heartbeat was acknowledged before, and nobody twice for one silence."""
    async with a_fleet(timeout=58, **RACING) as fleet:
        await race(fleet, agents, beats)


@pytest.mark.fault(42, "Hostile input")
async def test_hostile_input_harms_nobody_else(a_fleet: FleetMaker) -> None:
    """Refused with 4xx in our own form; 200 clients that never end a request hold nothing up; memory hardly grows."""
    async with a_fleet() as fleet:
        url, before = fleet.urls[0], fleet.replicas[0].resident_bytes
        bodies: Sequence[bytes] = [
            b"",
            b"x" * (10 << 20),
            b'{"id":"a","endpoint":"http://a:1","capabilities":[' + b'"x",' * 10_000 + b'"x"]}',
            b'{"a":' * 1000 + b"1" + b"}" * 1000,
            b'{"id":"a","endpoint":"http://a:1","health_interval":NaN}',
            b'{"id":"\\ud800","endpoint":"http://a:1"}',
            b'{"id":"a","endpoint":"http://a:1","capabilities":[]} trailing',
        ]
        slow = [await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2])) for _ in range(200)]
        for _, writer in slow:
            writer.write(b"POST /agents HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\ncontent-type: application/js")

        for _ in range(5):
            for body in bodies:
                async with open_raw_connection(url) as line:
                    line.send_raw("POST", "/agents", body)
                    answer = await line.read_response()
                assert 400 <= answer.status < 500, body[:60]
                assert answer.body["status"] == "error"
        await fleet.wait_for_writes()

        assert fleet.replicas[0].resident_bytes - before < 20 << 20
        for _, writer in slow:
            writer.transport.abort()


@pytest.mark.fault(44, "All agents retry at once after an outage")
@pytest.mark.slow
async def test_five_hundred_come_back_within_two_intervals(a_fleet: FleetMaker) -> None:
    """Redis is away for ten seconds; each of 500 agents is heard two intervals after its return, and none is marked.

    The registry sets no rate; agents obey its Retry-After.
    """
    interval = 4.0
    async with a_fleet(timeout=58) as fleet:
        fleet.tolerate(extra_delay_s=20)
        heard: dict[int, float] = {}

        async def live(number: int) -> None:
            name, url = f"many-{number}", fleet.urls[number % 3]
            body = a_registration(name, timeout_threshold=2.5 * interval)
            await fleet.load.pause(random.uniform(0, interval))  # noqa: S311 - spread as in life
            assert (await register(url, body)).status == 200
            fleet.load.journal.persistent_agents.add(name)
            async with open_raw_connection(url) as line:
                while not fleet.load.all_stopped.is_set():
                    answer = await line.request("POST", "/heartbeat", {"agent_id": name})
                    assert answer.status in (200, 503), answer.body
                    if answer.status == 200:
                        heard[number] = time.monotonic()
                    wait = interval if answer.status == 200 else float(answer.headers["retry-after"])
                    await fleet.load.pause(wait)

        async with asyncio.TaskGroup() as agents:
            for number in range(500):
                agents.create_task(live(number))
            await async_wait_until(lambda: len(heard) == 500, description="all are alive", timeout=3 * interval)
            await asyncio.to_thread(fleet.server.kill)
            await fleet.wait_for_refusals()
            await fleet.load.pause(10)
            await asyncio.to_thread(fleet.server.restart)
            back = time.monotonic()
            await async_wait_until(
                lambda: min(heard.values()) > back, description="all were heard again", timeout=2 * interval
            )
            await fleet.wait_until_settled()
