"""The table of invalidate_timeline.lua."""

import pytest

from tests.lua.script_harness import Cell, Expected, ScriptCase, ScriptHarness


def row(
    promise: str,
    reply: str,
    *,
    expected: str = "h0",
    lost: int = 1000,
    version: Cell = "1000",
    lifted: str | None = None,
) -> ScriptCase:
    """A log from 900 to 1000; `lifted` is the version afterwards where the timeline is given up."""
    after: dict[str, Expected | None] = {"version": lifted, "timeline": None, "log": None}
    return ScriptCase(
        description=promise,
        script="invalidate_timeline",
        args={"expected_timeline": expected, "lost_version": lost},
        before={"version": version, "timeline": "h0", "log": ("900", "1000")},
        reply=(reply,),
        after={} if lifted is None else after,
    )


ROWS = [
    row("a log that lost an entry is given up, far above it", "invalidated", lost=950, lifted="61000"),
    row("so is one that ends before what was seen", "invalidated", lost=5000, lifted="65000"),
    row("so is one that reads otherwise where it begins", "invalidated", lost=900, lifted="61000"),
    row("another timeline was given up already", "other_timeline", expected="h9"),
    row("a log that begins later was only trimmed", "trimmed", lost=899),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_invalidate_timeline(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)
