"""The table of release.lua."""

import pytest

from tests.lua.script_harness import At, Bench, Expected, Now, Row

HOLD: dict[str, Expected | None] = {
    "hold/since": At(-60_000),
    "hold/until": At(60_000),
    "hold/silent": "30",
    "hold/healthy": "40",
}


def row(promise: str, before: dict[str, Expected | None], *, released: bool) -> Row:
    """One release."""
    return Row(
        promise=promise,
        script="release",
        args={},
        before=before,
        reply=("released", At(-60_000)) if released else ("not_held",),
        after={"hold/ended": Now()} if released else {},
    )


ROWS = [
    row("a hold that is on ends now, and is remembered", HOLD, released=True),
    row("without a hold there is nothing to release", {}, released=False),
    row("a hold is released once", {**HOLD, "hold/ended": At(-1000)}, released=False),
    row("a hold whose time is up is over by itself", {**HOLD, "hold/until": At(-1)}, released=False),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_release(row: Row, bench: Bench) -> None:
    """Every row holds on every kind of server."""
    await bench.check(row)
