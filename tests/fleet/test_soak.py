"""A fleet under constant load for minutes: its memory does not grow with time."""

import asyncio
import os
import statistics
import time

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.fleet_under_load import FleetUnderLoad
from tests.support.http_calls import a_registration
from tests.support.raw_http import open_raw_connection

# Seconds. FLEET_SOAK=1800 runs half an hour, after which other products showed such leaks.
SOAK_S = float(os.environ.get("FLEET_SOAK", "200"))
AGENTS = 200
# The memory that a replica may gain once it has reached its size.
MAX_GAIN_BYTES = 4 << 20


@pytest.mark.fault(49, "Days of churn")
@pytest.mark.slow
@pytest.mark.timeout(SOAK_S + 300)
async def test_memory_does_not_grow_with_time(run_fleet: FleetMaker) -> None:
    """200 agents register, send heartbeats and unregister; watchers reconnect every second; memory stays constant.

    The log is short, so that the change buffers of the replicas are full from the beginning.
    """
    async with run_fleet(REGISTRY_WATCH_HISTORY="2000") as fleet:
        fleet.log_recorder.entries_removed = True
        with fleet.log_recorder.reading():
            await churn(fleet, SOAK_S / 2)
            settled = [replica.resident_bytes for replica in fleet.replicas]
            await churn(fleet, SOAK_S / 2)
            gained = [replica.resident_bytes - size for replica, size in zip(fleet.replicas, settled, strict=True)]
            await fleet.wait_until_settled()

        # A leak shows in every replica; the allocator of a single one may take 3 MB at once, at any time.
        assert statistics.median(gained) < max(MAX_GAIN_BYTES, SOAK_S / 600 * (1 << 20))


async def churn(fleet: FleetUnderLoad, seconds: float) -> None:
    """Register agents, send their heartbeats and unregister them through all replicas, for the given time."""
    until = time.monotonic() + seconds

    async def run_agent(number: int) -> None:
        cycle = number
        while time.monotonic() < until:
            cycle += 1
            async with open_raw_connection(fleet.urls[cycle % 3]) as connection:
                name = f"churn-{number}"
                body = a_registration(name, labels={"cycle": str(cycle)}, capabilities=["a", "b"])
                assert (await connection.request("POST", "/agents", body)).status == 200
                await fleet.load.pause(1)
                assert (await connection.request("POST", "/heartbeat", {"agent_id": name})).status == 200
                await fleet.load.pause(1)
                assert (await connection.request("GET", f"/agents?capability=a&agent_id={name}")).status == 200
                assert (await connection.request("DELETE", f"/agents/{name}")).status == 200

    await asyncio.gather(*map(run_agent, range(AGENTS)))
