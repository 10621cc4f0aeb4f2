"""Clocks that are wrong: time is the store's, and a replica's own is of no account."""

import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.fleet_under_load import FleetUnderLoad

_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
)
LIBRARY = next((path for path in _LIBRARIES if Path(path).exists()), None)


@pytest.mark.fault(26, "The clock of a replica is set an hour forward or back")
@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed; apt-get install faketime")
@pytest.mark.slow
async def test_a_replica_with_a_wrong_clock_does_no_harm(a_fleet: FleetMaker, tmp_path: Path) -> None:
    """Not even as the leader: nobody is marked early or late, versions and the lead are what they were."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    stepped = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    async with a_fleet(env_by_replica={0: stepped, 1: stepped, 2: stepped}) as fleet:
        leader, epoch = await lead(fleet)
        for step in ("+3600", "-3600"):
            clock.write_text(step)
            assert abs(await shown(fleet, 0) - time.time() - float(step)) < 60
            await fleet.wait_for_degraded()
            await fleet.wait_for_resumes()

        assert await lead(fleet) == (leader, epoch)
        assert abs(fleet.log_recorder.logs[-1].last / 1000 - time.time()) < 60


async def lead(fleet: FleetUnderLoad) -> tuple[int, int]:
    """Return who leads, and under which epoch."""
    number = await fleet.wait_for_leader()
    return number, int((await fleet.get_health(number))["leader"]["epoch"])


async def shown(fleet: FleetUnderLoad, number: int) -> float:
    """Return what a replica believes the time to be."""
    return datetime.fromisoformat((await fleet.get_health(number))["timestamp"]).timestamp()
