"""The table of repair_clock_rollback.lua: the clock of Redis went back an hour, twenty seconds ago."""

import pytest

from tests.lua.script_harness import (
    ErrorReply,
    Expected,
    MsAfterCall,
    MsAfterStart,
    ScriptCase,
    ScriptHarness,
    an_agent,
)

HOUR = 3_600_000
# The time of the clock rollback.
ROLLBACK = MsAfterStart(-20_000)
TWO_HUNDRED = [f"n{number}" for number in range(200)]


def row(
    description: str,
    *ids: str,
    before: dict[str, Expected | None] | None = None,
    reply: tuple[Expected, ...] | ErrorReply,
    after: dict[str, Expected | None] | None = None,
    epoch: str = "7",
    rollback: int = -20_000,
    is_last: bool = False,
    more: tuple[str, ...] = (),
) -> ScriptCase:
    """Return a row with one call under epoch 7, for a scan that started after the rollback at `rollback`."""
    return ScriptCase(
        description=description,
        script="repair_clock_rollback",
        agents=ids,
        args={
            "leader_epoch": epoch,
            "rollback_ms": MsAfterStart(rollback),
            "is_last": int(is_last),
            "ids…": [*ids, *more],
        },
        before={"epoch": "7", "clock_rollback": ROLLBACK, **(before or {})},
        reply=reply,
        after=after or {},
    )


FUTURE = an_agent("a", "healthy", heartbeat_at=HOUR - 10_000, deadline_at=HOUR + 50_000)
RESET: dict[str, Expected | None] = {"heartbeats/a": MsAfterCall(), "deadlines/a": MsAfterCall(60_000)}

ROWS = [
    row(
        "a heartbeat from the future is set to now, and the timeout starts now",
        "a",
        before=FUTURE,
        reply=("ok", 1),
        after=RESET,
    ),
    row(
        "the timeout of the agent is used",
        "a",
        before={**FUTURE, "a/timeout": "5000"},
        reply=("ok", 1),
        after={"heartbeats/a": MsAfterCall(), "deadlines/a": MsAfterCall(5000)},
    ),
    row(
        "a pending agent gets no heartbeat",
        "a",
        before=an_agent("a", "pending", deadline_at=HOUR),
        reply=("ok", 1),
        after={"deadlines/a": MsAfterCall(60_000)},
    ),
    *(
        row(
            f"a {status} agent keeps its status, and is unhealthy since now",
            "a",
            before={
                **an_agent("a", status, heartbeat_at=HOUR - 90_000, deadline_at=HOUR),
                "unhealthy_since/a": MsAfterStart(HOUR - 10_000),
            },
            reply=("ok", 1),
            after={**RESET, "unhealthy_since/a": MsAfterCall()},
        )
        for status in ("degraded", "expired")
    ),
    row(
        "an earlier heartbeat stays, and the agent gets a whole timeout",
        "a",
        before=an_agent("a", "healthy", heartbeat_at=-70_000, deadline_at=-10_000),
        reply=("ok", 1),
        after={"deadlines/a": MsAfterCall(60_000)},
    ),
    row(
        "agents already scanned or with a later heartbeat stay: a scan may start again",
        *("a", "b"),
        before={
            **an_agent("a", "healthy", heartbeat_at=-19_000, deadline_at=41_000),
            **an_agent("b", "healthy", heartbeat_at=-1000, deadline_at=59_000),
        },
        reply=("ok", 0),
    ),
    row("a repeated id counts once", "a", "a", before=FUTURE, reply=("ok", 1), after=RESET),
    row("a removed agent stays removed", "a", reply=("ok", 0)),
    row(
        "a damaged agent does not stop the scan",
        *("b", "c", "a"),
        before={
            **FUTURE,
            "b": "not a hash",
            "deadlines/b": MsAfterStart(HOUR),
            **an_agent("c", "healthy", heartbeat_at=HOUR, deadline_at=HOUR, timeout="soon"),
        },
        reply=("ok", 1),
        after={**RESET, "heartbeats/c": MsAfterCall()},
    ),
    row(
        "the last agents end the scan",
        "a",
        before=FUTURE,
        is_last=True,
        reply=("ok", 1),
        after={**RESET, "clock_rollback": None},
    ),
    row("a scan of an empty mesh ends at once", is_last=True, reply=("ok", 0), after={"clock_rollback": None}),
    row(
        "after another rollback the scan starts again",
        "a",
        before=FUTURE,
        rollback=-30_000,
        reply=("not_needed",),
    ),
    row(
        "a scan that another replica ended is over",
        "a",
        before={**FUTURE, "clock_rollback": None},
        is_last=True,
        reply=("not_needed",),
    ),
    row("a stale epoch writes nothing", "a", before=FUTURE, epoch="6", is_last=True, reply=("stale_epoch", "7")),
    row("an unknown epoch is stale", "a", before={**FUTURE, "epoch": None}, reply=("stale_epoch", "0")),
    row("200 agents are one call", *TWO_HUNDRED, reply=("ok", 0)),
    row("201 agents are rejected", *TWO_HUNDRED, "a", before=FUTURE, reply=ErrorReply("at most 200 agents")),
    row("one argument too many is rejected", "a", more=("b",), before=FUTURE, reply=ErrorReply("at most 200 agents")),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_repair_clock_rollback(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
