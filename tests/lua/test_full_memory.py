"""A full Redis stops newcomers, not the living, and nothing is half-written."""

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
)
from tests.lua.script_harness import ScriptCase, ScriptHarness
from tests.lua.test_register import ROWS as REGISTRATIONS
from tests.support.lua_headers import SCRIPTS

LIVING = [
    *(test_drain.ROWS, test_heartbeat.ROWS, test_leader.ROWS, test_repair.ROWS, test_init_log.ROWS),
    *(
        test_probe.ROWS,
        test_end_self_preservation.ROWS,
        test_new_timeline.ROWS,
        test_repair_clock_rollback.ROWS,
        test_invalidate_timeline.ROWS,
        test_sweep.ROWS,
    ),
    *(test_save_resolution.ROWS, test_unregister.ROWS),
]
NEWCOMERS = [*REGISTRATIONS, *test_restore.ROWS]


@pytest.fixture
async def full(standalone: ScriptHarness) -> AsyncIterator[ScriptHarness]:
    """A bench whose server has used all the memory it may."""
    await standalone.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")
    yield standalone
    await standalone.execute("CONFIG", "SET", "maxmemory", "0")


async def fill(bench: ScriptHarness) -> None:
    """From here on, the server refuses what could need memory."""
    await bench.execute("CONFIG", "SET", "maxmemory", "1")


@pytest.mark.parametrize("row", NEWCOMERS, ids=str)
async def test_registering_is_refused_and_writes_nothing(row: ScriptCase, full: ScriptHarness) -> None:
    """Whatever the call would have done; putting agents back is the same."""
    await full.write_initial_state(row)
    before = await full.read_state()
    await fill(full)

    reply = await full.call_script(row)

    assert "maxmemory" in str(reply)
    assert await full.read_state() == before


@pytest.mark.parametrize("row", [row for table in LIVING for row in table], ids=lambda row: f"{row.script}: {row}")
async def test_everything_else_goes_on(row: ScriptCase, full: ScriptHarness) -> None:
    """Heartbeats, drains, sweeps, the lead and unregistering do as their tables say."""
    await full.run_case(row, after_preparing=fill)


def test_no_script_is_forgotten() -> None:
    """A new script is refused or goes on; which, is decided here."""
    assert {row.script for table in (*LIVING, NEWCOMERS) for row in table} == set(SCRIPTS)
