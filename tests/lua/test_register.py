"""The table of test cases of register.lua."""

import pytest

from registry.store.scripts import ArgumentValue
from tests.lua.script_harness import (
    LAST_VERSION,
    LOG_LIMITS,
    Expected,
    MsAfterCall,
    MsAfterStart,
    ScriptCase,
    ScriptHarness,
    an_agent,
)

SPEC = '{"endpoint":"http://a"}'
OTHER = '{"endpoint":"http://other"}'
PLACE: dict[str, str | None] = {"namespace": "n", "endpoint": "http://a"}


def stored_agent(
    name: str, status: str, *, heartbeat_at: int | None = None, deadline_at: int | None = None, **fields: str | None
) -> dict[str, Expected | None]:
    """Return the cells of an agent with the namespace and endpoint of the registration."""
    return an_agent(name, status, heartbeat_at=heartbeat_at, deadline_at=deadline_at, **(PLACE | fields))


HEALTHY = stored_agent("a", "healthy", heartbeat_at=-5000, deadline_at=55_000)
CHANGED: dict[str, Expected | None] = {
    "a/version": LAST_VERSION,
    "a/spec_version": LAST_VERSION,
    "a/updated": MsAfterCall(),
}
EXTENDED: dict[str, Expected | None] = {
    "heartbeats/a": MsAfterCall(),
    "deadlines/a": MsAfterCall(60_000),
    "counters/registrations": "1",
}
NEW: dict[str, Expected | None] = {
    **CHANGED,
    "a/spec": SPEC,
    "a/namespace": "n",
    "a/endpoint": "http://a",
    "a/status": "pending",
    "a/draining": "0",
    "a/created": MsAfterCall(),
    "a/timeout": "60000",
    "a/eviction": "180000",
    "deadlines/a": MsAfterCall(60_000),
    "counters/registrations": "1",
}


def row(
    description: str,
    *,
    before: dict[str, Expected | None],
    reply: tuple[Expected, ...],
    after: dict[str, Expected | None] | None = None,
    log: dict[str, Expected] | None = None,
    **args: ArgumentValue,
) -> ScriptCase:
    """Return a row with one registration of agent a; by default it is the stored one."""
    given: dict[str, ArgumentValue] = {
        "id": "a",
        "spec": SPEC,
        "namespace": "n",
        "endpoint": "http://a",
        "exclusive": 0,
        "timeout": 60_000,
        "eviction": 180_000,
        "precondition": "",
        "counts_as_heartbeat": 0,
        "edges": "",
        "edges_revision": "",
        "log_limits": LOG_LIMITS,
        "seen_version": 0,
    }
    return ScriptCase(
        description=description,
        script="register",
        agents=("a",),
        args=given | args,
        before=before,
        reply=reply,
        after=after or {},
        log=({"id": "a", **log},) if log else (),
    )


def entry(kind: str, reason: str, heartbeat: Expected = MsAfterCall(), **before: str) -> dict[str, Expected]:  # noqa: B008 - frozen
    """Return the fields of one log entry."""
    return {"kind": kind, "reason": reason, "heartbeat": heartbeat, **before}


def satisfied(description: str, precondition: str) -> ScriptCase:
    """Return a row with a precondition that agent a satisfies; it has version 900 and a spec of version 800."""
    return row(
        description,
        before=HEALTHY,
        spec=OTHER,
        precondition=precondition,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **EXTENDED, "a/spec": OTHER},
        log=entry("modify", "updated", spec_before=SPEC),
    )


def stale(
    description: str, precondition: str, current: str, before: dict[str, Expected | None], spec: str = OTHER
) -> ScriptCase:
    """Return a row with a precondition that is not satisfied: nothing is written."""
    return row(description, before=before, spec=spec, precondition=precondition, reply=("stale_version", current))


def moved(
    description: str,
    *,
    conflict: bool,
    before: dict[str, Expected | None] = HEALTHY,
    after: dict[str, Expected | None] | None = None,
    status_before: str | None = None,
    **args: ArgumentValue,
) -> ScriptCase:
    """Return a row in which agent a registers with another spec at another place; a conflict is in the reply."""
    was = {} if status_before is None else {"status_before": status_before}
    return row(
        description,
        before=before,
        spec=OTHER,
        reply=("updated", LAST_VERSION, *(("n", "http://a") if conflict else ())),
        after={**CHANGED, **EXTENDED, "a/spec": OTHER, **(after or {})},
        log=entry("modify", "updated", spec_before=SPEC, **was),
        **args,
    )


def endpoint_changed(ago_ms: int, endpoint: str = "http://other") -> dict[str, Expected | None]:
    """Return the cells of a healthy agent a that had another endpoint until some time ago."""
    return {**HEALTHY, "a/endpoint_before": (MsAfterStart(-ago_ms), f" {endpoint}")}


EXPIRED = stored_agent("a", "expired", heartbeat_at=-200_000, deadline_at=1000)
REVIVED: dict[str, Expected | None] = {"a/status": "healthy"}
AT_OTHER: dict[str, Expected | None] = {
    "a/endpoint": "http://other",
    "a/endpoint_before": (MsAfterCall(), " http://a"),
}
CONFLICTS = [
    moved("another namespace is a conflict", conflict=True, namespace="m", after={"a/namespace": "m"}),
    moved(
        "an expired agent may return in another namespace",
        conflict=False,
        before=EXPIRED,
        status_before="expired",
        namespace="m",
        after=REVIVED | {"a/namespace": "m"},
    ),
    moved("another endpoint is no conflict: restarted", conflict=False, endpoint="http://other", after=AT_OTHER),
    moved(
        "the endpoint before the last one is a conflict",
        conflict=True,
        before=endpoint_changed(10_000),
        endpoint="http://other",
        after=AT_OTHER,
    ),
    moved(
        "after a whole timeout it is none",
        conflict=False,
        before=endpoint_changed(61_000),
        endpoint="http://other",
        after=AT_OTHER,
    ),
    moved(
        "a third endpoint is none",
        conflict=False,
        before=endpoint_changed(10_000, "http://third"),
        endpoint="http://other",
        after=AT_OTHER,
    ),
    *(
        row(
            f"an exclusive registration is rejected while a {status} agent has another endpoint",
            before=stored_agent("a", status, heartbeat_at=-5000, deadline_at=55_000),
            spec=OTHER,
            endpoint="http://other",
            exclusive=1,
            reply=("id_in_use", "http://a"),
        )
        for status in ("pending", "healthy", "degraded")
    ),
    moved(
        "an exclusive registration replaces an expired agent",
        conflict=False,
        before=EXPIRED,
        status_before="expired",
        endpoint="http://other",
        exclusive=1,
        after=REVIVED | AT_OTHER,
    ),
    moved("an exclusive registration may change its agent", conflict=False, exclusive=1),
    row(
        "an unchanged registration stores the place that an older release did not",
        before=HEALTHY | {"a/namespace": None, "a/endpoint": None},
        reply=("unchanged", "900"),
        after={**EXTENDED, "a/namespace": "n", "a/endpoint": "http://a"},
    ),
]

ADDED = entry("add", "registered", "")
UPDATED = {**CHANGED, **EXTENDED}


def requiring(*edges: str) -> dict[str, Expected | None]:
    """Return the cells of a healthy agent a with these required edges; another agent has each of them too."""
    counted: dict[str, Expected | None] = {f"required_edges/{edge}": "2" for edge in edges}
    return {**HEALTHY, "a/required_edges": "\n".join(edges), **counted, "required_edges/revision": "5"}


EDGES = [
    row(
        "a new edge is accepted with the revision it was checked against, and raises the revision",
        before={"required_edges/x y": "1", "required_edges/revision": "5"},
        edges="c d",
        edges_revision="5",
        reply=("created", LAST_VERSION),
        after={**NEW, "a/required_edges": "c d", "required_edges/c d": "1", "required_edges/revision": "6"},
        log=ADDED,
    ),
    row(
        "each of several new edges raises the revision",
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
        "the first edge of all is accepted with revision 0",
        before={},
        edges="c%20d e",
        edges_revision="0",
        reply=("created", LAST_VERSION),
        after={**NEW, "a/required_edges": "c%20d e", "required_edges/c%20d e": "1", "required_edges/revision": "1"},
        log=ADDED,
    ),
    *(
        row(
            f"a new edge is rejected if {why}",
            before={"required_edges/c e": "1", **({"required_edges/revision": revision} if revision else {})},
            edges="c d\nc e",
            edges_revision=checked,
            reply=("edges_changed",),
        )
        for why, revision, checked in (
            ("another was added since", "6", "5"),
            ("it was not checked", "6", ""),
            ("it was not checked, even without other edges", None, ""),
            ("the revision was lost since", None, "5"),
        )
    ),
    row(
        "a new edge of a registered agent is rejected too",
        before=requiring("c d"),
        edges="c d\nc e",
        edges_revision="4",
        reply=("edges_changed",),
    ),
    row(
        "an existing edge needs no check, and does not raise the revision",
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
        after=EXTENDED,
    ),
    row(
        "replaced edges change only the counts that differ",
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
        "an edge without agents is deleted, and is new when an agent has it again",
        before={**HEALTHY, "a/required_edges": "c d", "required_edges/c d": "1", "required_edges/revision": "5"},
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={**UPDATED, "a/spec": OTHER, "a/required_edges": "", "required_edges/c d": None},
        log=entry("modify", "updated", spec_before=SPEC),
    ),
    row(
        "edges survive a recovery",
        before={**requiring("c d"), "a/status": "degraded"},
        edges="c d",
        reply=("unchanged", LAST_VERSION),
        after={**EXTENDED, "a/status": "healthy", "a/version": LAST_VERSION},
        log=entry("modify", "recovered", status_before="degraded"),
    ),
    row(
        "an agent without counted edges is counted when it registers again",
        before=HEALTHY,
        edges="c d",
        edges_revision="0",
        reply=("updated", LAST_VERSION),
        after={**UPDATED, "a/required_edges": "c d", "required_edges/c d": "1", "required_edges/revision": "1"},
        log=entry("modify", "updated"),
    ),
    row(
        "the edges of a damaged record are not counted any more",
        before={**requiring("c d", "c e"), "a/spec": None},
        edges="c e",
        reply=("created", LAST_VERSION),
        after={**NEW, "a/required_edges": "c e", "heartbeats/a": None, "required_edges/c d": "1"},
        log=ADDED,
    ),
    row(
        "a damaged record without required edges leaves no edge",
        before={**HEALTHY, "a/required_edges": "c d", "required_edges/c d": "1", "a/spec": None},
        reply=("created", LAST_VERSION),
        after={**NEW, "a/required_edges": None, "heartbeats/a": None, "required_edges/c d": None},
        log=ADDED,
    ),
]

ROWS = [
    row(
        "an agent that self-preservation suspends has a deadline again",
        before={**HEALTHY, "deadlines/a": None, "suspended/a": MsAfterStart(-500), "suspended/b": MsAfterStart(-500)},
        reply=("unchanged", "900"),
        after={**EXTENDED, "suspended/a": None},
    ),
    row(
        "so has one that moves to another namespace",
        before={
            **stored_agent("a", "expired", heartbeat_at=-500_000, namespace="m"),
            "unhealthy_since/a": MsAfterStart(-400_000),
            "suspended/a": MsAfterStart(-500),
        },
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={
            **CHANGED,
            **EXTENDED,
            "a/spec": OTHER,
            "a/status": "healthy",
            "a/namespace": "n",
            "unhealthy_since/a": None,
            "suspended/a": None,
        },
        log=entry("modify", "updated", spec_before=SPEC, status_before="expired"),
    ),
    row(
        "a healthy agent that moves is counted in its new namespace only",
        before={**HEALTHY, "a/namespace": "m"},
        spec=OTHER,
        reply=("updated", LAST_VERSION, "m", "http://a"),
        after={**CHANGED, **EXTENDED, "a/spec": OTHER, "a/namespace": "n"},
        log=entry("modify", "updated", spec_before=SPEC),
    ),
    *(
        row(
            f"a {status} agent that registers again is not unhealthy any more",
            before={
                **stored_agent("a", status, heartbeat_at=-200_000, deadline_at=1000),
                "unhealthy_since/a": MsAfterStart(-10_000),
                "unhealthy_since/b": MsAfterStart(-9000),
            },
            reply=("unchanged", LAST_VERSION),
            after={**EXTENDED, "a/status": "healthy", "a/version": LAST_VERSION, "unhealthy_since/a": None},
            log=entry("modify", "recovered", status_before=status),
        )
        for status in ("degraded", "expired")
    ),
    row(
        "a new agent whose registration counts as a heartbeat is healthy",
        before={},
        counts_as_heartbeat=1,
        reply=("created", LAST_VERSION),
        after={**NEW, "a/status": "healthy", "heartbeats/a": MsAfterCall()},
        log=entry("add", "registered"),
    ),
    row(
        "the registration of a pending agent can be its first heartbeat",
        before=stored_agent("a", "pending", deadline_at=1000),
        counts_as_heartbeat=1,
        reply=("unchanged", LAST_VERSION),
        after={**EXTENDED, "a/status": "healthy", "a/version": LAST_VERSION},
        log=entry("modify", "first_heartbeat", status_before="pending"),
    ),
    row(
        "a pending agent with a heartbeat and another spec is updated",
        before=stored_agent("a", "pending", deadline_at=1000),
        counts_as_heartbeat=1,
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **EXTENDED, "a/spec": OTHER, "a/status": "healthy"},
        log=entry("modify", "updated", status_before="pending", spec_before=SPEC),
    ),
    row(
        "load and digest survive a registration",
        before={**HEALTHY, "a/load": "1", "a/response_digest": "d1"},
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **EXTENDED, "a/spec": OTHER},
        log=entry("modify", "updated", spec_before=SPEC),
    ),
    row("a new agent is pending", before={}, reply=("created", LAST_VERSION), after=NEW, log=ADDED),
    row(
        "the precondition absent is satisfied by a new agent",
        before={},
        precondition="absent",
        reply=("created", LAST_VERSION),
        after=NEW,
        log=ADDED,
    ),
    row(
        "other agents are not changed",
        before=stored_agent("b", "degraded", heartbeat_at=-70_000, deadline_at=100),
        reply=("created", LAST_VERSION),
        after=NEW,
        log=ADDED,
    ),
    row(
        "a version ahead of the clock is raised by one",
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
        "a spec is stored byte for byte",
        before={},
        spec='{"name":"\\u0000 \\" \\\\ \n % é 日本"}',
        reply=("created", LAST_VERSION),
        after=NEW | {"a/spec": '{"name":"\\u0000 \\" \\\\ \n % é 日本"}'},
        log=ADDED,
    ),
    satisfied("a spec that differs is stored and logged with the one before", ""),
    satisfied("present is satisfied by a registered agent", "present"),
    satisfied("the version of the last spec change satisfies", "800"),
    satisfied("a version between the spec change and the current one satisfies", "850"),
    satisfied("the current version satisfies", "900"),
    stale("a version before the last spec change is stale", "799", "900", HEALTHY),
    stale("a version above the agent's is stale", "901", "900", HEALTHY),
    stale("absent is stale for a registered agent", "absent", "900", HEALTHY),
    stale("present is stale without an agent", "present", "", {}),
    stale("a version is stale without an agent", "900", "", {}),
    stale("the precondition is checked for an unchanged spec too", "799", "900", HEALTHY, spec=SPEC),
    row("an unchanged spec is a heartbeat", before=HEALTHY, reply=("unchanged", "900"), after=EXTENDED),
    row(
        "an unchanged spec with a satisfied precondition is a heartbeat",
        before=HEALTHY,
        precondition="800",
        reply=("unchanged", "900"),
        after=EXTENDED,
    ),
    row(
        "a pending agent stays pending",
        before=stored_agent("a", "pending", deadline_at=1000),
        reply=("unchanged", "900"),
        after={"deadlines/a": MsAfterCall(60_000), "counters/registrations": "1"},
    ),
    row(
        "a pending agent with another spec stays pending",
        before=stored_agent("a", "pending", deadline_at=1000),
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, "a/spec": OTHER, "deadlines/a": MsAfterCall(60_000), "counters/registrations": "1"},
        log=entry("modify", "updated", "", spec_before=SPEC),
    ),
    *(
        row(
            f"a {status} agent recovers",
            before=stored_agent("a", status, heartbeat_at=-200_000, deadline_at=1000),
            reply=("unchanged", LAST_VERSION),
            after={**EXTENDED, "a/status": "healthy", "a/version": LAST_VERSION},
            log=entry("modify", "recovered", status_before=status),
        )
        for status in ("degraded", "expired")
    ),
    row(
        "one entry contains a new spec and a recovery",
        before=stored_agent("a", "degraded", heartbeat_at=-70_000, deadline_at=100),
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **EXTENDED, "a/spec": OTHER, "a/status": "healthy"},
        log=entry("modify", "updated", spec_before=SPEC, status_before="degraded"),
    ),
    row(
        "another timeout alone is an update, and counts at once",
        before=HEALTHY,
        timeout=30_000,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **EXTENDED, "a/timeout": "30000", "deadlines/a": MsAfterCall(30_000)},
        log=entry("modify", "updated"),
    ),
    row(
        "another eviction alone is an update",
        before=HEALTHY,
        eviction=90_000,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **EXTENDED, "a/eviction": "90000"},
        log=entry("modify", "updated"),
    ),
    row(
        "draining, owner and fields of later releases survive",
        before=stored_agent(
            "a", "healthy", heartbeat_at=-5000, deadline_at=55_000, draining="1", owner="team-a", later="x"
        ),
        spec=OTHER,
        reply=("updated", LAST_VERSION),
        after={**CHANGED, **EXTENDED, "a/spec": OTHER},
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
        "an unreadable record counts as absent",
        before=stored_agent("a", "pending", deadline_at=1000) | {"a/spec_version": None},
        precondition="absent",
        reply=("created", LAST_VERSION),
        after=NEW,
        log=ADDED,
    ),
    stale("no version satisfies for an unreadable record", "900", "", HEALTHY | {"a/version": None}),
    row(
        "totals are added up",
        before={**HEALTHY, "counters/registrations": "41", "counters/heartbeats": "7"},
        reply=("unchanged", "900"),
        after={**EXTENDED, "counters/registrations": "42"},
    ),
    *EDGES,
    *CONFLICTS,
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_register(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)


async def test_the_log_is_trimmed_to_about_its_configured_length(harness: ScriptHarness) -> None:
    """Redis trims whole nodes of 100 entries, so up to 100 more remain."""
    versions = tuple(str(at) for at in range(1, 501))
    many = row("", before={"log": versions, "version": "500"}, log_limits="50 268435456", reply=())
    await harness.write_initial_state(many)

    word, _version = await harness.call_script(many)

    assert word == b"created"
    assert 50 <= len((await harness.read_state())["log"]) <= 150
