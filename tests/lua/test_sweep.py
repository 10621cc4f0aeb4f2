"""The table of test cases of sweep.lua."""

import pytest

from tests.lua.script_harness import (
    LAST_VERSION,
    LOG_LIMITS,
    Cells,
    ErrorReply,
    Expected,
    MsAfterCall,
    MsAfterStart,
    ScriptCase,
    ScriptHarness,
    a_period,
    an_agent,
    removed_agent,
)

OUTCOMES = ("degraded", "expired", "removed", "not_due", "orphaned", "bad_record", "grace_granted", "suspended")
WINDOW, DURATION = 60_000, 600_000
RETENTION = 600_000


def row(
    description: str,
    *ids: str,
    before: Cells,
    reply: dict[str, int] | tuple[Expected, ...] | ErrorReply,
    after: Cells | None = None,
    log: tuple[dict[str, Expected], ...] = (),
    epoch: str = "7",
    minimum: int = 10,
    more: tuple[str, ...] = (),
) -> ScriptCase:
    """Return a row with one call under epoch 7, stored too unless in `before`; `reply` has the non-zero counts."""
    return ScriptCase(
        description=description,
        script="sweep",
        agents=ids,
        args={
            "leader_epoch": epoch,
            "log_limits": LOG_LIMITS,
            "seen_version": 0,
            "retention": RETENTION,
            "window": WINDOW,
            "max_share": 50,
            "min_agents": minimum,
            "max_duration": DURATION,
            "ids…": [*ids, *more],
        },
        before={"epoch": "7", **before},
        reply=("ok", *(reply.get(word, 0) for word in OUTCOMES)) if isinstance(reply, dict) else reply,
        after=after or {},
        log=log,
    )


def step(name: str, kind: str, reason: str, heartbeat: Expected, **before: Expected) -> dict[str, Expected]:
    """Return the fields of one log entry."""
    return {"kind": kind, "reason": reason, "id": name, "heartbeat": heartbeat, **before}


def transitioned(name: str, status: str, deadline: Expected) -> Cells:
    """Return the cells of an agent after a transition."""
    return {f"{name}/status": status, f"{name}/version": LAST_VERSION, f"deadlines/{name}": deadline}


OVERDUE = an_agent("a", "healthy", heartbeat_at=-60_500, deadline_at=-500)
# It degrades at the timeout, and expires at the eviction after the same heartbeat.
DEGRADED = {**transitioned("a", "degraded", MsAfterStart(-500 + 120_000)), "unhealthy_since/a": MsAfterCall()}
TWO_HUNDRED = [f"n{number}" for number in range(200)]

# Redis recovered twenty seconds ago, after fifty seconds in which it received no heartbeats.
OUTAGE: Cells = {"outage": (MsAfterStart(-20_000), " ", MsAfterStart(-70_000))}


def lag(ended: int, length: int, at: int = 0) -> Cells:
    """Return the cells of an outage of the replicas themselves; 0 is the latest."""
    return {f"lags/{at}": (MsAfterStart(ended), " ", MsAfterStart(ended - length), f" {length}")}


def with_grace(due: int) -> Cells:
    """Return the cells that the grace period changes."""
    return {"deadlines/a": MsAfterStart(due), "counters/grace_granted": "1"}


GRACE = [
    *(
        row(
            f"after an outage a {status} agent keeps its status, and has its timeout from the end of the outage",
            "a",
            before={**OUTAGE, **an_agent("a", status, heartbeat_at=heartbeat, deadline_at=-500)},
            reply={"grace_granted": 1},
            after=with_grace(-20_000 + 60_000),
        )
        for status, heartbeat in (("healthy", -60_500), ("degraded", -180_500), ("pending", None))
    ),
    row(
        "the grace is as long as the agent's own timeout",
        "a",
        before={
            **OUTAGE,
            **an_agent("a", "healthy", heartbeat_at=-600_500, deadline_at=-500, timeout="600000", eviction="900000"),
        },
        reply={"grace_granted": 1},
        after=with_grace(-20_000 + 600_000),
    ),
    row(
        "an agent whose own timeout has passed since the outage degrades",
        "a",
        before={**OUTAGE, **an_agent("a", "healthy", heartbeat_at=-30_000, deadline_at=-1000, timeout="19000")},
        reply={"degraded": 1},
        after={
            **transitioned("a", "degraded", MsAfterStart(-1000 - 19_000 + 180_000)),
            "unhealthy_since/a": MsAfterCall(),
            "counters/degraded": "1",
        },
        log=(step("a", "modify", "degraded", MsAfterStart(-30_000), status_before="healthy"),),
    ),
    row(
        "an agent with a heartbeat since the outage degrades",
        "a",
        before={**OUTAGE, **an_agent("a", "healthy", heartbeat_at=-20_000, deadline_at=-500)},
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", MsAfterStart(-20_000), status_before="healthy"),),
    ),
    row(
        "retention is not extended",
        "a",
        before={**OUTAGE, **an_agent("a", "expired", heartbeat_at=-900_000, deadline_at=-1)},
        reply={"removed": 1},
        after={**removed_agent("a"), "counters/removed": "1"},
        log=(step("a", "remove", "retention_elapsed", MsAfterStart(-900_000)),),
    ),
    row(
        "a store probe more than five seconds ago may be an outage that the next probe records: nothing changes",
        "a",
        before={
            "last_probe": MsAfterStart(-60_000),
            **an_agent("a", "healthy", heartbeat_at=-60_500, deadline_at=-500),
        },
        reply=("no_probe",),
    ),
    *(
        row(
            f"nothing changes {problem}",
            "a",
            before={"last_probe": probe, **an_agent("a", "healthy", heartbeat_at=-60_500, deadline_at=-500)},
            reply=("no_probe",),
        )
        for problem, probe in (
            ("in a store without a probe, new or after a loss", None),
            ("after a probe from the future, because the clock went back", MsAfterStart(60_000)),
        )
    ),
    *(
        row(
            f"after a lag a {status} agent has as much time as it lasted",
            "a",
            before={**lag(-20_000, 13_000), **an_agent("a", status, heartbeat_at=heartbeat, deadline_at=-500)},
            reply={"grace_granted": 1},
            after=with_grace(-500 + 13_000),
        )
        for status, heartbeat in (("healthy", -60_500), ("degraded", -180_500))
    ),
    row(
        "without a heartbeat the time begins with the registration",
        "a",
        before={
            **lag(-20_000, 13_000),
            **an_agent("a", "pending", deadline_at=-500),
            "a/updated": MsAfterStart(-60_500),
        },
        reply={"grace_granted": 1},
        after=with_grace(-500 + 13_000),
    ),
    row(
        "only the part of a lag after the last heartbeat counts",
        "a",
        before={**lag(-55_000, 13_000), **an_agent("a", "healthy", heartbeat_at=-60_500, deadline_at=-500)},
        reply={"grace_granted": 1},
        after=with_grace(-500 + 5500),
    ),
    row(
        "a lag before the last heartbeat does not count",
        "a",
        before={**lag(-60_500, 13_000), **an_agent("a", "healthy", heartbeat_at=-60_500, deadline_at=-500)},
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
    ),
    row(
        "the time of a lag is given once",
        "a",
        before={**lag(-20_000, 13_000), **an_agent("a", "healthy", heartbeat_at=-73_500, deadline_at=-500)},
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", MsAfterStart(-73_500), status_before="healthy"),),
    ),
    row(
        "several lags add up, and so an agent expires although replicas are delayed again and again",
        "a",
        before={
            **lag(-2000, 6000),
            **lag(-10_000, 6000, at=1),
            **an_agent("a", "healthy", heartbeat_at=-71_000, deadline_at=-500),
        },
        reply={"grace_granted": 1},
        after=with_grace(-71_000 + 60_000 + 12_000),
    ),
    row(
        "retention is not extended by a lag",
        "a",
        before={**lag(-20_000, 13_000), **an_agent("a", "expired", heartbeat_at=-900_000, deadline_at=-1)},
        reply={"removed": 1},
        after={**removed_agent("a"), "counters/removed": "1"},
        log=(step("a", "remove", "retention_elapsed", MsAfterStart(-900_000)),),
    ),
    row(
        "an invalid lag is ignored",
        "a",
        before={"lags/0": "invalid", **OVERDUE},
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
    ),
    row(
        "a missing leader is no outage if a replica probed a second ago",
        "a",
        before={
            "last_probe": MsAfterStart(-1000),
            **an_agent("a", "healthy", heartbeat_at=-77_000, deadline_at=-17_000),
        },
        reply={"degraded": 1},
        after={
            **transitioned("a", "degraded", MsAfterStart(-17_000 + 120_000)),
            "unhealthy_since/a": MsAfterCall(),
            "counters/degraded": "1",
        },
        log=(step("a", "modify", "degraded", MsAfterStart(-77_000), status_before="healthy"),),
    ),
    row(
        "an invalid outage is ignored",
        "a",
        before={"outage": "invalid", **OVERDUE},
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
    ),
]


def in_namespace(namespace: str, cells: Cells) -> Cells:
    """Return the cells of agents with their namespace."""
    names = {name.partition("/")[0] for name in cells if name.endswith("/status")}
    return cells | {f"{name}/namespace": namespace for name in names}


def other_agents(healthy: int, recent: int = 0, before: int = 0) -> Cells:
    """Return other agents: healthy ones, ones unhealthy since within the window, and ones unhealthy for longer."""
    cells: Cells = {}
    for at in range(healthy + recent + before):
        status, ago = ("healthy", 0) if at < healthy else ("degraded", 30_000 if at < healthy + recent else 60_500)
        cells |= an_agent(f"c{at}", status, heartbeat_at=-1000 - ago, deadline_at=59_000)
        if ago:
            cells[f"unhealthy_since/c{at}"] = MsAfterStart(-ago)
    return cells


def active(since: int, until: int, ended: int | None = None, below: int | None = None) -> Cells:
    """Return the cells of self-preservation of the agents without a namespace."""
    ended_at, below_since = ("-" if at is None else MsAfterStart(at) for at in (ended, below))
    return a_period("?", MsAfterStart(since), MsAfterStart(until), ended_at, below_since)


def started(overdue: int, healthy: int, name: str = "?") -> Cells:
    """Return the cells of self-preservation that starts now."""
    return {
        **a_period(name, MsAfterCall(), MsAfterCall(DURATION), numbers=(overdue, healthy)),
        "counters/self_preservation_activations": "1",
    }


def suspended(*names: str) -> Cells:
    """Return the cells of overdue agents that the sweep has suspended."""
    cells: Cells = {f"deadlines/{name}": None for name in names}
    return cells | {f"suspended/{name}": MsAfterStart(-500) for name in names}


def degrades(
    description: str,
    before: Cells,
    after: Cells | None = None,
    *,
    minimum: int = 10,
) -> ScriptCase:
    """Return a row in which the overdue agent a degrades."""
    return row(
        description,
        "a",
        before={**OVERDUE, **before},
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1", **(after or {})},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
        minimum=minimum,
    )


def stays(
    description: str,
    before: Cells,
    after: Cells | None = None,
    *,
    minimum: int = 10,
) -> ScriptCase:
    """Return a row in which the overdue agent a is suspended."""
    return row(
        description,
        "a",
        before={**OVERDUE, **before},
        reply={"suspended": 1},
        after={**suspended("a"), **(after or {})},
        minimum=minimum,
    )


ALL = [f"n{number}" for number in range(20)]
ALL_OVERDUE = {
    name: cell
    for each in ALL
    for name, cell in an_agent(each, "healthy", heartbeat_at=-60_500, deadline_at=-500).items()
}

SELF_PRESERVATION = [
    stays("above the share no agent is changed, and self-preservation starts", other_agents(8, 10), started(11, 19)),
    degrades("ten of twenty is the share, not above it", other_agents(10, 9), {}),
    stays("eleven of twenty-one is above it", other_agents(10, 10), started(11, 21)),
    degrades("below the minimum a share does not count", other_agents(0, 8), {}),
    stays("the minimum itself counts", other_agents(0, 9), started(10, 10)),
    stays("a lower minimum is used", other_agents(0, 1), started(2, 2), minimum=2),
    degrades("agents unhealthy before the window count on neither side", other_agents(10, 9, 50), {}),
    stays("agents unhealthy before the window do not lower the share", other_agents(8, 10, 50), started(11, 19)),
    row(
        "of agents overdue at the same time none is changed first",
        *ALL,
        before=ALL_OVERDUE,
        reply={"suspended": 20},
        after={**suspended(*ALL), **started(20, 20)},
    ),
    row(
        "pending agents do not count",
        *ALL,
        before={name: cell for each in ALL for name, cell in an_agent(each, "pending", deadline_at=-500).items()},
        reply={"degraded": 20},
        after={
            **{
                name: cell
                for each in ALL
                for name, cell in transitioned(each, "degraded", MsAfterStart(119_500)).items()
            },
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
            **{
                name: cell
                for each in ALL
                for name, cell in transitioned(each, "expired", MsAfterCall(RETENTION)).items()
            },
            "counters/expired": "20",
        },
        log=tuple(step(each, "modify", "expired", MsAfterStart(-180_500), status_before="degraded") for each in ALL),
    ),
    row(
        "agents with a grace period do not count",
        *ALL,
        before={**OUTAGE, **ALL_OVERDUE},
        reply={"grace_granted": 20},
        after={**{f"deadlines/{each}": MsAfterStart(40_000) for each in ALL}, "counters/grace_granted": "20"},
    ),
    stays("during self-preservation no agent degrades", {**active(-1000, 599_000), **other_agents(50)}),
    *(
        row(
            f"during self-preservation no {status} agent is changed",
            "a",
            before={**active(-1000, 599_000), **an_agent("a", status, heartbeat_at=-900_000, deadline_at=-500)},
            reply={"suspended": 1},
            after=suspended("a"),
        )
        for status in ("degraded", "expired", "pending")
    ),
    row(
        "during self-preservation an earlier heartbeat still counts",
        "a",
        before={**active(-1000, 599_000), **an_agent("a", "healthy", heartbeat_at=-100, deadline_at=59_900)},
        reply={"not_due": 1},
    ),
    degrades("after its duration agents degrade", {**active(-600_001, -1), **other_agents(50)}),
    degrades("after it was ended agents degrade", {**active(-1000, 599_000, ended=-10), **other_agents(8, 10)}),
    degrades(
        "after self-preservation no other starts while the share is above",
        {**active(-660_000, -60_000, ended=-60_000), **other_agents(8, 10)},
    ),
    degrades(
        "an interrupted time below the share does not count",
        {**active(-660_000, -60_000, ended=-60_000, below=-30_000), **other_agents(8, 10)},
        active(-660_000, -60_000, ended=-60_000),
    ),
    row(
        "the agents of one namespace start no self-preservation in another",
        *ALL,
        "a",
        before={**in_namespace("evil", ALL_OVERDUE), **in_namespace("finance", OVERDUE)},
        reply={"degraded": 1, "suspended": 20},
        after={**suspended(*ALL), **started(20, 20, "evil"), **DEGRADED, "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
    ),
    row(
        "the healthy agents of one namespace do not lower the share of another",
        *ALL,
        before={**in_namespace("evil", ALL_OVERDUE), **in_namespace("finance", other_agents(50))},
        reply={"suspended": 20},
        after={**suspended(*ALL), **started(20, 20, "evil")},
    ),
    stays(
        "while the whole mesh is in self-preservation no agent of any namespace is changed",
        {**a_period("*", MsAfterStart(-1000), MsAfterStart(599_000)), **other_agents(50)},
    ),
    degrades(
        "after that of the whole mesh agents degrade",
        {**a_period("*", MsAfterStart(-1000), MsAfterStart(599_000), MsAfterStart(-10)), **other_agents(50)},
    ),
]

ROWS = [
    row(
        "a healthy agent past its deadline degrades",
        "a",
        before=OVERDUE,
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
    ),
    row(
        "a pending agent has the same deadlines, and does not count as unhealthy",
        "a",
        before=an_agent("a", "pending", deadline_at=-500),
        reply={"degraded": 1},
        after={**transitioned("a", "degraded", MsAfterStart(-500 + 120_000)), "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", "", status_before="pending"),),
    ),
    row(
        "a degraded agent expires, its retention starts, and it stays unhealthy since the same time",
        "a",
        before={
            **an_agent("a", "degraded", heartbeat_at=-180_500, deadline_at=-500),
            "unhealthy_since/a": MsAfterStart(-120_500),
        },
        reply={"expired": 1},
        after={**transitioned("a", "expired", MsAfterCall(RETENTION)), "counters/expired": "1"},
        log=(step("a", "modify", "expired", MsAfterStart(-180_500), status_before="degraded"),),
    ),
    row(
        "the required edges of a removed agent are not counted any more, those of an expired one are",
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
            **transitioned("b", "expired", MsAfterCall(RETENTION)),
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
        "an expired agent is removed, and the log has its last state",
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
        "an agent overdue for long changes one status at a time",
        "a",
        before=an_agent("a", "healthy", heartbeat_at=-999_000, deadline_at=-939_000),
        reply={"degraded": 1},
        after={
            **transitioned("a", "degraded", MsAfterStart(-939_000 + 120_000)),
            "unhealthy_since/a": MsAfterCall(),
            "counters/degraded": "1",
        },
        log=(step("a", "modify", "degraded", MsAfterStart(-999_000), status_before="healthy"),),
    ),
    row(
        "a repeated id is changed twice only if both steps are due",
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
            **transitioned("a", "expired", MsAfterCall(RETENTION)),
            **transitioned("b", "degraded", MsAfterStart(119_000)),
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
        "each agent is handled separately, and each change has its own version",
        *("a", "b", "c", "d", "e", "f", "g"),
        before={
            "outage": (MsAfterStart(-65_000), " ", MsAfterStart(-90_000)),
            **an_agent(
                "g", "healthy", heartbeat_at=-700_000, deadline_at=-100_000, timeout="600000", eviction="900000"
            ),
            **OVERDUE,
            **an_agent("b", "degraded", heartbeat_at=-180_000, deadline_at=-10),
            **an_agent("c", "expired", heartbeat_at=-900_000, deadline_at=-10),
            **an_agent("d", "healthy", heartbeat_at=-10, deadline_at=59_990),
            "deadlines/e": MsAfterStart(-10),
            "f": "not a hash",
            "deadlines/f": MsAfterStart(-10),
        },
        reply={**dict.fromkeys(OUTCOMES, 1), "suspended": 0},
        after={
            **DEGRADED,
            **transitioned("b", "expired", MsAfterCall(RETENTION)),
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
        "an earlier heartbeat prevents a transition",
        "a",
        before=an_agent("a", "healthy", heartbeat_at=-100, deadline_at=59_900),
        reply={"not_due": 1},
    ),
    row(
        "an agent without a deadline is not due",
        "a",
        before=an_agent("a", "healthy", heartbeat_at=-100),
        reply={"not_due": 1},
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
            f"an agent {problem} is checked again later",
            "a",
            before={"deadlines/a": MsAfterStart(-10), **before},
            reply={"bad_record": 1},
            after={"deadlines/a": MsAfterCall(RETENTION)},
        )
        for problem, before in (
            ("whose key is no hash", {"a": "not a hash"}),
            ("without a timeout", an_agent("a", "healthy", deadline_at=-10) | {"a/timeout": None}),
            ("without an eviction", an_agent("a", "healthy", deadline_at=-10) | {"a/eviction": None}),
            ("with a timeout that is no number", an_agent("a", "healthy", deadline_at=-10, timeout="soon")),
        )
    ),
    row(
        "a version ahead of the clock is raised by one",
        "a",
        before={**OVERDUE, "version": MsAfterStart(3_600_000), "log": (MsAfterStart(3_600_000),)},
        reply={"degraded": 1},
        after={**DEGRADED, "a/version": MsAfterStart(3_600_001), "counters/degraded": "1"},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
    ),
    row(
        "a stale epoch writes nothing, not even the store probe",
        "a",
        before=OVERDUE,
        epoch="6",
        reply=("stale_epoch", "7"),
    ),
    row("an unknown epoch is stale", "a", before={**OVERDUE, "epoch": None}, reply=("stale_epoch", "0")),
    row(
        "epoch 0 sweeps if there was never another",
        "a",
        before={"epoch": None, **an_agent("a", "expired", deadline_at=-10)},
        epoch="0",
        reply={"removed": 1},
        after={**removed_agent("a"), "counters/removed": "1"},
        log=(step("a", "remove", "retention_elapsed", ""),),
    ),
    row(
        "totals are added up",
        "a",
        before={**OVERDUE, "counters/degraded": "41"},
        reply={"degraded": 1},
        after={**DEGRADED, "counters/degraded": "42"},
        log=(step("a", "modify", "degraded", MsAfterStart(-60_500), status_before="healthy"),),
    ),
    row("200 agents are one call", *TWO_HUNDRED, before={}, reply={"not_due": 200}),
    row("201 agents are rejected", *TWO_HUNDRED, "a", before=OVERDUE, reply=ErrorReply("at most 200 agents")),
    row("one argument too many is rejected", "a", more=("b",), before=OVERDUE, reply=ErrorReply("at most 200 agents")),
]


ROWS += [*GRACE, *SELF_PRESERVATION]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_sweep(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
