"""The table of test cases of heartbeat.lua."""

from itertools import chain

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

EXTENDED: dict[str, Expected | None] = {"heartbeats/a": MsAfterCall(), "deadlines/a": MsAfterCall(60_000)}


def row(
    description: str,
    *heartbeats: str,
    before: dict[str, Expected | None],
    reply: tuple[str, ...] | ErrorReply,
    after: dict[str, Expected | None] | None = None,
    log: tuple[dict[str, Expected], ...] = (),
    more: tuple[str, ...] = (),
) -> ScriptCase:
    """Return a row with one call; heartbeats are `id mode` or `id mode load response_digest`, `-` for no value."""
    calls = [["" if word == "-" else word for word in [*heartbeat.split(), "", ""][:4]] for heartbeat in heartbeats]
    modes = [mode for _, mode, _, _ in calls]
    counted = (
        0
        if isinstance(reply, ErrorReply)
        else sum(word.startswith("healthy") and mode != "record" for word, mode in zip(reply, modes, strict=True))
    )
    touched: dict[str, Expected | None] = {"counters/heartbeats": str(counted)}
    return ScriptCase(
        description=description,
        script="heartbeat",
        agents=tuple(name for name, *_ in calls),
        args={"log_limits": LOG_LIMITS, "seen_version": 0, "agents…": [*chain.from_iterable(calls), *more]},
        before=before,
        reply=reply
        if isinstance(reply, ErrorReply)
        else ("ok", MsAfterCall(), LAST_VERSION if log else "1000", *reply),
        after={} if isinstance(reply, ErrorReply) else touched | (after or {}),
        log=log,
    )


def recovers(name: str, status: str) -> dict[str, Expected]:
    """Return the log entry of an agent that becomes healthy."""
    reason = "first_heartbeat" if status == "pending" else "recovered"
    return {"kind": "modify", "reason": reason, "id": name, "heartbeat": MsAfterCall(), "status_before": status}


def not_healthy(name: str, status: str) -> dict[str, Expected | None]:
    """Return the cells of an agent that is not healthy."""
    return an_agent(name, status, heartbeat_at=None if status == "pending" else -70_000, deadline_at=1000)


HEALTHY = an_agent("a", "healthy", heartbeat_at=-5000, deadline_at=55_000)
TWO_HUNDRED = [f"n{number} revive" for number in range(200)]

ROWS = [
    row(
        "a heartbeat extends the deadline of a healthy agent and logs nothing",
        "a revive",
        before=HEALTHY,
        reply=("healthy",),
        after=EXTENDED,
    ),
    row(
        "extend extends the deadline of a healthy agent", "a extend", before=HEALTHY, reply=("healthy",), after=EXTENDED
    ),
    row(
        "the agent's own timeout counts",
        "a revive",
        before=an_agent("a", "healthy", heartbeat_at=-5000, deadline_at=55_000, timeout="5000"),
        reply=("healthy",),
        after=EXTENDED | {"deadlines/a": MsAfterCall(5000)},
    ),
    *(
        row(
            f"a heartbeat makes a {status} agent healthy",
            "a revive",
            before=not_healthy("a", status),
            reply=("healthy",),
            after={**EXTENDED, "a/status": "healthy", "a/version": LAST_VERSION},
            log=(recovers("a", status),),
        )
        for status in ("pending", "degraded", "expired")
    ),
    *(
        row(f"extend leaves a {status} agent as it is", "a extend", before=not_healthy("a", status), reply=(status,))
        for status in ("pending", "degraded", "expired")
    ),
    row(
        "fields set by others survive a recovery and are in the log",
        "a revive",
        before=an_agent("a", "degraded", heartbeat_at=-70_000, deadline_at=1000, draining="1", owner="team-a"),
        reply=("healthy",),
        after={**EXTENDED, "a/status": "healthy", "a/version": LAST_VERSION},
        log=(recovers("a", "degraded"),),
    ),
    row("unknown agents are reported", "a revive", "b extend", before={}, reply=("unknown_agent", "unknown_agent")),
    row(
        "an agent without a status was never fully written, and must register again",
        "a revive",
        before=an_agent("a", "healthy", deadline_at=0) | {"a/status": None},
        reply=("unknown_agent",),
    ),
    row(
        "a bad record fails alone",
        "a revive",
        "b revive",
        "c extend",
        "d revive",
        before={
            **HEALTHY,
            "b": "not a hash",
            "c": "nor this",
            **an_agent("d", "healthy", heartbeat_at=-1, deadline_at=1),
        },
        reply=("healthy", "bad_record", "bad_record", "healthy"),
        after={**EXTENDED, "heartbeats/d": MsAfterCall(), "deadlines/d": MsAfterCall(60_000)},
    ),
    row(
        "an agent without a timeout is a bad record",
        "a revive",
        before=HEALTHY | {"a/timeout": None},
        reply=("bad_record",),
    ),
    row(
        "an agent with a timeout that is no number is a bad record",
        "a revive",
        before=HEALTHY | {"a/timeout": "soon"},
        reply=("bad_record",),
    ),
    row(
        "a repeated id is one recovery and two heartbeats",
        "a revive",
        "a revive",
        before=not_healthy("a", "degraded"),
        reply=("healthy", "healthy"),
        after={**EXTENDED, "a/status": "healthy", "a/version": LAST_VERSION},
        log=(recovers("a", "degraded"),),
    ),
    row(
        "extend of an id includes the heartbeat before it",
        "a extend",
        "a revive",
        "a extend",
        before=not_healthy("a", "expired"),
        reply=("expired", "healthy", "healthy"),
        after={**EXTENDED, "a/status": "healthy", "a/version": LAST_VERSION},
        log=(recovers("a", "expired"),),
    ),
    row(
        "each recovery has its own entry and version",
        "a revive",
        "b revive",
        "c extend",
        before={**not_healthy("a", "degraded"), **not_healthy("b", "pending"), **not_healthy("c", "expired")},
        reply=("healthy", "healthy", "expired"),
        after={
            **EXTENDED,
            "heartbeats/b": MsAfterCall(),
            "deadlines/b": MsAfterCall(60_000),
            "a/status": "healthy",
            "a/version": LAST_VERSION,
            "b/status": "healthy",
            "b/version": LAST_VERSION,
        },
        log=(recovers("a", "degraded"), recovers("b", "pending")),
    ),
    row(
        "a version ahead of the clock is raised by one",
        "a revive",
        before={**not_healthy("a", "degraded"), "version": MsAfterStart(3_600_000), "log": (MsAfterStart(3_600_000),)},
        reply=("healthy",),
        after={**EXTENDED, "a/status": "healthy", "a/version": MsAfterStart(3_600_001)},
        log=(recovers("a", "degraded"),),
    ),
    row(
        "totals are added up",
        "a revive",
        before={**HEALTHY, "counters/heartbeats": "41"},
        reply=("healthy",),
        after={**EXTENDED, "counters/heartbeats": "42"},
    ),
    row(
        "a load and a digest are stored, and nothing is logged",
        "a revive 0.5 d1",
        before=HEALTHY,
        reply=("healthy",),
        after={**EXTENDED, "a/load": "0.5", "a/response_digest": "d1"},
    ),
    row(
        "an absent load and digest leave the stored ones",
        "a revive - -",
        before={**HEALTHY, "a/load": "0.5", "a/response_digest": "d1"},
        reply=("healthy d1",),
        after=EXTENDED,
    ),
    *(
        row(
            f"{mode} without a digest returns the stored one, for any status",
            *(f"{name} {mode}" for name in "ab"),
            before={**HEALTHY, "a/response_digest": "d1", **not_healthy("b", "expired"), "b/response_digest": "d2"},
            reply=("healthy d1", "expired d2"),
            after=after,
        )
        for mode, after in (("extend", EXTENDED), ("record", {}))
    ),
    row(
        "an agent without a stored digest gets none",
        "a extend",
        "b revive",
        before={**HEALTHY, **an_agent("b", "healthy", heartbeat_at=-1, deadline_at=1), "b/load": "1"},
        reply=("healthy", "healthy"),
        after={**EXTENDED, "heartbeats/b": MsAfterCall(), "deadlines/b": MsAfterCall(60_000)},
    ),
    row(
        "an agent that recovers gets its digest unchanged",
        "a revive",
        before={**not_healthy("a", "degraded"), "a/response_digest": "d1"},
        reply=("healthy d1",),
        after={**EXTENDED, "a/status": "healthy", "a/version": LAST_VERSION},
        log=(recovers("a", "degraded"),),
    ),
    row(
        "a digest replaces another one, which is returned, not the same one",
        "a revive - d1",
        "a record - d2",
        "a extend",
        before={**HEALTHY, "a/response_digest": "d1"},
        reply=("healthy", "healthy d1", "healthy d2"),
        after={**EXTENDED, "a/response_digest": "d2", "counters/heartbeats": "2"},
    ),
    row(
        "a record extends no deadline, for any status",
        "a record - d2",
        "b record 3 -",
        before={**HEALTHY, "a/response_digest": "d1", **not_healthy("b", "pending")},
        reply=("healthy d1", "pending"),
        after={"a/response_digest": "d2", "b/load": "3"},
    ),
    row("a record creates no agent", "a record 1 d1", before={}, reply=("unknown_agent",)),
    row(
        "a log entry contains neither load nor digest",
        "a revive 7 d2",
        before={**not_healthy("a", "degraded"), "a/load": "5", "a/response_digest": "d1"},
        reply=("healthy d1",),
        after={**EXTENDED, "a/status": "healthy", "a/version": LAST_VERSION, "a/load": "7", "a/response_digest": "d2"},
        log=(recovers("a", "degraded"),),
    ),
    row("200 agents are one call", *TWO_HUNDRED, before={}, reply=("unknown_agent",) * 200),
    row("201 agents are rejected", *TWO_HUNDRED, "a revive", before=HEALTHY, reply=ErrorReply("at most 200 agents")),
    row(
        "one argument too many is rejected",
        "a revive",
        more=("b",),
        before=HEALTHY,
        reply=ErrorReply("at most 200 agents"),
    ),
    row(
        "an agent that self-preservation suspends has a deadline again",
        "a revive",
        before={**HEALTHY, "deadlines/a": None, "suspended/a": MsAfterStart(-500), "suspended/b": MsAfterStart(-500)},
        reply=("healthy",),
        after={**EXTENDED, "suspended/a": None},
    ),
    row(
        "so has one that was degraded before",
        "a revive",
        before={
            **not_healthy("a", "degraded"),
            "a/namespace": "n",
            "unhealthy_since/a": MsAfterStart(-10_000),
            "deadlines/a": None,
            "suspended/a": MsAfterStart(-500),
        },
        reply=("healthy",),
        after={
            **EXTENDED,
            "a/status": "healthy",
            "a/version": LAST_VERSION,
            "unhealthy_since/a": None,
            "suspended/a": None,
        },
        log=(recovers("a", "degraded"),),
    ),
    *(
        row(
            f"a {status} agent that recovers is not unhealthy any more",
            "a revive",
            before={
                **not_healthy("a", status),
                "unhealthy_since/a": MsAfterStart(-10_000),
                "unhealthy_since/b": MsAfterStart(-9000),
            },
            reply=("healthy",),
            after={**EXTENDED, "a/status": "healthy", "a/version": LAST_VERSION, "unhealthy_since/a": None},
            log=(recovers("a", status),),
        )
        for status in ("degraded", "expired")
    ),
    row(
        "extend leaves an agent unhealthy",
        "a extend",
        before={**not_healthy("a", "degraded"), "unhealthy_since/a": MsAfterStart(-10_000)},
        reply=("degraded",),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_heartbeat(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
