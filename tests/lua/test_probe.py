"""The table of pulse.lua."""

from collections.abc import Mapping

import pytest

from tests.lua.script_harness import Expected, MsAfterCall, MsAfterStart, ScriptCase, ScriptHarness, an_agent

NO_HOLD: tuple[Expected, ...] = ("", "", "", "", "")
OLD = "123 45"


def row(
    promise: str,
    pulse: Expected | None,
    *,
    outage: Expected | None = None,
    rewind: bool = False,
    before: Mapping[str, Expected | None] | None = None,
    overdue: int = 0,
    totals: tuple[str, str] = ("0", "0"),
    hold: tuple[Expected, ...] = NO_HOLD,
) -> ScriptCase:
    """One pulse after another, or after none; `outage` is the new one, None where it is no outage."""
    noted = outage or OLD
    asked: Expected = MsAfterCall() if rewind else ""
    return ScriptCase(
        description=promise,
        script="pulse",
        args={},
        before={"pulse": pulse, "outage": OLD, **(before or {})},
        reply=("ok", MsAfterCall(), noted, asked, str(overdue), *totals, *hold),
        after={"pulse": MsAfterCall(), "outage": noted, **({"rewind": MsAfterCall()} if rewind else {})},
    )


ROWS = [
    row("a pulse a second ago is no outage", MsAfterStart(-1000)),
    row("four seconds are no outage", MsAfterStart(-4000)),
    row(
        "more than five seconds are an outage that ends now",
        MsAfterStart(-5001),
        outage=(MsAfterCall(), " ", MsAfterStart(-5001)),
    ),
    row("no pulse at all is an outage", None, outage=(MsAfterCall(), " ")),
    row(
        "a pulse from the future is an outage, and a clock that went back: times must be set right",
        MsAfterStart(60_000),
        outage=(MsAfterCall(), " ", MsAfterStart(60_000)),
        rewind=True,
    ),
    row("a pulse that is no number is an outage", "then", outage=(MsAfterCall(), " ")),
    row(
        "it sees how many are overdue",
        MsAfterStart(-1000),
        before={
            **an_agent("a", "healthy", deadline_at=-10),
            **an_agent("b", "expired", deadline_at=-10),
            **an_agent("c", "healthy", deadline_at=50_000),
        },
        overdue=2,
    ),
    row(
        "it sees what an outage and a hold did",
        MsAfterStart(-1000),
        before={"counters/graced": "7", "counters/holds": "2", "counters/heartbeats": "9"},
        totals=("7", "2"),
    ),
    row(
        "it sees a hold that is on",
        MsAfterStart(-1000),
        before={"hold/since": "1", "hold/until": "2", "hold/silent": "30", "hold/healthy": "40"},
        hold=("1", "2", "", "30", "40"),
    ),
    row(
        "it sees a hold that is over",
        MsAfterStart(-1000),
        before={"hold/since": "1", "hold/until": "2", "hold/ended": "3", "hold/silent": "30", "hold/healthy": "40"},
        hold=("1", "2", "3", "30", "40"),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_pulse(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)
