"""Scripts that assign versions, called by a replica that has seen a higher version than the store has."""

from dataclasses import replace

import pytest

from registry.store.scripts import load_scripts
from tests.lua.script_harness import Expected, ScriptCase, ScriptHarness
from tests.lua.test_tables import rows_of

# The initial state has the version 1000 and one log entry; these rows keep that entry.
SCRIPTS = [name for name, script in load_scripts().items() if "seen_version" in script.args]
# A century ahead, so that the clock of the server does not raise versions above it.
SEEN = 5_000_000_000_000


def first_change(script: str, seen_version: int) -> ScriptCase:
    """Return the first row of a script that writes one log entry, with another seen version."""
    row = next(row for row in rows_of(script) if len(row.log) == 1)
    return replace(row, args={**row.args, "seen_version": seen_version})


async def versions_after(row: ScriptCase, harness: ScriptHarness) -> tuple[int, list[int]]:
    """Run a row, and return the version and those of all log entries."""
    await harness.write_initial_state(row)
    reply = await harness.call_script(row)
    assert isinstance(reply, list), reply
    state = await harness.read_state()
    return int(state["version"]), [int(entry.removesuffix("-0")) for entry, _ in state["log"]]


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_store_that_lost_versions_continues_above_all_of_them(script: str, harness: ScriptHarness) -> None:
    """Other replicas may have read a minute more; the log starts again, since its versions may have other contents."""
    version, entries = await versions_after(first_change(script, SEEN), harness)

    assert version == SEEN + 60_001
    assert entries == [version]


async def test_a_store_with_the_seen_version_loses_nothing(harness: ScriptHarness) -> None:
    """The next change has the next version, and the log continues."""
    row = first_change("register", SEEN)

    version, entries = await versions_after(replace(row, before={**row.before, "version": str(SEEN)}), harness)

    assert version == SEEN + 1
    assert entries == [1000, version]


@pytest.mark.parametrize("stored", ["version", "timeline", "log"])
async def test_a_complete_timeline_below_the_seen_version_is_replaced(stored: str, harness: ScriptHarness) -> None:
    """So is one that lacks its version, its id or its log."""
    row = first_change("init_log", SEEN)
    cells: dict[str, Expected | None] = {"version": "1000", "timeline": "h0", "log": ("1000",)}

    version, entries = await versions_after(replace(row, before={**cells, stored: None}), harness)

    assert (version, entries) == (SEEN + 60_001, [SEEN + 60_001])
