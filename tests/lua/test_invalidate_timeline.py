"""The table of sever.lua."""

import pytest

from tests.lua.script_harness import Cell, Expected, ScriptCase, ScriptHarness


def row(
    promise: str, reply: str, *, known: str = "h0", seen: int = 1000, version: Cell = "1000", lifted: str | None = None
) -> ScriptCase:
    """A log from 900 to 1000; `lifted` is the version afterwards where the history is given up."""
    after: dict[str, Expected | None] = {"version": lifted, "history": None, "log": None}
    return ScriptCase(
        description=promise,
        script="sever",
        args={"known": known, "seen": seen},
        before={"version": version, "history": "h0", "log": ("900", "1000")},
        reply=(reply,),
        after={} if lifted is None else after,
    )


ROWS = [
    row("a log that lost an entry is given up, far above it", "severed", seen=950, lifted="61000"),
    row("so is one that ends before what was seen", "severed", seen=5000, lifted="65000"),
    row("so is one that reads otherwise where it begins", "severed", seen=900, lifted="61000"),
    row("another history was given up already", "other_history", known="h9"),
    row("a log that begins later was only trimmed", "trimmed", seen=899),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_sever(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)
