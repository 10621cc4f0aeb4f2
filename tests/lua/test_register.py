"""The table of register.lua."""

import pytest

from registry.store.scripts import ArgumentValue
from tests.lua.script_harness import (
    LAST_VERSION,
    LOG_LENGTH,
    Expected,
    MsAfterCall,
    MsAfterStart,
    ScriptCase,
    ScriptHarness,
    an_agent,
)

SPEC = '{"endpoint":"http://a"}'
OTHER = '{"endpoint":"http://other"}'
HEALTHY = an_agent("a", "healthy", heartbeat_at=-5000, deadline_at=55_000)
CHANGED: dict[str, Expected | None] = {
    "a/version": LAST_VERSION,
    "a/spec_version": LAST_VERSION,
    "a/updated": MsAfterCall(),
}
BEATEN: dict[str, Expected | None] = {
    "heartbeats/a": MsAfterCall(),
    "deadlines/a": MsAfterCall(60_000),
    "counters/registrations": "1",
}
NEW: dict[str, Expected | None] = {
    **CHANGED,
    "a/spec": SPEC,
    "a/status": "pending",
    "a/draining": "0",
    "a/created": MsAfterCall(),
    "a/timeout": "60000",
    "a/eviction": "180000",
    "deadlines/a": MsAfterCall(60_000),
    "counters/registrations": "1",
}


def row(
    promise: str,
    *,
    before: dict[str, Expected | None],
    reply: tuple[Expected, ...],
    after: dict[str, Expected | None] | None = None,
    log: dict[str, Expected] | None = None,
    **args: ArgumentValue,
) -> ScriptCase:
    """One registration of agent a; by default as it is stored."""
    given: dict[str, ArgumentValue] = {
        "id": "a",
        "spec": SPEC,
        "timeout": 60_000,
        "eviction": 180_000,
        "precondition": "",
        "counts_as_heartbeat": 0,
        "edges": "",
        "edges_revision": "",
        "log_length": LOG_LENGTH,
    }
    return ScriptCase(
        description=promise,
        script="register",
        agents=("a",),
        args=given | args,
        before=before,
        reply=reply,
        after=after or {},
        log=({"id": "a", **log},) if log else (),
    )


def entry(kind: str, reason: str, heartbeat: Expected = MsAfterCall(), **before: str) -> dict[str, Expected]:  # noqa: B008 - frozen
    """One log entry."""
    return {"kind": kind, "reason": reason, "heartbeat": heartbeat, **before}


def held(promise: str, precondition: str) -> ScriptCase:
    """A precondition that holds for agent a, whose spec is of version 800 and which is at 900."""
    return row(
        promise,
        before=HEALTHY,
        spec=OTHER,
        precondition=precondition,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **BEATEN, "a/spec": OTHER},
        log=entry("modify", "updated", spec_before=SPEC),
    )


def stale(
    promise: str, precondition: str, current: str, before: dict[str, Expected | None], spec: str = OTHER
) -> ScriptCase:
    """A precondition that does not hold: nothing is written."""
    return row(promise, before=before, spec=spec, precondition=precondition, reply=("stale_version", current))


ADDED = entry("add", "registered", "")
UPDATED = {**CHANGED, **BEATEN}


def requiring(*edges: str) -> dict[str, Expected | None]:
    """A healthy agent a that cannot do without these, which are counted for it and for another."""
    counted: dict[str, Expected | None] = {f"required_edges/{edge}": "2" for edge in edges}
    return {**HEALTHY, "a/required_edges": "\n".join(edges), **counted, "required_edges/revision": "5"}


EDGES = [
    row(
        "an edge that nobody has is let in with the number it was checked against, which it raises",
        before={"required_edges/x y": "1", "required_edges/revision": "5"},
        edges="c d",
        edges_revision="5",
        reply=("created", LAST_VERSION),
        after={**NEW, "a/required_edges": "c d", "required_edges/c d": "1", "required_edges/revision": "6"},
        log=ADDED,
    ),
    row(
        "each of several new edges raises the number",
        before={"required_edges/c d": "1", "required_edges/revision": "5"},
        edges="c d\nc e\nc f",
        edges_revision="5",
        reply=("created", LAST_VERSION),
        after={
            **NEW,
            "a/required_edges": "c d\nc e\nc f",
            "required_edges/c d": "2",
            "required_edges/c e": "1",
            "required_edges/c f": "1",
            "required_edges/revision": "7",
        },
        log=ADDED,
    ),
    row(
        "the first edge of all is let in with the number 0",
        before={},
        edges="c%20d e",
        edges_revision="0",
        reply=("created", LAST_VERSION),
        after={**NEW, "a/required_edges": "c%20d e", "required_edges/c%20d e": "1", "required_edges/revision": "1"},
        log=ADDED,
    ),
    *(
        row(
            f"an edge that nobody has is refused where {why}",
            before={"required_edges/c e": "1", **({"required_edges/revision": number} if number else {})},
            edges="c d\nc e",
            edges_revision=seen,
            reply=("edges_changed",),
        )
        for why, number, seen in (
            ("another came in since", "6", "5"),
            ("it was not checked", "6", ""),
            ("it was not checked, though there is none yet", None, ""),
            ("the number was lost since", None, "5"),
        )
    ),
    row(
        "a new edge of an agent that is there is refused likewise",
        before=requiring("c d"),
        edges="c d\nc e",
        edges_revision="4",
        reply=("edges_changed",),
    ),
    row(
        "an edge that somebody has needs no check, and raises nothing",
        before={"required_edges/c d": "1", "required_edges/revision": "5"},
        edges="c d",
        reply=("created", LAST_VERSION),
        after={**NEW, "a/required_edges": "c d", "required_edges/c d": "2"},
        log=ADDED,
    ),
    row(
        "the precondition comes before the edges",
        before=requiring("c d"),
        edges="c e",
        precondition="absent",
        reply=("stale_version", "900"),
    ),
    row(
        "the same edges are a heartbeat",
        before=requiring("c d"),
        edges="c d",
        reply=("unchanged", "900"),
        after=BEATEN,
    ),
    row(
        "of edges that are replaced only what differs is counted",
        before={**requiring("c d", "c e"), "required_edges/c f": "3"},
        spec=OTHER,
        edges="c e\nc f",
        reply=("updated", LAST_VERSION),
        after={
            **UPDATED,
            "a/spec": OTHER,
            "a/required_edges": "c e\nc f",
            "required_edges/c d": "1",
            "required_edges/c f": "4",
        },
        log=entry("modify", "updated", spec_before=SPEC),
    ),
    row(
        "an edge whose last agent does without it is gone, and new when it comes back",
        before={**HEALTHY, "a/required_edges": "c d", "required_edges/c d": "1", "required_edges/revision": "5"},
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={**UPDATED, "a/spec": OTHER, "a/required_edges": "", "required_edges/c d": None},
        log=entry("modify", "updated", spec_before=SPEC),
    ),
    row(
        "edges outlive a recovery",
        before={**requiring("c d"), "a/status": "degraded"},
        edges="c d",
        reply=("unchanged", LAST_VERSION),
        after={**BEATEN, "a/status": "healthy", "a/version": LAST_VERSION},
        log=entry("modify", "recovered", status_before="degraded"),
    ),
    row(
        "an agent of a release that counted nothing is counted when it registers again",
        before=HEALTHY,
        edges="c d",
        edges_revision="0",
        reply=("updated", LAST_VERSION),
        after={**UPDATED, "a/required_edges": "c d", "required_edges/c d": "1", "required_edges/revision": "1"},
        log=entry("modify", "updated"),
    ),
    row(
        "what a damaged record was counted for is counted no more",
        before={**requiring("c d", "c e"), "a/spec": None},
        edges="c e",
        reply=("created", LAST_VERSION),
        after={**NEW, "a/required_edges": "c e", "heartbeats/a": None, "required_edges/c d": "1"},
        log=ADDED,
    ),
    row(
        "a damaged record that requires nothing any more leaves no edge",
        before={**HEALTHY, "a/required_edges": "c d", "required_edges/c d": "1", "a/spec": None},
        reply=("created", LAST_VERSION),
        after={**NEW, "a/required_edges": None, "heartbeats/a": None, "required_edges/c d": None},
        log=ADDED,
    ),
]

ROWS = [
    *(
        row(
            f"a {status} agent that registers again is silent no more",
            before={
                **an_agent("a", status, heartbeat_at=-200_000, deadline_at=1000),
                "unhealthy_since/a": MsAfterStart(-10_000),
                "unhealthy_since/b": MsAfterStart(-9000),
            },
            reply=("unchanged", LAST_VERSION),
            after={**BEATEN, "a/status": "healthy", "a/version": LAST_VERSION, "unhealthy_since/a": None},
            log=entry("modify", "recovered", status_before=status),
        )
        for status in ("degraded", "expired")
    ),
    row(
        "a new agent whose registration beats is healthy",
        before={},
        counts_as_heartbeat=1,
        reply=("created", LAST_VERSION),
        after={**NEW, "a/status": "healthy", "heartbeats/a": MsAfterCall()},
        log=entry("add", "registered"),
    ),
    row(
        "a pending agent whose registration beats had its first heartbeat",
        before=an_agent("a", "pending", deadline_at=1000),
        counts_as_heartbeat=1,
        reply=("unchanged", LAST_VERSION),
        after={**BEATEN, "a/status": "healthy", "a/version": LAST_VERSION},
        log=entry("modify", "first_heartbeat", status_before="pending"),
    ),
    row(
        "a pending agent that beats with another spec is updated",
        before=an_agent("a", "pending", deadline_at=1000),
        counts_as_heartbeat=1,
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **BEATEN, "a/spec": OTHER, "a/status": "healthy"},
        log=entry("modify", "updated", status_before="pending", spec_before=SPEC),
    ),
    row(
        "what an agent told and was told outlives its registration",
        before={**HEALTHY, "a/load": "1", "a/response_digest": "d1"},
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **BEATEN, "a/spec": OTHER},
        log=entry("modify", "updated", spec_before=SPEC),
    ),
    row("a new agent is pending", before={}, reply=("created", LAST_VERSION), after=NEW, log=ADDED),
    row(
        "a new agent may be asked to be new",
        before={},
        precondition="absent",
        reply=("created", LAST_VERSION),
        after=NEW,
        log=ADDED,
    ),
    row(
        "other agents are not touched",
        before=an_agent("b", "degraded", heartbeat_at=-70_000, deadline_at=100),
        reply=("created", LAST_VERSION),
        after=NEW,
        log=ADDED,
    ),
    row(
        "a version ahead of the clock goes on by one",
        before={"version": MsAfterStart(3_600_000), "log": (MsAfterStart(3_600_000),)},
        reply=("created", MsAfterStart(3_600_001)),
        after={
            **NEW,
            "a/version": MsAfterStart(3_600_001),
            "a/spec_version": MsAfterStart(3_600_001),
            "version": MsAfterStart(3_600_001),
        },
        log=ADDED,
    ),
    row(
        "a spec is bytes, whatever they mean",
        before={},
        spec='{"name":"\\u0000 \\" \\\\ \n % é 日本"}',
        reply=("created", LAST_VERSION),
        after=NEW | {"a/spec": '{"name":"\\u0000 \\" \\\\ \n % é 日本"}'},
        log=ADDED,
    ),
    held("a spec that differs is stored and logged with the one before", ""),
    held("present holds for an agent that is there", "present"),
    held("the version of the last spec change holds", "800"),
    held("a version between the spec change and now holds", "850"),
    held("the version now holds", "900"),
    stale("a version before the last spec change is stale", "799", "900", HEALTHY),
    stale("a version above the agent's is stale", "901", "900", HEALTHY),
    stale("absent is stale where the agent is there", "absent", "900", HEALTHY),
    stale("present is stale where there is no agent", "present", "", {}),
    stale("a version is stale where there is no agent", "900", "", {}),
    stale("the precondition is checked for an unchanged spec too", "799", "900", HEALTHY, spec=SPEC),
    row("an unchanged spec is a heartbeat", before=HEALTHY, reply=("unchanged", "900"), after=BEATEN),
    row(
        "an unchanged spec under a precondition that holds is a heartbeat",
        before=HEALTHY,
        precondition="800",
        reply=("unchanged", "900"),
        after=BEATEN,
    ),
    row(
        "a pending agent stays pending",
        before=an_agent("a", "pending", deadline_at=1000),
        reply=("unchanged", "900"),
        after={"deadlines/a": MsAfterCall(60_000), "counters/registrations": "1"},
    ),
    row(
        "a pending agent with another spec stays pending",
        before=an_agent("a", "pending", deadline_at=1000),
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, "a/spec": OTHER, "deadlines/a": MsAfterCall(60_000), "counters/registrations": "1"},
        log=entry("modify", "updated", "", spec_before=SPEC),
    ),
    *(
        row(
            f"a {status} agent recovers",
            before=an_agent("a", status, heartbeat_at=-200_000, deadline_at=1000),
            reply=("unchanged", LAST_VERSION),
            after={**BEATEN, "a/status": "healthy", "a/version": LAST_VERSION},
            log=entry("modify", "recovered", status_before=status),
        )
        for status in ("degraded", "expired")
    ),
    row(
        "one entry tells of a new spec and of a recovery",
        before=an_agent("a", "degraded", heartbeat_at=-70_000, deadline_at=100),
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **BEATEN, "a/spec": OTHER, "a/status": "healthy"},
        log=entry("modify", "updated", spec_before=SPEC, status_before="degraded"),
    ),
    row(
        "another timeout alone is an update, and counts at once",
        before=HEALTHY,
        timeout=30_000,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **BEATEN, "a/timeout": "30000", "deadlines/a": MsAfterCall(30_000)},
        log=entry("modify", "updated"),
    ),
    row(
        "another eviction alone is an update",
        before=HEALTHY,
        eviction=90_000,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **BEATEN, "a/eviction": "90000"},
        log=entry("modify", "updated"),
    ),
    row(
        "drain, owner and what later releases add survive",
        before=an_agent(
            "a", "healthy", heartbeat_at=-5000, deadline_at=55_000, draining="1", owner="team-a", later="x"
        ),
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **BEATEN, "a/spec": OTHER},
        log=entry("modify", "updated", spec_before=SPEC),
    ),
    row(
        "a key of another type is replaced",
        before={"a": "not a hash", "deadlines/a": MsAfterStart(1000)},
        reply=("created", LAST_VERSION),
        after={**NEW, "a": None},
        log=ADDED,
    ),
    *(
        row(
            f"a record without its {field} is replaced, and nothing of it is left",
            before=HEALTHY | {f"a/{field}": None, "a/owner": "team-a"},
            reply=("created", LAST_VERSION),
            after={**NEW, "a/owner": None, "heartbeats/a": None},
            log=ADDED,
        )
        for field in ("spec", "status", "draining", "version", "spec_version", "created")
    ),
    row(
        "a record that cannot be read is as good as absent",
        before=an_agent("a", "pending", deadline_at=1000) | {"a/spec_version": None},
        precondition="absent",
        reply=("created", LAST_VERSION),
        after=NEW,
        log=ADDED,
    ),
    stale("no version holds for a record that cannot be read", "900", "", HEALTHY | {"a/version": None}),
    row(
        "totals are added up",
        before={**HEALTHY, "counters/registrations": "41", "counters/heartbeats": "7"},
        reply=("unchanged", "900"),
        after={**BEATEN, "counters/registrations": "42"},
    ),
    *EDGES,
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_register(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)


async def test_the_log_keeps_about_as_many_entries_as_it_is_told(bench: ScriptHarness) -> None:
    """Redis trims whole nodes of 100 entries, so at most that many more stay."""
    many = row("", before={"log": tuple(str(at) for at in range(1, 501)), "version": "500"}, log_length=50, reply=())
    await bench.write_initial_state(many)

    word, _version = await bench.call_script(many)

    assert word == b"created"
    assert 50 <= len((await bench.read_state())["log"]) <= 150
