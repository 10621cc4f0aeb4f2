"""The table of open.lua."""

import pytest

from tests.lua.script_harness import LAST_VERSION, LOG_LENGTH, Cell, Expected, MsAfterStart, ScriptCase, ScriptHarness


def row(
    promise: str,
    *,
    version: Cell | None,
    history: str | None,
    log: tuple[Cell, ...] | None,
    begun: Cell | None = LAST_VERSION,
) -> ScriptCase:
    """One opening; `begun` is the version a new history begins with, None where nothing is missing."""
    before: dict[str, Expected | None] = {"version": version, "history": history, "log": log}
    begins = begun is not None
    return ScriptCase(
        description=promise,
        script="open",
        args={"fresh": "h1", "keep": LOG_LENGTH},
        before=before,
        reply=("begun", begun, "h1") if begun is not None else ("ok", version or "", history or ""),
        after={"history": "h1"} if begins else {},
        log=({"kind": "begin", "reason": "opened"},) if begins else (),
    )


AHEAD, BEYOND = MsAfterStart(3_600_000), MsAfterStart(3_600_001)

ROWS = [
    row("an empty server gets a history", version=None, history=None, log=None),
    row("a whole history is left alone", version="1000", history="h0", log=("900", "1000"), begun=None),
    row("without a log a history begins", version="1000", history="h0", log=None),
    row("without a version a history begins", version=None, history="h0", log=("1000",)),
    row("without an id a history begins", version="1000", history=None, log=("1000",)),
    row("a log that goes on after the version begins a history", version="1000", history="h0", log=("1000", "1001")),
    row("a log that ends before the version begins a history", version="1000", history="h0", log=("999",)),
    row("it begins above a version ahead of the clock", version=AHEAD, history=None, log=(AHEAD,), begun=BEYOND),
    row("it begins above such a version without a log too", version=AHEAD, history="h0", log=None, begun=BEYOND),
    row("it begins above a log ahead of the clock", version=None, history="h0", log=(AHEAD,), begun=BEYOND),
    row("it begins above a log ahead of the version", version="1000", history="h0", log=(AHEAD,), begun=BEYOND),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_open(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)


async def test_a_new_history_trims_the_log_it_goes_on_with(bench: ScriptHarness) -> None:
    """Redis trims whole nodes of 100 entries, so at most that many more stay."""
    log = tuple(str(at) for at in range(1, 501))
    row = ScriptCase(
        description="", script="open", args={"fresh": "h1", "keep": 50}, before={"version": None, "log": log}, reply=()
    )
    await bench.write_initial_state(row)

    await bench.call_script(row)

    assert 50 <= len((await bench.read_state())["log"]) <= 150
