"""The table of test cases of end_self_preservation.lua."""

import pytest

from tests.lua.script_harness import Expected, MsAfterCall, MsAfterStart, ScriptCase, ScriptHarness

ACTIVE: dict[str, Expected | None] = {
    "self_preservation/since": MsAfterStart(-60_000),
    "self_preservation/until": MsAfterStart(60_000),
    "self_preservation/overdue": "30",
    "self_preservation/healthy": "40",
}


def row(description: str, before: dict[str, Expected | None], *, ended: bool) -> ScriptCase:
    """Return a row with one call."""
    return ScriptCase(
        description=description,
        script="end_self_preservation",
        args={},
        before=before,
        reply=("ended", MsAfterStart(-60_000)) if ended else ("not_active",),
        after={"self_preservation/ended": MsAfterCall()} if ended else {},
    )


ROWS = [
    row("active self-preservation ends now, and stays stored", ACTIVE, ended=True),
    row("without self-preservation there is nothing to end", {}, ended=False),
    row(
        "self-preservation is ended only once", {**ACTIVE, "self_preservation/ended": MsAfterStart(-1000)}, ended=False
    ),
    row(
        "self-preservation past its maximum duration has ended already",
        {**ACTIVE, "self_preservation/until": MsAfterStart(-1)},
        ended=False,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_end_self_preservation(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
