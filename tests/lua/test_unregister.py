"""The table of test cases of unregister.lua."""

import pytest

from tests.lua.script_harness import (
    LAST_VERSION,
    LOG_LIMITS,
    Expected,
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
    reply: tuple[Expected, ...],
    after: dict[str, Expected | None] | None = None,
    heartbeat: Expected | None = None,
) -> ScriptCase:
    """Return a row that unregisters agent a; `heartbeat` is that of its log entry, None without an entry."""
    entry: dict[str, Expected] = {"kind": "remove", "reason": "unregistered", "id": "a"}
    return ScriptCase(
        description=description,
        script="unregister",
        agents=("a",),
        args={"id": "a", "log_limits": LOG_LIMITS, "seen_version": 0},
        before=before,
        reply=reply,
        after=after or {},
        log=() if heartbeat is None else ({**entry, "heartbeat": heartbeat},),
    )


GONE: dict[str, Expected | None] = {**removed_agent("a"), "counters/unregistrations": "1"}

ROWS = [
    *(
        row(
            f"a {status} agent is removed at once, and the log has its last state",
            before=an_agent("a", status, heartbeat_at=-70_000, deadline_at=1000, draining="1", owner="team-a"),
            reply=("removed", LAST_VERSION),
            after=GONE | removed_agent("a", owner=""),
            heartbeat=MsAfterStart(-70_000),
        )
        for status in ("healthy", "degraded", "expired")
    ),
    row(
        "an agent that never sent a heartbeat is removed without one",
        before=an_agent("a", "pending", deadline_at=1000),
        reply=("removed", LAST_VERSION),
        after=GONE,
        heartbeat="",
    ),
    row(
        "an agent that self-preservation suspends is removed completely",
        before={
            **an_agent("a", "healthy", heartbeat_at=-70_000),
            "suspended/a": MsAfterStart(-10_000),
            "suspended/b": MsAfterStart(-9000),
        },
        reply=("removed", LAST_VERSION),
        after={**{name: cell for name, cell in GONE.items() if name != "deadlines/a"}, "suspended/a": None},
        heartbeat=MsAfterStart(-70_000),
    ),
    row(
        "an unhealthy agent is removed completely",
        before={
            **an_agent("a", "expired", heartbeat_at=-70_000, deadline_at=1000),
            "unhealthy_since/a": MsAfterStart(-10_000),
            "unhealthy_since/b": MsAfterStart(-9000),
        },
        reply=("removed", LAST_VERSION),
        after=GONE,
        heartbeat=MsAfterStart(-70_000),
    ),
    row(
        "its required edges are not counted any more",
        before={
            **an_agent("a", "healthy", heartbeat_at=-1, deadline_at=1000, required_edges="c d\nc e"),
            "required_edges/c d": "2",
            "required_edges/c e": "1",
            "required_edges/revision": "5",
        },
        reply=("removed", LAST_VERSION),
        after={**GONE, **removed_agent("a", required_edges=""), "required_edges/c d": "1", "required_edges/c e": None},
        heartbeat=MsAfterStart(-1),
    ),
    row(
        "others stay",
        before={
            **an_agent("a", "healthy", heartbeat_at=-1, deadline_at=1000),
            **an_agent("b", "healthy", heartbeat_at=-2, deadline_at=2000),
        },
        reply=("removed", LAST_VERSION),
        after=GONE,
        heartbeat=MsAfterStart(-1),
    ),
    row(
        "a version ahead of the clock is raised by one",
        before={
            **an_agent("a", "pending", deadline_at=1000),
            "version": MsAfterStart(3_600_000),
            "log": (MsAfterStart(3_600_000),),
        },
        reply=("removed", MsAfterStart(3_600_001)),
        after=GONE,
        heartbeat="",
    ),
    row(
        "totals are added up",
        before={**an_agent("a", "pending", deadline_at=1000), "counters/unregistrations": "41"},
        reply=("removed", LAST_VERSION),
        after={**GONE, "counters/unregistrations": "42"},
        heartbeat="",
    ),
    row(
        "an unknown agent is reported",
        before=an_agent("b", "healthy", heartbeat_at=-1, deadline_at=1000),
        reply=("unknown_agent",),
    ),
    row(
        "a record with missing fields can be removed",
        before={"a/spec": "{}", "heartbeats/a": MsAfterStart(-1), "deadlines/a": MsAfterStart(1000)},
        reply=("removed", LAST_VERSION),
        after=GONE,
        heartbeat=MsAfterStart(-1),
    ),
    row(
        "a key of another type can be removed",
        before={"a": "not a hash", "heartbeats/a": MsAfterStart(-1), "deadlines/a": MsAfterStart(1000)},
        reply=("removed", LAST_VERSION),
        after={**GONE, "a": None},
        heartbeat=MsAfterStart(-1),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_unregister(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
