"""The table of pulse.lua."""

import pytest

from tests.lua.bench import At, Bench, Expected, Now, Row


def row(promise: str, pulse: Expected | None, *, outage: bool) -> Row:
    """One pulse after another, or after none."""
    return Row(
        promise=promise,
        script="pulse",
        args={},
        before={"pulse": pulse, "outage": "123"},
        reply=("ok", Now()),
        after={"pulse": Now(), "outage": Now() if outage else "123"},
    )


ROWS = [
    row("a pulse a second ago is no outage", At(-1000), outage=False),
    row("four seconds are no outage", At(-4000), outage=False),
    row("more than five seconds are an outage that ends now", At(-5001), outage=True),
    row("no pulse at all is an outage", None, outage=True),
    row("a pulse from the future is an outage: the clock went back", At(60_000), outage=True),
    row("a pulse that is no number is an outage", "then", outage=True),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_pulse(row: Row, bench: Bench) -> None:
    """Every row holds on every kind of server."""
    await bench.check(row)
