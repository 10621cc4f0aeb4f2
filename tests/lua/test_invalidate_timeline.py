"""The table of test cases of invalidate_timeline.lua."""

import pytest

from tests.lua.script_harness import Cell, Expected, ScriptCase, ScriptHarness


def row(
    description: str,
    reply: str,
    *,
    expected: str = "h0",
    lost: int = 1000,
    version: Cell = "1000",
    raised: str | None = None,
) -> ScriptCase:
    """Return a row with a log from 900 to 1000; `raised` is the version after the timeline is invalidated."""
    after: dict[str, Expected | None] = {"version": raised, "timeline": None, "log": None}
    return ScriptCase(
        description=description,
        script="invalidate_timeline",
        args={"expected_timeline": expected, "lost_version": lost},
        before={"version": version, "timeline": "h0", "log": ("900", "1000")},
        reply=(reply,),
        after={} if raised is None else after,
    )


ROWS = [
    row(
        "a log that lost an entry is invalidated, and the version raised far above",
        "invalidated",
        lost=950,
        raised="61000",
    ),
    row("a log that ends before the lost version is invalidated", "invalidated", lost=5000, raised="65000"),
    row("a log whose first entry has changed is invalidated", "invalidated", lost=900, raised="61000"),
    row("another timeline was invalidated already", "other_timeline", expected="h9"),
    row("a log that starts later was only trimmed", "trimmed", lost=899),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_invalidate_timeline(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
