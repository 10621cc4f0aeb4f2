"""The table of end_self_preservation.lua."""

import pytest

from tests.lua.script_harness import Expected, MsAfterCall, MsAfterStart, ScriptCase, ScriptHarness

ACTIVE: dict[str, Expected | None] = {
    "self_preservation/since": MsAfterStart(-60_000),
    "self_preservation/until": MsAfterStart(60_000),
    "self_preservation/overdue": "30",
    "self_preservation/healthy": "40",
}


def row(promise: str, before: dict[str, Expected | None], *, ended: bool) -> ScriptCase:
    """One release."""
    return ScriptCase(
        description=promise,
        script="end_self_preservation",
        args={},
        before=before,
        reply=("ended", MsAfterStart(-60_000)) if ended else ("not_active",),
        after={"self_preservation/ended": MsAfterCall()} if ended else {},
    )


ROWS = [
    row("a hold that is on ends now, and is remembered", ACTIVE, ended=True),
    row("without a hold there is nothing to release", {}, ended=False),
    row("a hold is released once", {**ACTIVE, "self_preservation/ended": MsAfterStart(-1000)}, ended=False),
    row(
        "a hold whose time is up is over by itself",
        {**ACTIVE, "self_preservation/until": MsAfterStart(-1)},
        ended=False,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_end_self_preservation(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)
