"""The table of new_timeline.lua."""

import pytest

from tests.lua.script_harness import LAST_VERSION, LOG_LENGTH, Cell, MsAfterStart, ScriptCase, ScriptHarness


def row(
    promise: str, *, version: Cell | None, log: tuple[Cell, ...] | None, min_version: str = "0", created: Cell
) -> ScriptCase:
    """One new timeline, which begins with the version `created`."""
    return ScriptCase(
        description=promise,
        script="new_timeline",
        args={"new_timeline_id": "h1", "log_length": LOG_LENGTH, "min_version": min_version},
        before={"version": version, "log": log},
        reply=("created", created),
        after={"timeline": "h1"},
        log=({"kind": "new_timeline", "reason": "timeline_replaced"},),
    )


AHEAD, BEYOND = MsAfterStart(3_600_000), MsAfterStart(3_600_001)

ROWS = [
    row("a timeline that is whole ends", version="1000", log=("900", "1000"), created=LAST_VERSION),
    row("an empty server gets a timeline", version=None, log=None, created=LAST_VERSION),
    row("it begins above a version ahead of the clock", version=AHEAD, log=(AHEAD,), created=BEYOND),
    row("it begins above a log ahead of the version", version="1000", log=(AHEAD,), created=BEYOND),
    row(
        "a version below the clock raises nothing",
        version="1000",
        log=("1000",),
        min_version="5000",
        created=LAST_VERSION,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_new_timeline(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)


async def test_a_new_history_begins_above_the_version_that_is_given(bench: ScriptHarness) -> None:
    """As that of a backup that was taken by a clock ahead of this one."""
    row = ScriptCase(
        description="",
        script="new_timeline",
        args={"new_timeline_id": "h1", "log_length": LOG_LENGTH, "min_version": 9_000_000_000_000},
        reply=(),
    )
    await bench.write_initial_state(row)

    assert await bench.call_script(row) == [b"created", b"9000000000001"]
    assert (await bench.read_state())["version"] == "9000000000001"
