"""An old and a new release of the registry on one Redis, as during every upgrade."""

import shutil
from pathlib import Path

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.http_calls import a_registration
from tests.support.raw_http import open_raw_connection
from tests.support.source_code import PACKAGE, ROOT

# The other release adds a field after this line, which this release does not have; its scripts have other digests.
_LINE = "agent.version = to_decimal(version)"


def copy_as_another_release(folder: Path) -> Path:
    """Copy the package, change its scripts, and return the folder to import it from."""
    shutil.copytree(PACKAGE, folder / "registry", ignore=shutil.ignore_patterns("__pycache__", "lua"))
    shutil.copytree(ROOT / "lua", folder / "lua")
    change = folder / "lua" / "include" / "append_change.lua"
    text = change.read_text(encoding="utf-8")
    assert text.count(_LINE) == 1
    change.write_text(text.replace(_LINE, f"{_LINE}\n  agent.colour = 'blue'"), encoding="utf-8")
    return folder


@pytest.mark.fault(46, "Two releases share one Redis")
@pytest.mark.slow
async def test_two_releases_serve_side_by_side(run_fleet: FleetMaker, tmp_path: Path) -> None:
    """Each preserves the unknown fields of the other, and no index is damaged."""
    environment = {"PYTHONPATH": str(copy_as_another_release(tmp_path)), "PYTHONSAFEPATH": "1"}
    async with run_fleet(env_by_replica={1: environment}) as fleet:
        async with open_raw_connection(fleet.urls[1]) as connection:
            assert (await connection.request("POST", "/agents", a_registration("painted"))).status == 200
        async with open_raw_connection(fleet.urls[0]) as connection:
            assert (await connection.request("POST", "/agents", a_registration("painted", name="new"))).status == 200
            agent = (await connection.request("GET", "/agents/painted")).body
        await fleet.wait_for_writes(100)
        await fleet.wait_for_degraded()
        await fleet.wait_for_resumes()

        painted = fleet.log_recorder.redis.hgetall("{mesh}:agent:painted")
        assert painted[b"colour"] == b"blue"
        assert agent["name"] == "new"
        assert not any("damaged" in replica.output for replica in fleet.replicas)
