"""The table of test cases of init_log.lua."""

import pytest

from tests.lua.script_harness import LAST_VERSION, LOG_LENGTH, Cell, Expected, MsAfterStart, ScriptCase, ScriptHarness


def row(
    description: str,
    *,
    version: Cell | None,
    timeline: str | None,
    log: tuple[Cell, ...] | None,
    created: Cell | None = LAST_VERSION,
) -> ScriptCase:
    """Return a row with one call; `created` is the first version of a new timeline, None if nothing is missing."""
    before: dict[str, Expected | None] = {"version": version, "timeline": timeline, "log": log}
    is_created = created is not None
    return ScriptCase(
        description=description,
        script="init_log",
        args={"new_timeline_id": "h1", "log_length": LOG_LENGTH, "seen_version": 0},
        before=before,
        reply=("created", created, "h1") if created is not None else ("ok", version or "", timeline or ""),
        after={"timeline": "h1"} if is_created else {},
        log=({"kind": "new_timeline", "reason": "log_initialized"},) if is_created else (),
    )


AHEAD, ABOVE = MsAfterStart(3_600_000), MsAfterStart(3_600_001)

ROWS = [
    row("an empty server gets a timeline", version=None, timeline=None, log=None),
    row("a complete timeline stays unchanged", version="1000", timeline="h0", log=("900", "1000"), created=None),
    row("without a log a timeline begins", version="1000", timeline="h0", log=None),
    row("without a version a timeline begins", version=None, timeline="h0", log=("1000",)),
    row("without an id a timeline begins", version="1000", timeline=None, log=("1000",)),
    row("a log that goes on after the version begins a timeline", version="1000", timeline="h0", log=("1000", "1001")),
    row("a log that ends before the version begins a timeline", version="1000", timeline="h0", log=("999",)),
    row("it begins above a version ahead of the clock", version=AHEAD, timeline=None, log=(AHEAD,), created=ABOVE),
    row("it begins above such a version without a log too", version=AHEAD, timeline="h0", log=None, created=ABOVE),
    row("it begins above a log ahead of the clock", version=None, timeline="h0", log=(AHEAD,), created=ABOVE),
    row("it begins above a log ahead of the version", version="1000", timeline="h0", log=(AHEAD,), created=ABOVE),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_init_log(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)


async def test_a_new_timeline_trims_the_log(harness: ScriptHarness) -> None:
    """Redis trims whole nodes of 100 entries, so up to 100 more remain."""
    log = tuple(str(at) for at in range(1, 501))
    row = ScriptCase(
        description="",
        script="init_log",
        args={"new_timeline_id": "h1", "log_length": 50, "seen_version": 0},
        before={"version": None, "log": log},
        reply=(),
    )
    await harness.write_initial_state(row)

    await harness.call_script(row)

    assert 50 <= len((await harness.read_state())["log"]) <= 150
