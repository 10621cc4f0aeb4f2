"""Replicas with a wrong clock: the registry uses the time of the Redis server."""

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
async def test_a_replica_with_a_wrong_clock_has_no_effect(run_fleet: FleetMaker, tmp_path: Path) -> None:
    """Even if it leads: no agent is degraded early or late, and versions and leadership do not change."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    stepped = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    async with run_fleet(env_by_replica={0: stepped, 1: stepped, 2: stepped}) as fleet:
        leader, epoch = await leader_and_epoch(fleet)
        for step in ("+3600", "-3600"):
            clock.write_text(step)
            assert abs(await reported_time(fleet, 0) - time.time() - float(step)) < 60
            await fleet.wait_for_degraded()
            await fleet.wait_for_resumes()

        assert await leader_and_epoch(fleet) == (leader, epoch)
        assert abs(fleet.log_recorder.logs[-1].last / 1000 - time.time()) < 60


async def leader_and_epoch(fleet: FleetUnderLoad) -> tuple[int, int]:
    """Return the number of the leader and its epoch."""
    number = await fleet.wait_for_leader()
    return number, int((await fleet.get_health(number))["leader"]["epoch"])


async def reported_time(fleet: FleetUnderLoad, number: int) -> float:
    """Return the current time that a replica reports."""
    return datetime.fromisoformat((await fleet.get_health(number))["timestamp"]).timestamp()
