"""The table of test cases of new_timeline.lua."""

import pytest

from tests.lua.script_harness import LAST_VERSION, LOG_LENGTH, Cell, MsAfterStart, ScriptCase, ScriptHarness


def row(
    description: str, *, version: Cell | None, log: tuple[Cell, ...] | None, min_version: str = "0", created: Cell
) -> ScriptCase:
    """Return a row with a new timeline that starts at the version `created`."""
    return ScriptCase(
        description=description,
        script="new_timeline",
        args={"new_timeline_id": "h1", "log_length": LOG_LENGTH, "min_version": min_version},
        before={"version": version, "log": log},
        reply=("created", created),
        after={"timeline": "h1"},
        log=({"kind": "new_timeline", "reason": "timeline_replaced"},),
    )


AHEAD, ABOVE = MsAfterStart(3_600_000), MsAfterStart(3_600_001)

ROWS = [
    row("a complete timeline is replaced", version="1000", log=("900", "1000"), created=LAST_VERSION),
    row("an empty server gets a timeline", version=None, log=None, created=LAST_VERSION),
    row("it begins above a version ahead of the clock", version=AHEAD, log=(AHEAD,), created=ABOVE),
    row("it begins above a log ahead of the version", version="1000", log=(AHEAD,), created=ABOVE),
    row(
        "a version below the clock raises nothing",
        version="1000",
        log=("1000",),
        min_version="5000",
        created=LAST_VERSION,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_new_timeline(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)


async def test_a_new_timeline_begins_above_the_given_version(harness: ScriptHarness) -> None:
    """The version may be that of a backup from a clock ahead of this one."""
    row = ScriptCase(
        description="",
        script="new_timeline",
        args={"new_timeline_id": "h1", "log_length": LOG_LENGTH, "min_version": 9_000_000_000_000},
        reply=(),
    )
    await harness.write_initial_state(row)

    assert await harness.call_script(row) == [b"created", b"9000000000001"]
    assert (await harness.read_state())["version"] == "9000000000001"
