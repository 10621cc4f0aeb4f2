"""The table of sweep.lua."""

import pytest

from tests.lua.bench import HISTORY, VERSION, At, Bench, Error, Expected, Now, Row, an_agent, gone

OUTCOMES = ("degraded", "expired", "removed", "early", "orphaned", "bad")
RETENTION = 600_000


def row(
    promise: str,
    *ids: str,
    before: dict[str, Expected | None],
    reply: dict[str, int] | tuple[Expected, ...] | Error,
    after: dict[str, Expected | None] | None = None,
    log: tuple[dict[str, Expected], ...] = (),
    epoch: str = "7",
    more: tuple[str, ...] = (),
) -> Row:
    """One call under epoch 7, which is the epoch unless `before` says otherwise; `reply` names what is not 0."""
    counted = isinstance(reply, dict)
    return Row(
        promise=promise,
        script="sweep",
        agents=ids,
        args={"lead_epoch": epoch, "history": HISTORY, "retention": RETENTION, "ids…": [*ids, *more]},
        before={"epoch": "7", **before},
        reply=("ok", *(reply.get(word, 0) for word in OUTCOMES)) if isinstance(reply, dict) else reply,
        after={"pulse": Now(), **(after or {})} if counted else {},
        log=log,
    )


def step(name: str, kind: str, reason: str, heartbeat: Expected, **before: Expected) -> dict[str, Expected]:
    """One log entry."""
    return {"kind": kind, "reason": reason, "id": name, "heartbeat": heartbeat, **before}


def moved(name: str, status: str, deadline: Expected) -> dict[str, Expected | None]:
    """The cells of an agent that was moved on."""
    return {f"{name}/status": status, f"{name}/version": VERSION, f"deadlines/{name}": deadline}


SILENT = an_agent("a", "healthy", heard=-60_500, due=-500)
# It degrades at timeout, and expires at eviction after the same heartbeat.
DEGRADED = moved("a", "degraded", At(-500 + 120_000))
TWO_HUNDRED = [f"n{number}" for number in range(200)]

ROWS = [
    row(
        "a healthy agent past its deadline degrades",
        "a",
        before=SILENT,
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", At(-60_500), status_before="healthy"),),
    ),
    row(
        "a pending agent runs on the same clock",
        "a",
        before=an_agent("a", "pending", due=-500),
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", "", status_before="pending"),),
    ),
    row(
        "a degraded agent expires, and its retention begins",
        "a",
        before=an_agent("a", "degraded", heard=-180_500, due=-500),
        reply={"expired": 1},
        after={**moved("a", "expired", Now(RETENTION)), "counters/expired": "1"},
        log=(step("a", "modify", "expired", At(-180_500), status_before="degraded"),),
    ),
    row(
        "an expired agent is removed, and the log carries it as it was",
        "a",
        before=an_agent("a", "expired", heard=-900_000, due=-1, draining="1", owner="team-a"),
        reply={"removed": 1},
        after={**gone("a", owner=""), "counters/removed": "1"},
        log=(step("a", "remove", "retention_over", At(-900_000)),),
    ),
    row(
        "an agent overdue for long moves one step at a time",
        "a",
        before=an_agent("a", "healthy", heard=-999_000, due=-939_000),
        reply={"degraded": 1},
        after={**moved("a", "degraded", At(-939_000 + 120_000)), "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", At(-999_000), status_before="healthy"),),
    ),
    row(
        "one id twice moves twice only where both steps are due",
        "a",
        "a",
        "b",
        "b",
        before={
            **an_agent("a", "healthy", heard=-999_000, due=-939_000),
            **an_agent("b", "healthy", heard=-61_000, due=-1000),
        },
        reply={"degraded": 2, "expired": 1, "early": 1},
        after={
            **moved("a", "expired", Now(RETENTION)),
            **moved("b", "degraded", At(119_000)),
            "counters/degraded": "2",
            "counters/expired": "1",
        },
        log=(
            step("a", "modify", "degraded", At(-999_000), status_before="healthy"),
            step("a", "modify", "expired", At(-999_000), status_before="degraded"),
            step("b", "modify", "degraded", At(-61_000), status_before="healthy"),
        ),
    ),
    row(
        "each agent fares by itself, and each change has a version of its own",
        *("a", "b", "c", "d", "e", "f"),
        before={
            **SILENT,
            **an_agent("b", "degraded", heard=-180_000, due=-10),
            **an_agent("c", "expired", heard=-900_000, due=-10),
            **an_agent("d", "healthy", heard=-10, due=59_990),
            "deadlines/e": At(-10),
            "f": "not a hash",
            "deadlines/f": At(-10),
        },
        reply=dict.fromkeys(OUTCOMES, 1),
        after={
            **DEGRADED,
            **moved("b", "expired", Now(RETENTION)),
            **gone("c"),
            "deadlines/e": None,
            "deadlines/f": Now(RETENTION),
            "counters/degraded": "1",
            "counters/expired": "1",
            "counters/removed": "1",
        },
        log=(
            step("a", "modify", "degraded", At(-60_500), status_before="healthy"),
            step("b", "modify", "expired", At(-180_000), status_before="degraded"),
            step("c", "remove", "retention_over", At(-900_000)),
        ),
    ),
    row(
        "a heartbeat that came first wins",
        "a",
        before=an_agent("a", "healthy", heard=-100, due=59_900),
        reply={"early": 1},
    ),
    row("who has no deadline is not due", "a", before=an_agent("a", "healthy", heard=-100), reply={"early": 1}),
    row(
        "a deadline without an agent is dropped, with its heartbeat",
        "a",
        before={"deadlines/a": At(-10), "heartbeats/a": At(-60_010), "deadlines/b": At(-10)},
        reply={"orphaned": 1},
        after={"deadlines/a": None, "heartbeats/a": None},
    ),
    row(
        "a deadline without an agent that is not due yet stays",
        "a",
        before={"deadlines/a": At(60_000)},
        reply={"early": 1},
    ),
    *(
        row(
            f"an agent {what} is put off",
            "a",
            before={"deadlines/a": At(-10), **before},
            reply={"bad": 1},
            after={"deadlines/a": Now(RETENTION)},
        )
        for what, before in (
            ("whose key is no hash", {"a": "not a hash"}),
            ("without a timeout", an_agent("a", "healthy", due=-10) | {"a/timeout": None}),
            ("without an eviction", an_agent("a", "healthy", due=-10) | {"a/eviction": None}),
            ("with a timeout that is no number", an_agent("a", "healthy", due=-10, timeout="soon")),
        )
    ),
    row(
        "a version ahead of the clock goes on by one",
        "a",
        before={**SILENT, "version": At(3_600_000), "log": (At(3_600_000),)},
        reply={"degraded": 1},
        after={**DEGRADED, "a/version": At(3_600_001), "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", At(-60_500), status_before="healthy"),),
    ),
    row("a stale epoch writes nothing, not even the pulse", "a", before=SILENT, epoch="6", reply=("stale_epoch", "7")),
    row("an epoch from nowhere is stale", "a", before={**SILENT, "epoch": None}, reply=("stale_epoch", "0")),
    row(
        "epoch 0 sweeps where none was ever taken",
        "a",
        before={"epoch": None, **an_agent("a", "expired", due=-10)},
        epoch="0",
        reply={"removed": 1},
        after={**gone("a"), "counters/removed": "1"},
        log=(step("a", "remove", "retention_over", ""),),
    ),
    row(
        "the end of an outage is noted",
        "a",
        before={"pulse": At(-60_000), **an_agent("a", "healthy", heard=-100, due=59_900)},
        reply={"early": 1},
        after={"outage": Now()},
    ),
    row(
        "totals are added up",
        "a",
        before={**SILENT, "counters/degraded": "41"},
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "42"},
        log=(step("a", "modify", "degraded", At(-60_500), status_before="healthy"),),
    ),
    row("200 agents are one call", *TWO_HUNDRED, before={}, reply={"early": 200}),
    row("201 agents are refused", *TWO_HUNDRED, "a", before=SILENT, reply=Error("at most 200 agents")),
    row("an argument too many is refused", "a", more=("b",), before=SILENT, reply=Error("at most 200 agents")),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_sweep(row: Row, bench: Bench) -> None:
    """Every row holds on every kind of server."""
    await bench.check(row)
