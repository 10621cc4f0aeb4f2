"""An old and a new release of the registry on one store, as during every upgrade."""

import shutil
from pathlib import Path

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.http_calls import a_registration
from tests.support.raw_http import open_raw_connection
from tests.support.source_code import PACKAGE, ROOT

# What the other release does: its scripts have other digests, and write a field nobody here knows.
_LINE = "agent.version = to_decimal(version)"


def another_release(folder: Path) -> Path:
    """Copy the package with its scripts, change the scripts, and return where it can be imported from."""
    shutil.copytree(PACKAGE, folder / "registry", ignore=shutil.ignore_patterns("__pycache__", "lua"))
    shutil.copytree(ROOT / "lua", folder / "lua")
    change = folder / "lua" / "include" / "append_change.lua"
    text = change.read_text(encoding="utf-8")
    assert text.count(_LINE) == 1
    change.write_text(text.replace(_LINE, f"{_LINE}\n  agent.colour = 'blue'"), encoding="utf-8")
    return folder


@pytest.mark.fault(46, "Two releases share one Redis")
@pytest.mark.slow
async def test_two_releases_serve_side_by_side(a_fleet: FleetMaker, tmp_path: Path) -> None:
    """Each keeps what the other writes beside what it knows, and neither harms an index."""
    elsewhere = {"PYTHONPATH": str(another_release(tmp_path)), "PYTHONSAFEPATH": "1"}
    async with a_fleet(env_by_replica={1: elsewhere}) as fleet:
        async with open_raw_connection(fleet.urls[1]) as line:
            assert (await line.request("POST", "/agents", a_registration("painted"))).status == 200
        async with open_raw_connection(fleet.urls[0]) as line:
            assert (await line.request("POST", "/agents", a_registration("painted", name="new"))).status == 200
            shown = (await line.request("GET", "/agents/painted")).body
        await fleet.wait_for_writes(100)
        await fleet.wait_for_degraded()
        await fleet.wait_for_resumes()

        painted = fleet.log_recorder.redis.hgetall("{mesh}:agent:painted")
        assert painted[b"colour"] == b"blue"
        assert shown["name"] == "new"
        assert not any("damaged" in replica.output for replica in fleet.replicas)
