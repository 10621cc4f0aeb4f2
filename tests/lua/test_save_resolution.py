"""The table of test cases of save_resolution.lua."""

import pytest

from tests.lua.script_harness import ScriptCase, ScriptHarness


def row(
    description: str, before: str | None, reply: str, after: str, digest: str = "d1", entry: str = "{}"
) -> ScriptCase:
    """Return a row that saves an entry for agent a, for which three entries are stored at most."""
    return ScriptCase(
        description=description,
        script="save_resolution",
        agents=("a",),
        args={"digest": digest, "entry": entry, "max_entries": 3, "ttl": 60_000},
        before={} if before is None else {"resolutions/a": before},
        reply=(reply,),
        after={"resolutions/a": after},
    )


ROWS = [
    row("the first entry creates the trace", None, "saved", "d1 {}"),
    row("the newest entry comes first", "d0 {}", "saved", "d1 {}|d0 {}"),
    row("the newest entry is not stored twice", "d1 {}|d0 {}", "unchanged", "d1 {}|d0 {}", entry='{"other": 1}'),
    row("an earlier entry is stored again", "d0 {}|d1 {}", "saved", "d1 {}|d0 {}|d1 {}"),
    row("the oldest entry is dropped", "d4 {}|d3 {}|d2 {}", "saved", "d1 {}|d4 {}|d3 {}"),
    row("a digest that has the newest as a prefix is different", "d10 {}", "saved", "d1 {}|d10 {}"),
    row("an entry is stored byte for byte", "d0 {}", "saved", "d1 no JSON|d0 {}", entry="no JSON"),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_save_resolution(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
