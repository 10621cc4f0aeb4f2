"""The table of test cases of end_self_preservation.lua."""

import pytest

from tests.lua.script_harness import Cells, MsAfterCall, MsAfterStart, ScriptCase, ScriptHarness, a_period

SINCE, UNTIL = MsAfterStart(-60_000), MsAfterStart(60_000)
ENDED: Cells = a_period("n", SINCE, UNTIL, MsAfterCall())


def row(description: str, before: Cells, after: Cells | None = None, *, namespace: str = "") -> ScriptCase:
    """Return a row with one call; `after` are the periods that end."""
    periods = sum(name.startswith("self_preservation/") for name in after or {})
    return ScriptCase(
        description=description,
        script="end_self_preservation",
        args={"namespace": namespace},
        before=before,
        reply=("ended", periods) if periods else ("not_active",),
        after=after or {},
    )


ROWS = [
    row("active self-preservation ends now, and stays stored", a_period("n", SINCE, UNTIL), ENDED),
    row("without self-preservation there is nothing to end", {}),
    row("self-preservation is ended only once", a_period("n", SINCE, UNTIL, MsAfterStart(-1000))),
    row(
        "self-preservation past its maximum duration has ended already",
        a_period("n", SINCE, MsAfterStart(-1)),
    ),
    row(
        "that of one namespace ends alone",
        {**a_period("n", SINCE, UNTIL), **a_period("m", SINCE, UNTIL), **a_period("*", SINCE, UNTIL)},
        ENDED,
        namespace="n",
    ),
    row(
        "that of the whole mesh ends alone",
        {**a_period("n", SINCE, UNTIL), **a_period("*", SINCE, UNTIL)},
        a_period("*", SINCE, UNTIL, MsAfterCall()),
        namespace="*",
    ),
    row("a namespace without it has nothing to end", a_period("n", SINCE, UNTIL), namespace="m"),
    row(
        "all of them end together",
        {**a_period("n", SINCE, UNTIL), **a_period("m", SINCE, UNTIL), **a_period("*", SINCE, UNTIL)},
        {
            **ENDED,
            **a_period("m", SINCE, UNTIL, MsAfterCall()),
            **a_period("*", SINCE, UNTIL, MsAfterCall()),
        },
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_end_self_preservation(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
