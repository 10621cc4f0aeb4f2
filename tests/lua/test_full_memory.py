"""A full Redis rejects new agents, serves existing ones, and leaves nothing half-written."""

from collections.abc import AsyncIterator

import pytest

from tests.lua import (
    test_drain,
    test_end_self_preservation,
    test_heartbeat,
    test_init_log,
    test_invalidate_timeline,
    test_leader,
    test_new_timeline,
    test_probe,
    test_repair,
    test_repair_clock_rollback,
    test_restore,
    test_save_resolution,
    test_sweep,
    test_unregister,
    test_update_self_preservation,
)
from tests.lua.script_harness import ScriptCase, ScriptHarness
from tests.lua.test_register import ROWS as REGISTRATIONS
from tests.support.lua_headers import SCRIPTS

WORKING = [
    *(test_drain.ROWS, test_heartbeat.ROWS, test_leader.ROWS, test_repair.ROWS, test_init_log.ROWS),
    *(
        test_probe.ROWS,
        test_end_self_preservation.ROWS,
        test_update_self_preservation.ROWS,
        test_new_timeline.ROWS,
        test_repair_clock_rollback.ROWS,
        test_invalidate_timeline.ROWS,
        test_sweep.ROWS,
    ),
    *(test_save_resolution.ROWS, test_unregister.ROWS),
]
REJECTED = [*REGISTRATIONS, *test_restore.ROWS]


@pytest.fixture
async def full(standalone: ScriptHarness) -> AsyncIterator[ScriptHarness]:
    """Provide a harness whose server has no memory left."""
    await standalone.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")
    yield standalone
    await standalone.execute("CONFIG", "SET", "maxmemory", "0")


async def fill(harness: ScriptHarness) -> None:
    """Let the server reject all commands that could need memory."""
    await harness.execute("CONFIG", "SET", "maxmemory", "1")


@pytest.mark.parametrize("row", REJECTED, ids=str)
async def test_registering_is_rejected_and_writes_nothing(row: ScriptCase, full: ScriptHarness) -> None:
    """This holds for every row of the table, and for restoring agents."""
    await full.write_initial_state(row)
    before = await full.read_state()
    await fill(full)

    reply = await full.call_script(row)

    assert "maxmemory" in str(reply)
    assert await full.read_state() == before


@pytest.mark.parametrize("row", [row for table in WORKING for row in table], ids=lambda row: f"{row.script}: {row}")
async def test_all_other_scripts_work(row: ScriptCase, full: ScriptHarness) -> None:
    """Heartbeats, drains, sweeps, leader election and unregistering run as in their tables."""
    await full.run_case(row, after_preparing=fill)


def test_every_script_is_in_a_table() -> None:
    """A new script must be added to the tables that work or to those that are rejected."""
    assert {row.script for table in (*WORKING, REJECTED) for row in table} == set(SCRIPTS)
