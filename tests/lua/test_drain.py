"""The table of test cases of drain.lua."""

import pytest

from tests.lua.script_harness import (
    LAST_VERSION,
    LOG_LIMITS,
    ErrorReply,
    Expected,
    MsAfterCall,
    MsAfterStart,
    ScriptCase,
    ScriptHarness,
    an_agent,
)


def row(
    description: str,
    draining: str,
    *names: str,
    before: dict[str, Expected | None],
    reply: tuple[Expected, ...] | ErrorReply,
    after: dict[str, Expected | None] | None = None,
    log: tuple[dict[str, Expected], ...] = (),
    more: tuple[str, ...] = (),
) -> ScriptCase:
    """Return a row with one call for these agents."""
    return ScriptCase(
        description=description,
        script="drain",
        agents=names,
        args={"draining": draining, "log_limits": LOG_LIMITS, "seen_version": 0, "ids…": [*names, *more]},
        before=before,
        reply=reply if isinstance(reply, ErrorReply) else ("ok", *reply),
        after=after or {},
        log=log,
    )


def drains(name: str, heartbeat: Expected) -> dict[str, Expected]:
    """Return the log entry of an agent that is drained."""
    return {"kind": "modify", "reason": "drained", "id": name, "heartbeat": heartbeat, "draining_before": "0"}


HEALTHY = an_agent("a", "healthy", heartbeat_at=-5000, deadline_at=55_000)
DRAINING = HEALTHY | {"a/draining": "1"}
TWO_HUNDRED = [f"n{number}" for number in range(200)]

ROWS = [
    *(
        row(
            f"a {status} agent drains and nothing else changes",
            "1",
            "a",
            before=an_agent("a", status, heartbeat_at=-70_000, deadline_at=1000, owner="team-a", later="x"),
            reply=("changed", LAST_VERSION),
            after={"a/draining": "1", "a/version": LAST_VERSION},
            log=(drains("a", MsAfterStart(-70_000)),),
        )
        for status in ("healthy", "degraded", "expired")
    ),
    row(
        "an agent that never sent a heartbeat can be drained",
        "1",
        "a",
        before=an_agent("a", "pending", deadline_at=1000),
        reply=("changed", LAST_VERSION),
        after={"a/draining": "1", "a/version": LAST_VERSION},
        log=(drains("a", ""),),
    ),
    row(
        "an agent is put back into service",
        "0",
        "a",
        before=DRAINING,
        reply=("changed", LAST_VERSION),
        after={"a/draining": "0", "a/version": LAST_VERSION},
        log=(
            {
                "kind": "modify",
                "reason": "undrained",
                "id": "a",
                "heartbeat": MsAfterStart(-5000),
                "draining_before": "1",
            },
        ),
    ),
    row("a draining agent stays unchanged", "1", "a", before=DRAINING, reply=("unchanged", "900")),
    row("an agent in service stays unchanged", "0", "a", before=HEALTHY, reply=("unchanged", "900")),
    row("unknown agents are reported", "1", "a", "b", before={}, reply=("unknown_agent", "", "unknown_agent", "")),
    row(
        "a bad record fails alone",
        "1",
        "a",
        "b",
        "c",
        "d",
        before={
            "a": "not a hash",
            **an_agent("b", "healthy", heartbeat_at=-1, deadline_at=1) | {"b/timeout": None},
            **an_agent("c", "healthy", heartbeat_at=-2, deadline_at=1) | {"c/draining": None},
            **an_agent("d", "healthy", heartbeat_at=-3, deadline_at=1),
        },
        reply=("bad_record", "", "bad_record", "", "bad_record", "", "changed", LAST_VERSION),
        after={"d/draining": "1", "d/version": LAST_VERSION},
        log=(drains("d", MsAfterStart(-3)),),
    ),
    row(
        "each change has its own entry and version, in order",
        "1",
        "b",
        "unknown",
        "a",
        "c",
        before={
            **HEALTHY,
            **an_agent("b", "degraded", heartbeat_at=-9, deadline_at=9),
            **an_agent("c", "healthy", heartbeat_at=-8, deadline_at=8, draining="1"),
        },
        reply=("changed", MsAfterCall(), "unknown_agent", "", "changed", LAST_VERSION, "unchanged", "900"),
        after={"a/draining": "1", "a/version": LAST_VERSION, "b/draining": "1", "b/version": LAST_VERSION},
        log=(drains("b", MsAfterStart(-9)), drains("a", MsAfterStart(-5000))),
    ),
    row(
        "a repeated id is one change",
        "1",
        "a",
        "a",
        before=HEALTHY,
        reply=("changed", LAST_VERSION, "unchanged", LAST_VERSION),
        after={"a/draining": "1", "a/version": LAST_VERSION},
        log=(drains("a", MsAfterStart(-5000)),),
    ),
    row(
        "a version ahead of the clock is raised by one",
        "1",
        "a",
        before={**HEALTHY, "version": MsAfterStart(3_600_000), "log": (MsAfterStart(3_600_000),)},
        reply=("changed", MsAfterStart(3_600_001)),
        after={"a/draining": "1", "a/version": MsAfterStart(3_600_001)},
        log=(drains("a", MsAfterStart(-5000)),),
    ),
    row("200 agents are one call", "1", *TWO_HUNDRED, before={}, reply=("unknown_agent", "") * 200),
    row("201 agents are rejected", "1", *TWO_HUNDRED, "a", before=HEALTHY, reply=ErrorReply("at most 200 agents")),
    row(
        "one argument too many is rejected",
        "1",
        "a",
        more=("b",),
        before=HEALTHY,
        reply=ErrorReply("at most 200 agents"),
    ),
    row("a value other than 0 and 1 is rejected", "yes", "a", before=HEALTHY, reply=ErrorReply("expects 0 or 1")),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_drain(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
