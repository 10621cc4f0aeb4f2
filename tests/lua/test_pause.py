"""The table of pause.lua."""

import pytest

from tests.lua.script_harness import ScriptCase, ScriptHarness


def row(promise: str, on: int, *, before: bool, after: bool) -> ScriptCase:
    """One call; whether jobs were paused before, and are after."""
    changed = {} if before == after else {"paused": "1" if after else None}
    return ScriptCase(
        description=promise,
        script="pause",
        args={"on": on},
        before={"paused": "1"} if before else {},
        reply=("ok",),
        after=changed,
    )


ROWS = [
    row("jobs are handed out no more", 1, before=False, after=True),
    row("to stop twice is to stop once", 1, before=True, after=True),
    row("jobs are handed out again", 0, before=True, after=False),
    row("to go on twice is to go on once", 0, before=False, after=False),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_pause(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)
