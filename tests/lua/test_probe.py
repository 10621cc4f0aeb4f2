"""The table of test cases of probe.lua."""

from collections.abc import Mapping

import pytest

from tests.lua.script_harness import Expected, MsAfterCall, MsAfterStart, ScriptCase, ScriptHarness, a_period, an_agent

OLD = "123 45"


def row(
    description: str,
    probe: Expected | None,
    *,
    outage: Expected | None = None,
    late_ms: int = 0,
    lag: Expected | None = None,
    rollback: bool = False,
    before: Mapping[str, Expected | None] | None = None,
    overdue: int = 0,
    totals: tuple[str, str] = ("0", "0"),
    suspended: int = 0,
    periods: tuple[Expected, ...] = (),
) -> ScriptCase:
    """Return a row with a probe after another or after none; `outage` or `lag` is the new one, if any."""
    stored = outage or OLD
    active = str(
        sum(name.startswith("protected/") and not isinstance(cell, tuple) for name, cell in (before or {}).items())
    )
    clock_rollback: Expected = MsAfterCall() if rollback else ""
    return ScriptCase(
        description=description,
        script="probe",
        args={"lag_ms": late_ms},
        before={"last_probe": probe, "outage": OLD, **(before or {})},
        reply=(
            "ok",
            MsAfterCall(),
            stored,
            lag or "",
            clock_rollback,
            str(overdue),
            *totals,
            str(suspended),
            active,
            *periods,
        ),
        after={
            "last_probe": MsAfterCall(),
            "outage": stored,
            **({} if lag is None else {"lags/0": lag}),
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
    row(
        "a gap in which the loop of the replica was late is an outage of the replicas themselves",
        MsAfterStart(-20_000),
        late_ms=19_000,
        lag=(MsAfterCall(), " ", MsAfterStart(-20_000), " 19000"),
    ),
    row("a late loop without a gap is none", MsAfterStart(-4000), late_ms=3900),
    row(
        "a gap that is an outage without the time by which the loop was late is one of Redis",
        MsAfterStart(-20_000),
        late_ms=14_000,
        outage=(MsAfterCall(), " ", MsAfterStart(-20_000)),
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
        "it returns active self-preservation, with the number of suspended agents",
        MsAfterStart(-1000),
        before={
            **a_period("n", "1", "2"),
            **an_agent("a", "healthy", namespace="n"),
            **an_agent("b", "expired", namespace="n"),
            **an_agent("c", "healthy", namespace="n-o"),
            **an_agent("d", "healthy", namespace="n", deadline_at=-10),
            **{f"suspended/{name}": MsAfterStart(-20) for name in "abc"},
        },
        overdue=4,
        suspended=3,
        periods=("n 2 1 2 - - 30 40",),
    ),
    row(
        "it returns self-preservation that has ended",
        MsAfterStart(-1000),
        before=a_period("n", "1", "2", "3", "4"),
        periods=("n 0 1 2 3 4 30 40",),
    ),
    row(
        "it returns that of the mesh, then the latest of the namespaces, then the latest that has ended",
        MsAfterStart(-1000),
        before={
            **a_period("a", "5", "9"),
            **a_period("b", "7", "9"),
            **a_period("c", "6", "9"),
            **a_period("d", "3", "9", "8"),
            **a_period("e", "4", "9", "8"),
            **a_period("*", "8", "9"),
        },
        periods=(
            "* 0 8 9 - - 30 40",
            "b 0 7 9 - - 30 40",
            "c 0 6 9 - - 30 40",
            "a 0 5 9 - - 30 40",
            "e 0 4 9 8 - 30 40",
        ),
    ),
    row(
        "it returns twenty of the namespaces in self-preservation",
        MsAfterStart(-1000),
        before={name: cell for at in range(21) for name, cell in a_period(f"n{at}", str(at + 1), "99").items()},
        periods=tuple(f"n{at} 0 {at + 1} 99 - - 30 40" for at in range(20, 0, -1)),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_probe(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
