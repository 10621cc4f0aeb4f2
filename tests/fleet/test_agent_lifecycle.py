"""Agents that deregister, die or flap in large numbers: each change is logged once, and expiry is not suspended."""

import asyncio

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.fleet_under_load import FleetUnderLoad
from tests.support.http_calls import a_registration
from tests.support.machine_speed import scaled
from tests.support.polling import async_wait_until
from tests.support.raw_http import open_raw_connection

MANY = [f"scaled-{number}" for number in range(100)]


async def call_each_path(fleet: FleetUnderLoad, method: str, paths: list[str]) -> None:
    """Make one call for each path, alternating between the replicas."""
    for number, path in enumerate(paths):
        async with open_raw_connection(fleet.urls[number % 3]) as connection:
            response = await connection.request(method, path)
            assert response.status == 200, response.body


async def reasons_by_agent(fleet: FleetUnderLoad, agent_ids: list[str]) -> dict[str, list[str]]:
    """Return the reasons of all log entries of each agent, in order."""
    await asyncio.to_thread(fleet.log_recorder.read)
    found: dict[str, list[str]] = {agent_id: [] for agent_id in agent_ids}
    for change in fleet.log_recorder.logs[-1].changes:
        if change.agent is not None and change.agent.id in found:
            found[change.agent.id].append(change.reason)
    return found


@pytest.mark.fault(29, "60 % of the agents are unregistered, 20 % killed")
async def test_a_scale_down_does_not_start_self_preservation(run_fleet: FleetMaker) -> None:
    """Deregistered agents do not count as overdue; the killed ones are degraded."""
    async with run_fleet() as fleet:
        body = {"agents": [a_registration(agent_id, timeout_threshold=scaled(3)) for agent_id in MANY]}
        async with open_raw_connection(fleet.urls[0]) as connection:
            assert (await connection.request("POST", "/agents/batch", body)).status == 200
        killed, leaving, staying = MANY[:20], MANY[20:80], MANY[80:]

        async def send_heartbeats(agent_ids: list[str]) -> None:
            async with open_raw_connection(fleet.urls[1]) as connection:
                response = await connection.request("POST", "/heartbeats", {"agent_ids": agent_ids})
                assert {result["status"] for result in response.body["results"].values()} == {"success"}

        await send_heartbeats(MANY)
        await call_each_path(fleet, "DELETE", [f"/agents/{agent_id}" for agent_id in leaving])

        async def all_degraded() -> bool:
            await send_heartbeats(staying)
            await fleet.load.pause(0.3)
            return all("degraded" in reasons for reasons in (await reasons_by_agent(fleet, killed)).values())

        await async_wait_until(all_degraded, description="the killed agents are degraded")
        assert set(map(tuple, (await reasons_by_agent(fleet, leaving)).values())) == {
            ("registered", "first_heartbeat", "unregistered")
        }
        assert set(map(tuple, (await reasons_by_agent(fleet, staying)).values())) == {("registered", "first_heartbeat")}
        assert not any([(await fleet.get_health(number))["self_preservation"]["activations"] for number in range(3)])


@pytest.mark.fault(30, "An agent flaps")
@pytest.mark.slow
async def test_a_flapping_agent_causes_two_events_per_cycle(run_fleet: FleetMaker) -> None:
    """Degraded and recovered repeatedly: one event for each change, however many heartbeats are sent.

    The registry does not damp flapping: a cycle has a fixed number of events, and the timeout bounds the number of
    cycles.
    """
    cycles = 4
    async with run_fleet() as fleet, open_raw_connection(fleet.urls[0]) as connection:
        body = a_registration("flapper", timeout_threshold=scaled(1), eviction_threshold=60)
        assert (await connection.request("POST", "/agents", body)).status == 200
        for cycle in range(1, cycles + 1):
            for _ in range(5):
                assert (await connection.request("POST", "/heartbeat", {"agent_id": "flapper"})).status == 200

            async def is_degraded(times: int = cycle) -> bool:
                return (await reasons_by_agent(fleet, ["flapper"]))["flapper"].count("degraded") == times

            await async_wait_until(is_degraded, description="the agent is degraded")

        reasons = (await reasons_by_agent(fleet, ["flapper"]))["flapper"]
        assert reasons == ["registered", "first_heartbeat", *["degraded", "recovered"] * cycles][: 2 * cycles + 1]
