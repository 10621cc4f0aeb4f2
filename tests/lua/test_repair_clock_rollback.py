"""The table of repair_clock_rollback.lua: Redis' clock went back an hour some seconds ago."""

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
# When the clock went back: twenty seconds ago.
BACK = MsAfterStart(-20_000)
TWO_HUNDRED = [f"n{number}" for number in range(200)]


def row(
    promise: str,
    *ids: str,
    before: dict[str, Expected | None] | None = None,
    reply: tuple[Expected, ...] | ErrorReply,
    after: dict[str, Expected | None] | None = None,
    epoch: str = "7",
    rollback: int = -20_000,
    is_last: bool = False,
    more: tuple[str, ...] = (),
) -> ScriptCase:
    """One call under epoch 7, for a walk that was begun when the clock went back at `rollback`."""
    return ScriptCase(
        description=promise,
        script="repair_clock_rollback",
        agents=ids,
        args={
            "leader_epoch": epoch,
            "rollback_ms": MsAfterStart(rollback),
            "is_last": int(is_last),
            "ids…": [*ids, *more],
        },
        before={"epoch": "7", "clock_rollback": BACK, **(before or {})},
        reply=reply,
        after=after or {},
    )


FUTURE = an_agent("a", "healthy", heartbeat_at=HOUR - 10_000, deadline_at=HOUR + 50_000)
RESET: dict[str, Expected | None] = {"heartbeats/a": MsAfterCall(), "deadlines/a": MsAfterCall(60_000)}

ROWS = [
    row(
        "a heartbeat from the future becomes one of now, and the agent has its timeout from now",
        "a",
        before=FUTURE,
        reply=("ok", 1),
        after=RESET,
    ),
    row(
        "an own timeout counts",
        "a",
        before={**FUTURE, "a/timeout": "5000"},
        reply=("ok", 1),
        after={"heartbeats/a": MsAfterCall(), "deadlines/a": MsAfterCall(5000)},
    ),
    row(
        "a pending agent has no heartbeat, nor does it get one",
        "a",
        before=an_agent("a", "pending", deadline_at=HOUR),
        reply=("ok", 1),
        after={"deadlines/a": MsAfterCall(60_000)},
    ),
    *(
        row(
            f"one that is {status} keeps its status, and its silence did not begin in the future",
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
        "a heartbeat of before stays what it was, and the agent still has a whole timeout",
        "a",
        before=an_agent("a", "healthy", heartbeat_at=-70_000, deadline_at=-10_000),
        reply=("ok", 1),
        after={"deadlines/a": MsAfterCall(60_000)},
    ),
    row(
        "who was walked over, or beat since, is left alone: a walk may begin anew",
        *("a", "b"),
        before={
            **an_agent("a", "healthy", heartbeat_at=-19_000, deadline_at=41_000),
            **an_agent("b", "healthy", heartbeat_at=-1000, deadline_at=59_000),
        },
        reply=("ok", 0),
    ),
    row("twice the same agent is once", "a", "a", before=FUTURE, reply=("ok", 1), after=RESET),
    row("who is gone stays gone", "a", reply=("ok", 0)),
    row(
        "a damaged agent does not stop the walk",
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
        "the last agents end the walk",
        "a",
        before=FUTURE,
        is_last=True,
        reply=("ok", 1),
        after={**RESET, "clock_rollback": None},
    ),
    row("a mesh without agents is walked over at once", is_last=True, reply=("ok", 0), after={"clock_rollback": None}),
    row(
        "when the clock goes back again, the walk begins anew",
        "a",
        before=FUTURE,
        rollback=-30_000,
        reply=("not_needed",),
    ),
    row(
        "a walk that another ended is over",
        "a",
        before={**FUTURE, "clock_rollback": None},
        is_last=True,
        reply=("not_needed",),
    ),
    row("a stale epoch writes nothing", "a", before=FUTURE, epoch="6", is_last=True, reply=("stale_epoch", "7")),
    row("an epoch from nowhere is stale", "a", before={**FUTURE, "epoch": None}, reply=("stale_epoch", "0")),
    row("200 agents are one call", *TWO_HUNDRED, reply=("ok", 0)),
    row("201 agents are refused", *TWO_HUNDRED, "a", before=FUTURE, reply=ErrorReply("at most 200 agents")),
    row("an argument too many is refused", "a", more=("b",), before=FUTURE, reply=ErrorReply("at most 200 agents")),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_repair_clock_rollback(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)
