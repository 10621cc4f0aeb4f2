"""The table of save_resolution.lua."""

import pytest

from tests.lua.script_harness import ScriptCase, ScriptHarness


def row(promise: str, before: str | None, reply: str, after: str, digest: str = "d1", entry: str = "{}") -> ScriptCase:
    """One entry for agent a, of whom three are kept."""
    return ScriptCase(
        description=promise,
        script="save_resolution",
        agents=("a",),
        args={"digest": digest, "entry": entry, "max_entries": 3, "ttl": 60_000},
        before={} if before is None else {"resolutions/a": before},
        reply=(reply,),
        after={"resolutions/a": after},
    )


ROWS = [
    row("the first entry begins the trace", None, "saved", "d1 {}"),
    row("the newest entry comes first", "d0 {}", "saved", "d1 {}|d0 {}"),
    row("what was kept last is not kept twice", "d1 {}|d0 {}", "unchanged", "d1 {}|d0 {}", entry='{"other": 1}'),
    row("what was kept before is kept again", "d0 {}|d1 {}", "saved", "d1 {}|d0 {}|d1 {}"),
    row("the oldest entry goes", "d4 {}|d3 {}|d2 {}", "saved", "d1 {}|d4 {}|d3 {}"),
    row("a digest that only begins like the newest is another", "d10 {}", "saved", "d1 {}|d10 {}"),
    row("an entry is bytes, whatever they mean", "d0 {}", "saved", "d1 no JSON|d0 {}", entry="no JSON"),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_save_resolution(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)
