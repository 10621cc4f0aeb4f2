"""Agents that leave in many ways at once, and one that comes and goes: each is told once, and nobody is held for it."""

import asyncio

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.fleet_under_load import FleetUnderLoad
from tests.support.http_calls import a_registration
from tests.support.polling import async_wait_until
from tests.support.raw_http import open_raw_connection

MANY = [f"scaled-{number}" for number in range(100)]


async def each(fleet: FleetUnderLoad, method: str, paths: list[str]) -> None:
    """Make one call for each path, in turn through all replicas."""
    for number, path in enumerate(paths):
        async with open_raw_connection(fleet.urls[number % 3]) as line:
            answer = await line.request(method, path)
            assert answer.status == 200, answer.body


async def reasons(fleet: FleetUnderLoad, agent_ids: list[str]) -> dict[str, list[str]]:
    """Return what the log says became of each."""
    await asyncio.to_thread(fleet.log_recorder.read)
    found: dict[str, list[str]] = {agent_id: [] for agent_id in agent_ids}
    for change in fleet.log_recorder.logs[-1].changes:
        if change.agent is not None and change.agent.id in found:
            found[change.agent.id].append(change.reason)
    return found


@pytest.mark.fault(29, "60 % of the agents are unregistered, 20 % killed")
async def test_a_real_scale_down_is_no_mass_silence(a_fleet: FleetMaker) -> None:
    """Who unregistered does not count: the killed are marked in time, and no hold begins."""
    async with a_fleet() as fleet:
        fleet.tolerate(extra_delay_s=1)
        body = {"agents": [a_registration(agent_id, timeout_threshold=3) for agent_id in MANY]}
        async with open_raw_connection(fleet.urls[0]) as line:
            assert (await line.request("POST", "/agents/batch", body)).status == 200
        killed, leaving, staying = MANY[:20], MANY[20:80], MANY[80:]

        async def stay(agent_ids: list[str]) -> None:
            async with open_raw_connection(fleet.urls[1]) as line:
                answer = await line.request("POST", "/heartbeats", {"agent_ids": agent_ids})
                assert {result["status"] for result in answer.body["results"].values()} == {"success"}

        await stay(MANY)
        await each(fleet, "DELETE", [f"/agents/{agent_id}" for agent_id in leaving])

        async def all_marked() -> bool:
            await stay(staying)
            await fleet.load.pause(0.3)
            return all("degraded" in words for words in (await reasons(fleet, killed)).values())

        await async_wait_until(all_marked, description="the killed are marked", timeout=20)
        assert set(map(tuple, (await reasons(fleet, leaving)).values())) == {
            ("registered", "first_heartbeat", "unregistered")
        }
        assert set(map(tuple, (await reasons(fleet, staying)).values())) == {("registered", "first_heartbeat")}
        assert not any([(await fleet.get_health(number))["self_preservation"]["activations"] for number in range(3)])


@pytest.mark.fault(30, "An agent flaps")
@pytest.mark.slow
async def test_a_flapping_agent_makes_two_events_a_turn(a_fleet: FleetMaker) -> None:
    """Marked and back, again and again: never more than one event for each, however often it beats in between.

    The registry damps nothing; what a turn costs is bounded, and so is how often one is possible: by the timeout.
    """
    turns = 4
    async with a_fleet() as fleet, open_raw_connection(fleet.urls[0]) as line:
        body = a_registration("flapper", timeout_threshold=1, eviction_threshold=60)
        assert (await line.request("POST", "/agents", body)).status == 200
        for turn in range(1, turns + 1):
            for _ in range(5):
                assert (await line.request("POST", "/heartbeat", {"agent_id": "flapper"})).status == 200

            async def silent(times: int = turn) -> bool:
                return (await reasons(fleet, ["flapper"]))["flapper"].count("degraded") == times

            await async_wait_until(silent, description="it is marked")

        words = (await reasons(fleet, ["flapper"]))["flapper"]
        assert words == ["registered", "first_heartbeat", *["degraded", "recovered"] * turns][: 2 * turns + 1]
