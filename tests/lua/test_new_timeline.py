"""The table of restart.lua."""

import pytest

from tests.lua.script_harness import LAST_VERSION, LOG_LENGTH, Cell, MsAfterStart, ScriptCase, ScriptHarness


def row(
    promise: str, *, version: Cell | None, log: tuple[Cell, ...] | None, least: str = "0", begun: Cell
) -> ScriptCase:
    """One new history, which begins with the version `begun`."""
    return ScriptCase(
        description=promise,
        script="restart",
        args={"fresh": "h1", "keep": LOG_LENGTH, "least": least},
        before={"version": version, "log": log},
        reply=("begun", begun),
        after={"history": "h1"},
        log=({"kind": "begin", "reason": "restarted"},),
    )


AHEAD, BEYOND = MsAfterStart(3_600_000), MsAfterStart(3_600_001)

ROWS = [
    row("a history that is whole ends", version="1000", log=("900", "1000"), begun=LAST_VERSION),
    row("an empty server gets a history", version=None, log=None, begun=LAST_VERSION),
    row("it begins above a version ahead of the clock", version=AHEAD, log=(AHEAD,), begun=BEYOND),
    row("it begins above a log ahead of the version", version="1000", log=(AHEAD,), begun=BEYOND),
    row("a version below the clock raises nothing", version="1000", log=("1000",), least="5000", begun=LAST_VERSION),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_restart(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)


async def test_a_new_history_begins_above_the_version_that_is_given(bench: ScriptHarness) -> None:
    """As that of a backup that was taken by a clock ahead of this one."""
    row = ScriptCase(
        description="", script="restart", args={"fresh": "h1", "keep": LOG_LENGTH, "least": 9_000_000_000_000}, reply=()
    )
    await bench.write_initial_state(row)

    assert await bench.call_script(row) == [b"begun", b"9000000000001"]
    assert (await bench.read_state())["version"] == "9000000000001"
