"""The table of test cases of probe.lua."""

from collections.abc import Mapping

import pytest

from tests.lua.script_harness import Expected, MsAfterCall, MsAfterStart, ScriptCase, ScriptHarness, an_agent

NO_SELF_PRESERVATION: tuple[Expected, ...] = ("", "", "", "", "")
OLD = "123 45"


def row(
    description: str,
    probe: Expected | None,
    *,
    outage: Expected | None = None,
    rollback: bool = False,
    before: Mapping[str, Expected | None] | None = None,
    overdue: int = 0,
    totals: tuple[str, str] = ("0", "0"),
    self_preservation: tuple[Expected, ...] = NO_SELF_PRESERVATION,
) -> ScriptCase:
    """Return a row with a probe after another or after none; `outage` is the new one, None if there is no outage."""
    stored = outage or OLD
    clock_rollback: Expected = MsAfterCall() if rollback else ""
    return ScriptCase(
        description=description,
        script="probe",
        args={},
        before={"last_probe": probe, "outage": OLD, **(before or {})},
        reply=("ok", MsAfterCall(), stored, clock_rollback, str(overdue), *totals, *self_preservation),
        after={
            "last_probe": MsAfterCall(),
            "outage": stored,
            **({"clock_rollback": MsAfterCall()} if rollback else {}),
        },
    )


ROWS = [
    row("a probe a second ago is no outage", MsAfterStart(-1000)),
    row("four seconds are no outage", MsAfterStart(-4000)),
    row(
        "more than five seconds are an outage that ends now",
        MsAfterStart(-5001),
        outage=(MsAfterCall(), " ", MsAfterStart(-5001)),
    ),
    row("no probe at all is an outage", None, outage=(MsAfterCall(), " ")),
    row(
        "a probe from the future is an outage, and a clock rollback: times must be corrected",
        MsAfterStart(60_000),
        outage=(MsAfterCall(), " ", MsAfterStart(60_000)),
        rollback=True,
    ),
    row("a probe that is no number is an outage", "then", outage=(MsAfterCall(), " ")),
    row(
        "it returns the number of overdue agents",
        MsAfterStart(-1000),
        before={
            **an_agent("a", "healthy", deadline_at=-10),
            **an_agent("b", "expired", deadline_at=-10),
            **an_agent("c", "healthy", deadline_at=50_000),
        },
        overdue=2,
    ),
    row(
        "it returns the totals of outages and self-preservation",
        MsAfterStart(-1000),
        before={
            "counters/grace_granted": "7",
            "counters/self_preservation_activations": "2",
            "counters/heartbeats": "9",
        },
        totals=("7", "2"),
    ),
    row(
        "it returns active self-preservation",
        MsAfterStart(-1000),
        before={
            "self_preservation/since": "1",
            "self_preservation/until": "2",
            "self_preservation/overdue": "30",
            "self_preservation/healthy": "40",
        },
        self_preservation=("1", "2", "", "30", "40"),
    ),
    row(
        "it returns self-preservation that has ended",
        MsAfterStart(-1000),
        before={
            "self_preservation/since": "1",
            "self_preservation/until": "2",
            "self_preservation/ended": "3",
            "self_preservation/overdue": "30",
            "self_preservation/healthy": "40",
        },
        self_preservation=("1", "2", "3", "30", "40"),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_probe(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
