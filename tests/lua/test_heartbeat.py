"""The table of heartbeat.lua."""

from itertools import chain

import pytest

from tests.lua.script_harness import (
    LAST_VERSION,
    LOG_LENGTH,
    ErrorReply,
    Expected,
    MsAfterCall,
    MsAfterStart,
    ScriptCase,
    ScriptHarness,
    an_agent,
)

BEATEN: dict[str, Expected | None] = {"heartbeats/a": MsAfterCall(), "deadlines/a": MsAfterCall(60_000)}


def row(
    promise: str,
    *beats: str,
    before: dict[str, Expected | None],
    reply: tuple[str, ...] | ErrorReply,
    after: dict[str, Expected | None] | None = None,
    log: tuple[dict[str, Expected], ...] = (),
    more: tuple[str, ...] = (),
) -> ScriptCase:
    """One call; beats are `id mode`, or `id mode load response_digest` with `-` for nothing."""
    said = [["" if word == "-" else word for word in [*beat.split(), "", ""][:4]] for beat in beats]
    modes = [mode for _, mode, _, _ in said]
    counted = (
        0
        if isinstance(reply, ErrorReply)
        else sum(word.startswith("healthy") and mode != "record" for word, mode in zip(reply, modes, strict=True))
    )
    touched: dict[str, Expected | None] = {"last_probe": MsAfterCall(), "counters/heartbeats": str(counted)}
    return ScriptCase(
        description=promise,
        script="heartbeat",
        agents=tuple(name for name, *_ in said),
        args={"log_length": LOG_LENGTH, "agents…": [*chain.from_iterable(said), *more]},
        before=before,
        reply=reply if isinstance(reply, ErrorReply) else ("ok", MsAfterCall(), *reply),
        after={} if isinstance(reply, ErrorReply) else touched | (after or {}),
        log=log,
    )


def recovers(name: str, status: str) -> dict[str, Expected]:
    """The entry of an agent that becomes healthy."""
    reason = "first_heartbeat" if status == "pending" else "recovered"
    return {"kind": "modify", "reason": reason, "id": name, "heartbeat": MsAfterCall(), "status_before": status}


def silent(name: str, status: str) -> dict[str, Expected | None]:
    """A stored agent that is not healthy."""
    return an_agent(name, status, heartbeat_at=None if status == "pending" else -70_000, deadline_at=1000)


HEALTHY = an_agent("a", "healthy", heartbeat_at=-5000, deadline_at=55_000)
TWO_HUNDRED = [f"n{number} revive" for number in range(200)]

ROWS = [
    row(
        "a heartbeat prolongs a healthy agent and logs nothing",
        "a revive",
        before=HEALTHY,
        reply=("healthy",),
        after=BEATEN,
    ),
    row("extend prolongs a healthy agent", "a extend", before=HEALTHY, reply=("healthy",), after=BEATEN),
    row(
        "the agent's own timeout counts",
        "a revive",
        before=an_agent("a", "healthy", heartbeat_at=-5000, deadline_at=55_000, timeout="5000"),
        reply=("healthy",),
        after=BEATEN | {"deadlines/a": MsAfterCall(5000)},
    ),
    *(
        row(
            f"a heartbeat makes a {status} agent healthy",
            "a revive",
            before=silent("a", status),
            reply=("healthy",),
            after={**BEATEN, "a/status": "healthy", "a/version": LAST_VERSION},
            log=(recovers("a", status),),
        )
        for status in ("pending", "degraded", "expired")
    ),
    *(
        row(f"extend leaves a {status} agent as it is", "a extend", before=silent("a", status), reply=(status,))
        for status in ("pending", "degraded", "expired")
    ),
    row(
        "what others set survives a recovery and stands in the log",
        "a revive",
        before=an_agent("a", "degraded", heartbeat_at=-70_000, deadline_at=1000, draining="1", owner="team-a"),
        reply=("healthy",),
        after={**BEATEN, "a/status": "healthy", "a/version": LAST_VERSION},
        log=(recovers("a", "degraded"),),
    ),
    row("nobody is told so", "a revive", "b extend", before={}, reply=("unknown_agent", "unknown_agent")),
    row(
        "an agent without a status was never written whole, and registers anew",
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
        after={**BEATEN, "heartbeats/d": MsAfterCall(), "deadlines/d": MsAfterCall(60_000)},
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
        "one id twice is one recovery and two heartbeats",
        "a revive",
        "a revive",
        before=silent("a", "degraded"),
        reply=("healthy", "healthy"),
        after={**BEATEN, "a/status": "healthy", "a/version": LAST_VERSION},
        log=(recovers("a", "degraded"),),
    ),
    row(
        "extend of an id sees the heartbeat before it",
        "a extend",
        "a revive",
        "a extend",
        before=silent("a", "expired"),
        reply=("expired", "healthy", "healthy"),
        after={**BEATEN, "a/status": "healthy", "a/version": LAST_VERSION},
        log=(recovers("a", "expired"),),
    ),
    row(
        "each recovery has an entry and a version of its own",
        "a revive",
        "b revive",
        "c extend",
        before={**silent("a", "degraded"), **silent("b", "pending"), **silent("c", "expired")},
        reply=("healthy", "healthy", "expired"),
        after={
            **BEATEN,
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
        "a version ahead of the clock goes on by one",
        "a revive",
        before={**silent("a", "degraded"), "version": MsAfterStart(3_600_000), "log": (MsAfterStart(3_600_000),)},
        reply=("healthy",),
        after={**BEATEN, "a/status": "healthy", "a/version": MsAfterStart(3_600_001)},
        log=(recovers("a", "degraded"),),
    ),
    row(
        "totals are added up",
        "a revive",
        before={**HEALTHY, "counters/heartbeats": "41"},
        reply=("healthy",),
        after={**BEATEN, "counters/heartbeats": "42"},
    ),
    row(
        "a load and a digest are stored, and nothing is logged",
        "a revive 0.5 d1",
        before=HEALTHY,
        reply=("healthy",),
        after={**BEATEN, "a/load": "0.5", "a/response_digest": "d1"},
    ),
    row(
        "what is not given leaves what is there",
        "a revive - -",
        before={**HEALTHY, "a/load": "0.5", "a/response_digest": "d1"},
        reply=("healthy d1",),
        after=BEATEN,
    ),
    *(
        row(
            f"{mode} that tells no digest is told the one that is stored, whatever the status",
            *(f"{name} {mode}" for name in "ab"),
            before={**HEALTHY, "a/response_digest": "d1", **silent("b", "expired"), "b/response_digest": "d2"},
            reply=("healthy d1", "expired d2"),
            after=after,
        )
        for mode, after in (("extend", BEATEN), ("record", {}))
    ),
    row(
        "who was never told a digest is told none",
        "a extend",
        "b revive",
        before={**HEALTHY, **an_agent("b", "healthy", heartbeat_at=-1, deadline_at=1), "b/load": "1"},
        reply=("healthy", "healthy"),
        after={**BEATEN, "heartbeats/b": MsAfterCall(), "deadlines/b": MsAfterCall(60_000)},
    ),
    row(
        "one that recovers is told its digest as it was",
        "a revive",
        before={**silent("a", "degraded"), "a/response_digest": "d1"},
        reply=("healthy d1",),
        after={**BEATEN, "a/status": "healthy", "a/version": LAST_VERSION},
        log=(recovers("a", "degraded"),),
    ),
    row(
        "a digest that is told is not told back",
        "a revive - d1",
        "a record - d2",
        "a extend",
        before={**HEALTHY, "a/response_digest": "d1"},
        reply=("healthy", "healthy", "healthy d2"),
        after={**BEATEN, "a/response_digest": "d2", "counters/heartbeats": "2"},
    ),
    row(
        "a record prolongs nobody, whatever its status",
        "a record - d2",
        "b record 3 -",
        before={**HEALTHY, "a/response_digest": "d1", **silent("b", "pending")},
        reply=("healthy", "pending"),
        after={"a/response_digest": "d2", "b/load": "3"},
    ),
    row("a record makes no agent", "a record 1 d1", before={}, reply=("unknown_agent",)),
    row(
        "neither load nor digest is carried by a change",
        "a revive 7 d2",
        before={**silent("a", "degraded"), "a/load": "5", "a/response_digest": "d1"},
        reply=("healthy",),
        after={**BEATEN, "a/status": "healthy", "a/version": LAST_VERSION, "a/load": "7", "a/response_digest": "d2"},
        log=(recovers("a", "degraded"),),
    ),
    row("200 agents are one call", *TWO_HUNDRED, before={}, reply=("unknown_agent",) * 200),
    row("201 agents are refused", *TWO_HUNDRED, "a revive", before=HEALTHY, reply=ErrorReply("at most 200 agents")),
    row(
        "an argument too many is refused",
        "a revive",
        more=("b",),
        before=HEALTHY,
        reply=ErrorReply("at most 200 agents"),
    ),
    row(
        "the end of an outage is noted",
        "a revive",
        before={**HEALTHY, "last_probe": MsAfterStart(-60_000)},
        reply=("healthy",),
        after={**BEATEN, "outage": (MsAfterCall(), " ", MsAfterStart(-60_000))},
    ),
    row(
        "a clock that went back is noted",
        "a revive",
        before={**HEALTHY, "last_probe": MsAfterStart(60_000)},
        reply=("healthy",),
        after={**BEATEN, "outage": (MsAfterCall(), " ", MsAfterStart(60_000)), "clock_rollback": MsAfterCall()},
    ),
    *(
        row(
            f"a {status} agent that comes back is silent no more",
            "a revive",
            before={
                **silent("a", status),
                "unhealthy_since/a": MsAfterStart(-10_000),
                "unhealthy_since/b": MsAfterStart(-9000),
            },
            reply=("healthy",),
            after={**BEATEN, "a/status": "healthy", "a/version": LAST_VERSION, "unhealthy_since/a": None},
            log=(recovers("a", status),),
        )
        for status in ("degraded", "expired")
    ),
    row(
        "extend leaves an agent silent",
        "a extend",
        before={**silent("a", "degraded"), "unhealthy_since/a": MsAfterStart(-10_000)},
        reply=("degraded",),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_heartbeat(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)
