"""The table of test cases of repair.lua."""

import pytest

from tests.lua.script_harness import (
    ErrorReply,
    Expected,
    MsAfterCall,
    MsAfterStart,
    ScriptCase,
    ScriptHarness,
    an_agent,
    removed_agent,
)


def row(
    description: str,
    *,
    before: dict[str, Expected | None],
    unreadable: str = "",
    counts: tuple[int, int, int],
    after: dict[str, Expected | None] | None = None,
) -> ScriptCase:
    """Return a row that repairs agent a."""
    return ScriptCase(
        description=description,
        script="repair",
        agents=("a",),
        args={"agents…": ["a", unreadable]},
        before=before,
        reply=("ok", *counts),
        after=after or {},
    )


ROWS = [
    row(
        "a valid agent stays",
        before=an_agent("a", "healthy", heartbeat_at=-1, deadline_at=1000),
        counts=(0, 0, 0),
    ),
    row(
        "an unknown agent is no error",
        before=an_agent("b", "healthy", heartbeat_at=-1, deadline_at=1000),
        counts=(0, 0, 0),
    ),
    row(
        "a deadline and a heartbeat without an agent are deleted",
        before={
            "deadlines/a": MsAfterStart(1000),
            "heartbeats/a": MsAfterStart(-1),
            "unhealthy_since/a": MsAfterStart(-1),
        },
        counts=(1, 0, 0),
        after={"deadlines/a": None, "heartbeats/a": None, "unhealthy_since/a": None},
    ),
    row(
        "an agent that self-preservation suspends needs no deadline",
        before={**an_agent("a", "healthy", heartbeat_at=-1), "suspended/a": MsAfterStart(-1)},
        counts=(0, 0, 0),
    ),
    row(
        "without an agent it is deleted",
        before={"suspended/a": MsAfterStart(-1)},
        counts=(1, 0, 0),
        after={"suspended/a": None},
    ),
    row(
        "an agent without a deadline gets the current time",
        before=an_agent("a", "healthy", heartbeat_at=-1),
        counts=(0, 0, 1),
        after={"deadlines/a": MsAfterCall()},
    ),
    row(
        "a record with missing fields is deleted",
        before={"a/spec": "{}", "deadlines/a": MsAfterStart(1000), "heartbeats/a": MsAfterStart(-1)},
        counts=(0, 1, 0),
        after={"a/spec": None, "deadlines/a": None, "heartbeats/a": None},
    ),
    row(
        "a record of another type is deleted",
        before={"a": "no hash", "deadlines/a": MsAfterStart(1000)},
        counts=(0, 1, 0),
        after={"a": None, "deadlines/a": None},
    ),
    row(
        "a record with an unreadable spec is deleted",
        before=an_agent("a", "healthy", heartbeat_at=-1, deadline_at=1000, spec="no JSON"),
        unreadable="900",
        counts=(0, 1, 0),
        after={**removed_agent("a")},
    ),
    row(
        "the edges of a deleted record are not counted any more",
        before={
            **an_agent("a", "healthy", heartbeat_at=-1, deadline_at=1000, spec="no JSON", required_edges="c d\nc e"),
            "required_edges/c d": "2",
            "required_edges/c e": "1",
            "required_edges/revision": "2",
        },
        unreadable="900",
        counts=(0, 1, 0),
        after={**removed_agent("a", required_edges=""), "required_edges/c d": "1", "required_edges/c e": None},
    ),
    row(
        "a record that was registered again since stays",
        before=an_agent("a", "healthy", heartbeat_at=-1, deadline_at=1000, version="901"),
        unreadable="900",
        counts=(0, 0, 0),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_repair(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)


async def test_a_call_has_at_most_200_agents(harness: ScriptHarness) -> None:
    """The store never sends more."""
    agents = tuple(f"a{number}" for number in range(201))
    await harness.run_case(
        ScriptCase(
            description="",
            script="repair",
            agents=agents,
            args={"agents…": [text for name in agents for text in (name, "")]},
            reply=ErrorReply("at most 200 agents"),
        )
    )
