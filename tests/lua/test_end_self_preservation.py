"""The table of release.lua."""

import pytest

from tests.lua.script_harness import Expected, MsAfterCall, MsAfterStart, ScriptCase, ScriptHarness

HOLD: dict[str, Expected | None] = {
    "hold/since": MsAfterStart(-60_000),
    "hold/until": MsAfterStart(60_000),
    "hold/silent": "30",
    "hold/healthy": "40",
}


def row(promise: str, before: dict[str, Expected | None], *, released: bool) -> ScriptCase:
    """One release."""
    return ScriptCase(
        description=promise,
        script="release",
        args={},
        before=before,
        reply=("released", MsAfterStart(-60_000)) if released else ("not_held",),
        after={"hold/ended": MsAfterCall()} if released else {},
    )


ROWS = [
    row("a hold that is on ends now, and is remembered", HOLD, released=True),
    row("without a hold there is nothing to release", {}, released=False),
    row("a hold is released once", {**HOLD, "hold/ended": MsAfterStart(-1000)}, released=False),
    row("a hold whose time is up is over by itself", {**HOLD, "hold/until": MsAfterStart(-1)}, released=False),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_release(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)
