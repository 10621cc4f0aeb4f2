"""Concurrent calls for the same agents through all replicas: storms, races and conflicts."""

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
from tests.support.machine_speed import scaled
from tests.support.polling import async_wait_until
from tests.support.raw_http import RawResponse, open_raw_connection


def changes_of(fleet: FleetUnderLoad, agent_id: str) -> list[Change]:
    """Return the log entries of one agent."""
    fleet.log_recorder.read()
    return [each for each in fleet.log_recorder.logs[-1].changes if each.agent and each.agent.id == agent_id]


async def register(url: str, body: dict[str, Any]) -> RawResponse:
    """Register an agent over a new connection."""
    async with open_raw_connection(url) as connection:
        return await connection.request("POST", "/agents", body)


@pytest.mark.fault(37, "1,000 agents register at the same instant")
async def test_a_storm_of_registrations_succeeds(run_fleet: FleetMaker) -> None:
    """All succeed, some after a 503 with Retry-After; every replica lists all agents."""
    async with run_fleet() as fleet:

        async def register_with_retries(number: int) -> int:
            tries = 0
            while True:
                tries += 1
                url = fleet.urls[(number + tries) % 3]
                response = await register(url, a_registration(f"storm-{number}", namespace="storm"))
                if response.status == 200:
                    return tries
                assert response.status == 503, response.body
                await fleet.load.pause(float(response.headers["retry-after"]))

        await asyncio.gather(*map(register_with_retries, range(1000)))

        for url in fleet.urls:
            async with open_raw_connection(url) as connection:
                listed = await connection.request("GET", "/agents?namespace=storm")
            assert listed.body["count"] == 1000


@pytest.mark.fault(38, "50 clients register the same agent")
async def test_concurrent_registrations_of_one_agent_leave_the_complete_last_one(run_fleet: FleetMaker) -> None:
    """One ADDED, then one MODIFIED for each other call; the stored registration is the complete last one."""
    async with run_fleet() as fleet:
        bodies = [
            a_registration("same", labels={"by": str(number)}, metadata={"by": number, "filler": "x" * number * 50})
            for number in range(50)
        ]

        responses = await asyncio.gather(*(register(fleet.urls[at % 3], body) for at, body in enumerate(bodies)))

        assert {response.status for response in responses} == {200}
        assert len({response.body["resource_version"] for response in responses}) == 50
        assert [each.kind for each in changes_of(fleet, "same")] == ["add"] + ["modify"] * 49
        last = max(range(50), key=lambda at: int(responses[at].body["resource_version"]))
        for url in fleet.urls:
            async with open_raw_connection(url) as connection:
                shown = (await connection.request("GET", "/agents/same")).body
            assert (shown["labels"], shown["metadata"]) == (bodies[last]["labels"], bodies[last]["metadata"])


@pytest.mark.fault(41, "20 clients update one agent conditionally")
async def test_a_conditional_update_succeeds_once_per_version(run_fleet: FleetMaker) -> None:
    """Of the clients that send the same version one succeeds, the others get 409, and no change is lost."""
    async with run_fleet() as fleet:
        first = await register(fleet.urls[0], a_registration("prize", metadata={"count": 0}))
        accepted: list[int] = []

        async def update_repeatedly(number: int) -> None:
            async with open_raw_connection(fleet.urls[number % 3]) as connection:
                for _ in range(20):
                    shown = (await connection.request("GET", "/agents/prize")).body
                    body = a_registration("prize", metadata={"count": shown["metadata"]["count"] + 1})
                    response = await connection.request(
                        "POST", "/agents", body | {"resource_version": shown["resource_version"]}
                    )
                    assert response.status in (200, 409), response.body
                    if response.status == 200:
                        accepted.append(int(response.body["resource_version"]))

        await asyncio.gather(*map(update_repeatedly, range(20)))

        async with open_raw_connection(fleet.urls[2]) as connection:
            shown = (await connection.request("GET", "/agents/prize")).body
        assert shown["metadata"]["count"] == len(accepted) > 0
        versions = [each.version for each in changes_of(fleet, "prize")]
        assert versions == [int(first.body["resource_version"]), *sorted(accepted)]


# Sweeps every 10 ms coincide with heartbeats; self-preservation is off, since many agents are overdue at once. The log
# stores both transitions of ten thousand heartbeats until the test reads it.
RACING_SETTINGS = {
    "HEALTH_CHECK_INTERVAL": "10ms",
    "REGISTRY_SELF_PRESERVATION_SHARE": "100%",
    "REGISTRY_WATCH_HISTORY": "100000",
}


def record_heartbeat(fleet: FleetUnderLoad, name: str, url: str, started_at: float, response: RawResponse) -> None:
    """Add a heartbeat with its response to the journal."""
    timestamp = response.body.get("timestamp") if response.status == 200 else None
    at = 0 if timestamp is None else round(datetime.fromisoformat(timestamp).timestamp() * 1000)
    call = ClientCall("heartbeat", name, url, started_at, time.monotonic(), response.status, server_time_ms=at)
    fleet.load.journal.calls.append(call)


async def race_heartbeats(fleet: FleetUnderLoad, agents: int, heartbeats: int) -> None:
    """Send heartbeats of agents, each within 5 ms of the moment at which its agent becomes overdue."""
    timeout = 0.15

    async def send_heartbeats(number: int) -> None:
        name = f"racer-{number}"
        body = a_registration(name, timeout_threshold=timeout, eviction_threshold=60)
        assert (await register(fleet.urls[number % 3], body)).status == 200
        async with open_raw_connection(fleet.urls[number % 3]) as connection:
            for _ in range(heartbeats):
                started_at = time.monotonic()
                response = await connection.request("POST", "/heartbeat", {"agent_id": name})
                assert response.status == 200, response.body
                record_heartbeat(fleet, name, fleet.urls[number % 3], started_at, response)
                await fleet.load.pause(timeout + random.uniform(-0.005, 0.005))  # noqa: S311 - around it

    await asyncio.gather(*map(send_heartbeats, range(agents)))
    fleet.log_recorder.read()
    reasons = [
        each.reason for each in fleet.log_recorder.logs[-1].changes if each.agent and each.agent.id.startswith("racer")
    ]
    # Heartbeats arrived on both sides of the deadline; otherwise the test shows nothing.
    assert reasons.count("degraded") > 10


@pytest.mark.fault(40, "Heartbeats arrive within 5 ms of the expiry")
@pytest.mark.parametrize(
    ("agents", "heartbeats"),
    [(40, 25), pytest.param(50, 200, marks=pytest.mark.slow)],
    ids=["a thousand", "ten thousand"],
)
async def test_an_earlier_heartbeat_wins_over_the_sweep(run_fleet: FleetMaker, agents: int, heartbeats: int) -> None:
    """No agent is degraded after its heartbeat was acknowledged, and none twice without a heartbeat in between."""
    async with run_fleet(**RACING_SETTINGS) as fleet:
        await race_heartbeats(fleet, agents, heartbeats)


@pytest.mark.fault(42, "Hostile input")
async def test_hostile_input_does_not_affect_other_callers(run_fleet: FleetMaker) -> None:
    """It gets 4xx error responses; 200 clients with unfinished requests block no other call; memory hardly grows."""
    async with run_fleet() as fleet:
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
            writer.write(
                b"POST /agents HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\ncontent-type: application/js"
            )

        for _ in range(5):
            for body in bodies:
                async with open_raw_connection(url) as connection:
                    connection.send_raw("POST", "/agents", body)
                    response = await connection.read_response()
                assert 400 <= response.status < 500, body[:60]
                assert response.body["status"] == "error"
        await fleet.wait_for_writes()

        assert fleet.replicas[0].resident_bytes - before < 20 << 20
        for _, writer in slow:
            writer.transport.abort()


@pytest.mark.fault(44, "All agents retry at once after an outage")
@pytest.mark.slow
async def test_all_agents_send_heartbeats_after_an_outage(run_fleet: FleetMaker) -> None:
    """Redis is down for ten seconds; after its return 500 agents send heartbeats, none is degraded.

    The registry sets no rate; agents obey its Retry-After.
    """
    interval = scaled(4)
    async with run_fleet() as fleet:
        fleet.tolerate(extra_delay_s=20)
        last_heartbeats: dict[int, float] = {}

        async def run_agent(number: int) -> None:
            name, url = f"many-{number}", fleet.urls[number % 3]
            body = a_registration(name, timeout_threshold=2.5 * interval)
            await fleet.load.pause(random.uniform(0, interval))  # noqa: S311 - spread as in life
            assert (await register(url, body)).status == 200
            fleet.load.journal.persistent_agents.add(name)
            async with open_raw_connection(url) as connection:
                while not fleet.load.all_stopped.is_set():
                    started_at = time.monotonic()
                    response = await connection.request("POST", "/heartbeat", {"agent_id": name})
                    assert response.status in (200, 503), response.body
                    record_heartbeat(fleet, name, url, started_at, response)
                    if response.status == 200:
                        last_heartbeats[number] = time.monotonic()
                    wait = interval if response.status == 200 else float(response.headers["retry-after"])
                    await fleet.load.pause(wait)

        async with asyncio.TaskGroup() as agents:
            for number in range(500):
                agents.create_task(run_agent(number))
            await async_wait_until(
                lambda: len(last_heartbeats) == 500,
                description="all agents have sent a heartbeat",
            )
            await asyncio.to_thread(fleet.server.kill)
            await fleet.wait_for_refusals()
            await fleet.load.pause(10)
            await asyncio.to_thread(fleet.server.restart)
            restored_at = time.monotonic()
            await async_wait_until(
                lambda: min(last_heartbeats.values()) > restored_at,
                description="all agents have sent heartbeats again",
            )
            await fleet.wait_until_settled()
