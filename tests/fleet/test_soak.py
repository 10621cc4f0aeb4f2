"""Long and steady: what a fleet needs does not grow with time."""

import asyncio
import os
import time

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.fleet_under_load import FleetUnderLoad
from tests.support.http_calls import a_registration
from tests.support.raw_http import open_raw_connection

# Seconds; FLEET_SOAK=1800 makes it the half hour after which such leaks were found elsewhere.
SOAK = float(os.environ.get("FLEET_SOAK", "200"))
AGENTS = 200
# What a replica may gain, in bytes, after it has come to its size.
GAIN = 4 << 20


@pytest.mark.fault(49, "Days of churn")
@pytest.mark.slow
@pytest.mark.timeout(SOAK + 90)
async def test_memory_does_not_grow_with_time(a_fleet: FleetMaker) -> None:
    """200 agents come and go and are beaten for; watchers come back each second; memory stays where it was.

    The log is short, so that it is full from the beginning: what replicas remember of it is their right.
    """
    async with a_fleet(timeout=SOAK + 80, REGISTRY_WATCH_HISTORY="2000") as fleet:
        fleet.log_recorder.entries_removed = True
        following = asyncio.create_task(asyncio.to_thread(fleet.log_recorder.read_repeatedly, SOAK + 5))
        await churn(fleet, SOAK / 2)
        settled = [replica.resident_bytes for replica in fleet.replicas]
        await churn(fleet, SOAK / 2)
        gained = [replica.resident_bytes - size for replica, size in zip(fleet.replicas, settled, strict=True)]
        await following

        assert max(gained) < max(GAIN, SOAK / 600 * (1 << 20))


async def churn(fleet: FleetUnderLoad, seconds: float) -> None:
    """Register, beat for and unregister agents through all replicas for so long."""
    until = time.monotonic() + seconds

    async def live(number: int) -> None:
        turn = number
        while time.monotonic() < until:
            turn += 1
            async with open_raw_connection(fleet.urls[turn % 3]) as line:
                name = f"churn-{number}"
                body = a_registration(name, labels={"turn": str(turn)}, capabilities=["a", "b"])
                assert (await line.request("POST", "/agents", body)).status == 200
                await fleet.load.pause(1)
                assert (await line.request("POST", "/heartbeat", {"agent_id": name})).status == 200
                await fleet.load.pause(1)
                assert (await line.request("GET", f"/agents?capability=a&agent_id={name}")).status == 200
                assert (await line.request("DELETE", f"/agents/{name}")).status == 200

    await asyncio.gather(*map(live, range(AGENTS)))
