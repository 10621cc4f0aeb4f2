"""The table of sweep.lua."""

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
    removed_agent,
)

OUTCOMES = ("degraded", "expired", "removed", "not_due", "orphaned", "bad_record", "grace_granted")
WINDOW, DURATION = 60_000, 600_000
RETENTION = 600_000
SUSPENDED = ("suspended",)


def row(
    promise: str,
    *ids: str,
    before: dict[str, Expected | None],
    reply: dict[str, int] | tuple[Expected, ...] | ErrorReply,
    after: dict[str, Expected | None] | None = None,
    log: tuple[dict[str, Expected], ...] = (),
    epoch: str = "7",
    minimum: int = 10,
    more: tuple[str, ...] = (),
) -> ScriptCase:
    """One call under epoch 7, which is the epoch unless `before` says otherwise; `reply` names what is not 0."""
    counted = isinstance(reply, dict) or reply == SUSPENDED
    return ScriptCase(
        description=promise,
        script="sweep",
        agents=ids,
        args={
            "leader_epoch": epoch,
            "log_length": LOG_LENGTH,
            "retention": RETENTION,
            "window": WINDOW,
            "max_share": 50,
            "min_agents": minimum,
            "max_duration": DURATION,
            "ids…": [*ids, *more],
        },
        before={"epoch": "7", **before},
        reply=("ok", *(reply.get(word, 0) for word in OUTCOMES)) if isinstance(reply, dict) else reply,
        after={"last_probe": MsAfterCall(), **(after or {})} if counted else {},
        log=log,
    )


def step(name: str, kind: str, reason: str, heartbeat: Expected, **before: Expected) -> dict[str, Expected]:
    """One log entry."""
    return {"kind": kind, "reason": reason, "id": name, "heartbeat": heartbeat, **before}


def moved(name: str, status: str, deadline: Expected) -> dict[str, Expected | None]:
    """The cells of an agent that was moved on."""
    return {f"{name}/status": status, f"{name}/version": LAST_VERSION, f"deadlines/{name}": deadline}


SILENT = an_agent("a", "healthy", heartbeat_at=-60_500, deadline_at=-500)
# It degrades at timeout, and expires at eviction after the same heartbeat.
DEGRADED = {**moved("a", "degraded", MsAfterStart(-500 + 120_000)), "unhealthy_since/a": MsAfterCall()}
TWO_HUNDRED = [f"n{number}" for number in range(200)]

# Redis came back twenty seconds ago, after fifty in which nobody could be heard.
OUTAGE: dict[str, Expected | None] = {"outage": (MsAfterStart(-20_000), " ", MsAfterStart(-70_000))}


def graced(due: int) -> dict[str, Expected | None]:
    """The cells that grace changes."""
    return {"deadlines/a": MsAfterStart(due), "counters/grace_granted": "1"}


GRACE = [
    *(
        row(
            f"after an outage a {status} agent keeps its status, and has its timeout from the end of the outage",
            "a",
            before={**OUTAGE, **an_agent("a", status, heartbeat_at=heard, deadline_at=-500)},
            reply={"grace_granted": 1},
            after=graced(-20_000 + 60_000),
        )
        for status, heard in (("healthy", -60_500), ("degraded", -180_500), ("pending", None))
    ),
    row(
        "the grace is as long as the agent's own timeout",
        "a",
        before={
            **OUTAGE,
            **an_agent("a", "healthy", heartbeat_at=-600_500, deadline_at=-500, timeout="600000", eviction="900000"),
        },
        reply={"grace_granted": 1},
        after=graced(-20_000 + 600_000),
    ),
    row(
        "an agent whose own timeout has passed since the outage degrades",
        "a",
        before={**OUTAGE, **an_agent("a", "healthy", heartbeat_at=-30_000, deadline_at=-1000, timeout="19000")},
        reply={"degraded": 1},
        after={
            **moved("a", "degraded", MsAfterStart(-1000 - 19_000 + 180_000)),
            "unhealthy_since/a": MsAfterCall(),
            "counters/degraded": "1",
        },
        log=(step("a", "modify", "degraded", MsAfterStart(-30_000), status_before="healthy"),),
    ),
    row(
        "an agent that was heard since the outage degrades",
        "a",
        before={**OUTAGE, **an_agent("a", "healthy", heartbeat_at=-20_000, deadline_at=-500)},
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", MsAfterStart(-20_000), status_before="healthy"),),
    ),
    row(
        "retention is not forgiven",
        "a",
        before={**OUTAGE, **an_agent("a", "expired", heartbeat_at=-900_000, deadline_at=-1)},
        reply={"removed": 1},
        after={**removed_agent("a"), "counters/removed": "1"},
        log=(step("a", "remove", "retention_elapsed", MsAfterStart(-900_000)),),
    ),
    row(
        "an outage that this very sweep ends is an excuse",
        "a",
        before={
            "last_probe": MsAfterStart(-60_000),
            **an_agent("a", "healthy", heartbeat_at=-60_500, deadline_at=-500),
        },
        reply={"grace_granted": 1},
        after={
            "deadlines/a": MsAfterCall(60_000),
            "outage": (MsAfterCall(), " ", MsAfterStart(-60_000)),
            "counters/grace_granted": "1",
        },
    ),
    row(
        "a store that was opened for the first time, or lost its pulse, is an outage too",
        "a",
        before={"last_probe": None, **an_agent("a", "healthy", heartbeat_at=-60_500, deadline_at=-500)},
        reply={"grace_granted": 1},
        after={"deadlines/a": MsAfterCall(60_000), "outage": (MsAfterCall(), " "), "counters/grace_granted": "1"},
    ),
    row(
        "a missing leader is no outage: somebody pulsed a second ago",
        "a",
        before={
            "last_probe": MsAfterStart(-1000),
            **an_agent("a", "healthy", heartbeat_at=-77_000, deadline_at=-17_000),
        },
        reply={"degraded": 1},
        after={
            **moved("a", "degraded", MsAfterStart(-17_000 + 120_000)),
            "unhealthy_since/a": MsAfterCall(),
            "counters/degraded": "1",
        },
        log=(step("a", "modify", "degraded", MsAfterStart(-77_000), status_before="healthy"),),
    ),
    row(
        "an outage that nobody could have written is none",
        "a",
        before={"outage": "lately", **SILENT},
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
    ),
]


def crowd(healthy: int, lately: int = 0, before: int = 0) -> dict[str, Expected | None]:
    """Those around agent a: healthy ones, ones that fell silent within the window, ones that did so before it."""
    cells: dict[str, Expected | None] = {}
    for at in range(healthy + lately + before):
        status, ago = ("healthy", 0) if at < healthy else ("degraded", 30_000 if at < healthy + lately else 60_500)
        cells |= an_agent(f"c{at}", status, heartbeat_at=-1000 - ago, deadline_at=59_000)
        if ago:
            cells[f"unhealthy_since/c{at}"] = MsAfterStart(-ago)
    return cells


def hold(since: int, until: int, ended: int | None = None, below: int | None = None) -> dict[str, Expected | None]:
    """The cells of a hold."""
    cells: dict[str, Expected | None] = {
        "self_preservation/since": MsAfterStart(since),
        "self_preservation/until": MsAfterStart(until),
    }
    cells |= {"self_preservation/overdue": "30", "self_preservation/healthy": "40"}
    cells |= {
        f"self_preservation/{name}": MsAfterStart(at)
        for name, at in (("ended", ended), ("below_since", below))
        if at is not None
    }
    return cells


def begun(silent: int, healthy: int) -> dict[str, Expected | None]:
    """The cells of a hold that begins now, and nothing else changes."""
    return {
        "self_preservation/since": MsAfterCall(),
        "self_preservation/until": MsAfterCall(DURATION),
        "self_preservation/overdue": str(silent),
        "self_preservation/healthy": str(healthy),
        "counters/self_preservation_activations": "1",
    }


def goes(
    promise: str,
    before: dict[str, Expected | None],
    after: dict[str, Expected | None] | None = None,
    *,
    minimum: int = 10,
) -> ScriptCase:
    """Agent a, overdue, goes."""
    return row(
        promise,
        "a",
        before={**SILENT, **before},
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1", **(after or {})},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
        minimum=minimum,
    )


def stays(
    promise: str,
    before: dict[str, Expected | None],
    after: dict[str, Expected | None] | None = None,
    *,
    minimum: int = 10,
) -> ScriptCase:
    """Agent a, overdue, is held."""
    return row(promise, "a", before={**SILENT, **before}, reply=SUSPENDED, after=after, minimum=minimum)


ALL = [f"n{number}" for number in range(20)]
ALL_SILENT = {
    name: cell
    for each in ALL
    for name, cell in an_agent(each, "healthy", heartbeat_at=-60_500, deadline_at=-500).items()
}

HOLDS = [
    stays("above the share nobody goes, and a hold begins", crowd(8, 10), begun(11, 19)),
    goes("ten of twenty is the share, not above it", crowd(10, 9), {}),
    stays("eleven of twenty-one is above it", crowd(10, 10), begun(11, 21)),
    goes("below the minimum a share is no mass", crowd(0, 8), {}),
    stays("the minimum itself is a mass", crowd(0, 9), begun(10, 10)),
    stays("a lower minimum counts", crowd(0, 1), begun(2, 2), minimum=2),
    goes("who fell silent before the window does not count, on neither side", crowd(10, 9, 50), {}),
    stays("nor do they make a share smaller", crowd(8, 10, 50), begun(11, 19)),
    row(
        "of those who are overdue together nobody goes first",
        *ALL,
        before=ALL_SILENT,
        reply=SUSPENDED,
        after=begun(20, 20),
    ),
    row(
        "pending agents do not count",
        *ALL,
        before={name: cell for each in ALL for name, cell in an_agent(each, "pending", deadline_at=-500).items()},
        reply={"degraded": 20},
        after={
            **{name: cell for each in ALL for name, cell in moved(each, "degraded", MsAfterStart(119_500)).items()},
            "counters/degraded": "20",
        },
        log=tuple(step(each, "modify", "degraded", "", status_before="pending") for each in ALL),
    ),
    row(
        "agents that were degraded before do not count again as they expire",
        *ALL,
        before={
            name: cell
            for each in ALL
            for name, cell in {
                **an_agent(each, "degraded", heartbeat_at=-180_500, deadline_at=-500),
                f"unhealthy_since/{each}": MsAfterStart(-120_500),
            }.items()
        },
        reply={"expired": 20},
        after={
            **{name: cell for each in ALL for name, cell in moved(each, "expired", MsAfterCall(RETENTION)).items()},
            "counters/expired": "20",
        },
        log=tuple(step(each, "modify", "expired", MsAfterStart(-180_500), status_before="degraded") for each in ALL),
    ),
    row(
        "who has grace does not count",
        *ALL,
        before={**OUTAGE, **ALL_SILENT},
        reply={"grace_granted": 20},
        after={**{f"deadlines/{each}": MsAfterStart(40_000) for each in ALL}, "counters/grace_granted": "20"},
    ),
    stays("while it is held nobody degrades", {**hold(-1000, 599_000), **crowd(50)}),
    *(
        row(
            f"while it is held no {status} agent goes on",
            "a",
            before={**hold(-1000, 599_000), **an_agent("a", status, heartbeat_at=-900_000, deadline_at=-500)},
            reply=SUSPENDED,
        )
        for status in ("degraded", "expired", "pending")
    ),
    row(
        "while it is held a heartbeat that came first still wins, and the sweep only counts",
        "a",
        before={**hold(-1000, 599_000), **an_agent("a", "healthy", heartbeat_at=-100, deadline_at=59_900)},
        reply=SUSPENDED,
    ),
    stays(
        "a hold does not outlast its duration by a clock that went back",
        hold(3_600_000, 4_200_000),
        {"self_preservation/until": MsAfterCall(DURATION)},
    ),
    goes(
        "when its time is up they go",
        {**hold(-600_001, -1), **crowd(8, 10)},
        {"self_preservation/ended": MsAfterStart(-1)},
    ),
    goes("when it was released they go", {**hold(-1000, 599_000, ended=-10), **crowd(8, 10)}, {}),
    goes(
        "after a hold none begins while the share is above",
        {**hold(-660_000, -60_000, ended=-60_000), **crowd(8, 10)},
        {},
    ),
    goes(
        "nor does a time below the share count that was interrupted",
        {**hold(-660_000, -60_000, ended=-60_000, below=-30_000), **crowd(8, 10)},
        {"self_preservation/below_since": None},
    ),
    goes(
        "once below the share, the window begins in which it has to stay there",
        {**hold(-660_000, -60_000, ended=-60_000), **crowd(50)},
        {"self_preservation/below_since": MsAfterCall()},
    ),
    goes(
        "nearly a window below the share is not a window",
        {**hold(-660_000, -60_000, ended=-60_000, below=-55_000), **crowd(50)},
        {},
    ),
    goes(
        "a whole window below the share, and the next hold may begin",
        {**hold(-660_000, -60_000, ended=-60_000, below=-60_000), **crowd(50)},
        dict.fromkeys(hold(0, 0, ended=0, below=0)),
    ),
    goes(
        "a clock that went back does not shorten that window",
        {**hold(-660_000, -60_000, ended=-60_000, below=3_600_000), **crowd(50)},
        {"self_preservation/below_since": MsAfterCall()},
    ),
    row(
        "where nobody is overdue a hold ends all the same",
        before=hold(-600_001, -1),
        reply={},
        after={"self_preservation/ended": MsAfterStart(-1), "self_preservation/below_since": MsAfterCall()},
    ),
]

ROWS = [
    row(
        "a healthy agent past its deadline degrades",
        "a",
        before=SILENT,
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
    ),
    row(
        "a pending agent runs on the same clock, and does not count as silent",
        "a",
        before=an_agent("a", "pending", deadline_at=-500),
        reply={"degraded": 1},
        after={**moved("a", "degraded", MsAfterStart(-500 + 120_000)), "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", "", status_before="pending"),),
    ),
    row(
        "a degraded agent expires, its retention begins, and it has been silent as long as before",
        "a",
        before={
            **an_agent("a", "degraded", heartbeat_at=-180_500, deadline_at=-500),
            "unhealthy_since/a": MsAfterStart(-120_500),
        },
        reply={"expired": 1},
        after={**moved("a", "expired", MsAfterCall(RETENTION)), "counters/expired": "1"},
        log=(step("a", "modify", "expired", MsAfterStart(-180_500), status_before="degraded"),),
    ),
    row(
        "what a removed agent could not do without is counted no more, that of an expired one is",
        "a",
        "b",
        before={
            **an_agent("a", "expired", heartbeat_at=-900_000, deadline_at=-1, required_edges="c d\nc e"),
            **an_agent("b", "degraded", heartbeat_at=-180_500, deadline_at=-500, required_edges="c d"),
            "required_edges/c d": "2",
            "required_edges/c e": "1",
            "required_edges/revision": "5",
        },
        reply={"removed": 1, "expired": 1},
        after={
            **removed_agent("a", required_edges=""),
            **moved("b", "expired", MsAfterCall(RETENTION)),
            "counters/removed": "1",
            "counters/expired": "1",
            "required_edges/c d": "1",
            "required_edges/c e": None,
        },
        log=(
            step("a", "remove", "retention_elapsed", MsAfterStart(-900_000)),
            step("b", "modify", "expired", MsAfterStart(-180_500), status_before="degraded"),
        ),
    ),
    row(
        "an expired agent is removed, and the log carries it as it was",
        "a",
        before={
            **an_agent("a", "expired", heartbeat_at=-900_000, deadline_at=-1, draining="1", owner="team-a"),
            "unhealthy_since/a": MsAfterStart(-840_000),
        },
        reply={"removed": 1},
        after={**removed_agent("a", owner=""), "counters/removed": "1"},
        log=(step("a", "remove", "retention_elapsed", MsAfterStart(-900_000)),),
    ),
    row(
        "an agent overdue for long moves one step at a time",
        "a",
        before=an_agent("a", "healthy", heartbeat_at=-999_000, deadline_at=-939_000),
        reply={"degraded": 1},
        after={
            **moved("a", "degraded", MsAfterStart(-939_000 + 120_000)),
            "unhealthy_since/a": MsAfterCall(),
            "counters/degraded": "1",
        },
        log=(step("a", "modify", "degraded", MsAfterStart(-999_000), status_before="healthy"),),
    ),
    row(
        "one id twice moves twice only where both steps are due",
        "a",
        "a",
        "b",
        "b",
        before={
            **an_agent("a", "healthy", heartbeat_at=-999_000, deadline_at=-939_000),
            **an_agent("b", "healthy", heartbeat_at=-61_000, deadline_at=-1000),
        },
        reply={"degraded": 2, "expired": 1, "not_due": 1},
        after={
            **moved("a", "expired", MsAfterCall(RETENTION)),
            **moved("b", "degraded", MsAfterStart(119_000)),
            "unhealthy_since/a": MsAfterCall(),
            "unhealthy_since/b": MsAfterCall(),
            "counters/degraded": "2",
            "counters/expired": "1",
        },
        log=(
            step("a", "modify", "degraded", MsAfterStart(-999_000), status_before="healthy"),
            step("a", "modify", "expired", MsAfterStart(-999_000), status_before="degraded"),
            step("b", "modify", "degraded", MsAfterStart(-61_000), status_before="healthy"),
        ),
    ),
    row(
        "each agent fares by itself, and each change has a version of its own",
        *("a", "b", "c", "d", "e", "f", "g"),
        before={
            "outage": (MsAfterStart(-65_000), " ", MsAfterStart(-90_000)),
            **an_agent(
                "g", "healthy", heartbeat_at=-700_000, deadline_at=-100_000, timeout="600000", eviction="900000"
            ),
            **SILENT,
            **an_agent("b", "degraded", heartbeat_at=-180_000, deadline_at=-10),
            **an_agent("c", "expired", heartbeat_at=-900_000, deadline_at=-10),
            **an_agent("d", "healthy", heartbeat_at=-10, deadline_at=59_990),
            "deadlines/e": MsAfterStart(-10),
            "f": "not a hash",
            "deadlines/f": MsAfterStart(-10),
        },
        reply=dict.fromkeys(OUTCOMES, 1),
        after={
            **DEGRADED,
            **moved("b", "expired", MsAfterCall(RETENTION)),
            **removed_agent("c"),
            "deadlines/e": None,
            "deadlines/f": MsAfterCall(RETENTION),
            "deadlines/g": MsAfterStart(-65_000 + 600_000),
            "counters/grace_granted": "1",
            "counters/degraded": "1",
            "counters/expired": "1",
            "counters/removed": "1",
        },
        log=(
            step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),
            step("b", "modify", "expired", MsAfterStart(-180_000), status_before="degraded"),
            step("c", "remove", "retention_elapsed", MsAfterStart(-900_000)),
        ),
    ),
    row(
        "a heartbeat that came first wins",
        "a",
        before=an_agent("a", "healthy", heartbeat_at=-100, deadline_at=59_900),
        reply={"not_due": 1},
    ),
    row(
        "who has no deadline is not due", "a", before=an_agent("a", "healthy", heartbeat_at=-100), reply={"not_due": 1}
    ),
    row(
        "a deadline without an agent is dropped, with its heartbeat",
        "a",
        before={
            "deadlines/a": MsAfterStart(-10),
            "heartbeats/a": MsAfterStart(-60_010),
            "unhealthy_since/a": MsAfterStart(-10),
            "deadlines/b": MsAfterStart(-10),
        },
        reply={"orphaned": 1},
        after={"deadlines/a": None, "heartbeats/a": None, "unhealthy_since/a": None},
    ),
    row(
        "a deadline without an agent that is not due yet stays",
        "a",
        before={"deadlines/a": MsAfterStart(60_000)},
        reply={"not_due": 1},
    ),
    *(
        row(
            f"an agent {what} is put off",
            "a",
            before={"deadlines/a": MsAfterStart(-10), **before},
            reply={"bad_record": 1},
            after={"deadlines/a": MsAfterCall(RETENTION)},
        )
        for what, before in (
            ("whose key is no hash", {"a": "not a hash"}),
            ("without a timeout", an_agent("a", "healthy", deadline_at=-10) | {"a/timeout": None}),
            ("without an eviction", an_agent("a", "healthy", deadline_at=-10) | {"a/eviction": None}),
            ("with a timeout that is no number", an_agent("a", "healthy", deadline_at=-10, timeout="soon")),
        )
    ),
    row(
        "a version ahead of the clock goes on by one",
        "a",
        before={**SILENT, "version": MsAfterStart(3_600_000), "log": (MsAfterStart(3_600_000),)},
        reply={"degraded": 1},
        after={**DEGRADED, "a/version": MsAfterStart(3_600_001), "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
    ),
    row("a stale epoch writes nothing, not even the pulse", "a", before=SILENT, epoch="6", reply=("stale_epoch", "7")),
    row("an epoch from nowhere is stale", "a", before={**SILENT, "epoch": None}, reply=("stale_epoch", "0")),
    row(
        "epoch 0 sweeps where none was ever taken",
        "a",
        before={"epoch": None, **an_agent("a", "expired", deadline_at=-10)},
        epoch="0",
        reply={"removed": 1},
        after={**removed_agent("a"), "counters/removed": "1"},
        log=(step("a", "remove", "retention_elapsed", ""),),
    ),
    row(
        "the end of an outage is noted",
        "a",
        before={"last_probe": MsAfterStart(-60_000), **an_agent("a", "healthy", heartbeat_at=-100, deadline_at=59_900)},
        reply={"not_due": 1},
        after={"outage": (MsAfterCall(), " ", MsAfterStart(-60_000))},
    ),
    row(
        "a clock that went back is noted",
        "a",
        before={"last_probe": MsAfterStart(60_000), **an_agent("a", "healthy", heartbeat_at=-100, deadline_at=59_900)},
        reply={"not_due": 1},
        after={"outage": (MsAfterCall(), " ", MsAfterStart(60_000)), "clock_rollback": MsAfterCall()},
    ),
    row(
        "totals are added up",
        "a",
        before={**SILENT, "counters/degraded": "41"},
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "42"},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
    ),
    row("200 agents are one call", *TWO_HUNDRED, before={}, reply={"not_due": 200}),
    row("201 agents are refused", *TWO_HUNDRED, "a", before=SILENT, reply=ErrorReply("at most 200 agents")),
    row("an argument too many is refused", "a", more=("b",), before=SILENT, reply=ErrorReply("at most 200 agents")),
]


ROWS += [*GRACE, *HOLDS]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_sweep(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)
