"""The table of register.lua."""

import pytest

from registry.store.scripts import Value
from tests.lua.bench import HISTORY, VERSION, At, Bench, Expected, Now, Row, an_agent

SPEC = '{"endpoint":"http://a"}'
OTHER = '{"endpoint":"http://other"}'
HEALTHY = an_agent("a", "healthy", heard=-5000, due=55_000)
CHANGED: dict[str, Expected | None] = {"a/version": VERSION, "a/spec_version": VERSION, "a/updated": Now()}
BEATEN: dict[str, Expected | None] = {
    "heartbeats/a": Now(),
    "deadlines/a": Now(60_000),
    "counters/registrations": "1",
}
NEW: dict[str, Expected | None] = {
    **CHANGED,
    "a/spec": SPEC,
    "a/status": "pending",
    "a/draining": "0",
    "a/created": Now(),
    "a/timeout": "60000",
    "a/eviction": "180000",
    "deadlines/a": Now(60_000),
    "counters/registrations": "1",
}


def row(
    promise: str,
    *,
    before: dict[str, Expected | None],
    reply: tuple[Expected, ...],
    after: dict[str, Expected | None] | None = None,
    log: dict[str, Expected] | None = None,
    **args: Value,
) -> Row:
    """One registration of agent a; by default as it is stored."""
    given: dict[str, Value] = {
        "id": "a",
        "spec": SPEC,
        "timeout": 60_000,
        "eviction": 180_000,
        "precondition": "",
        "beats": 0,
        "history": HISTORY,
    }
    return Row(
        promise=promise,
        script="register",
        agents=("a",),
        args=given | args,
        before=before,
        reply=reply,
        after=after or {},
        log=({"id": "a", **log},) if log else (),
    )


def entry(kind: str, reason: str, heartbeat: Expected = Now(), **before: str) -> dict[str, Expected]:  # noqa: B008 - frozen
    """One log entry."""
    return {"kind": kind, "reason": reason, "heartbeat": heartbeat, **before}


def held(promise: str, precondition: str) -> Row:
    """A precondition that holds for agent a, whose spec is of version 800 and which is at 900."""
    return row(
        promise,
        before=HEALTHY,
        spec=OTHER,
        precondition=precondition,
        reply=("updated", VERSION),
        after={**CHANGED, **BEATEN, "a/spec": OTHER},
        log=entry("modify", "updated", spec_before=SPEC),
    )


def stale(promise: str, precondition: str, current: str, before: dict[str, Expected | None], spec: str = OTHER) -> Row:
    """A precondition that does not hold: nothing is written."""
    return row(promise, before=before, spec=spec, precondition=precondition, reply=("stale_version", current))


ADDED = entry("add", "registered", "")

ROWS = [
    *(
        row(
            f"a {status} agent that registers again is silent no more",
            before={**an_agent("a", status, heard=-200_000, due=1000), "silent/a": At(-10_000), "silent/b": At(-9000)},
            reply=("unchanged", VERSION),
            after={**BEATEN, "a/status": "healthy", "a/version": VERSION, "silent/a": None},
            log=entry("modify", "recovered", status_before=status),
        )
        for status in ("degraded", "expired")
    ),
    row(
        "a new agent whose registration beats is healthy",
        before={},
        beats=1,
        reply=("created", VERSION),
        after={**NEW, "a/status": "healthy", "heartbeats/a": Now()},
        log=entry("add", "registered"),
    ),
    row(
        "a pending agent whose registration beats had its first heartbeat",
        before=an_agent("a", "pending", due=1000),
        beats=1,
        reply=("unchanged", VERSION),
        after={**BEATEN, "a/status": "healthy", "a/version": VERSION},
        log=entry("modify", "first_heartbeat", status_before="pending"),
    ),
    row(
        "a pending agent that beats with another spec is updated",
        before=an_agent("a", "pending", due=1000),
        beats=1,
        spec=OTHER,
        reply=("updated", VERSION),
        after={**CHANGED, **BEATEN, "a/spec": OTHER, "a/status": "healthy"},
        log=entry("modify", "updated", status_before="pending", spec_before=SPEC),
    ),
    row(
        "what an agent told and was told outlives its registration",
        before={**HEALTHY, "a/load": "1", "a/answered": "d1"},
        spec=OTHER,
        reply=("updated", VERSION),
        after={**CHANGED, **BEATEN, "a/spec": OTHER},
        log=entry("modify", "updated", spec_before=SPEC),
    ),
    row("a new agent is pending", before={}, reply=("created", VERSION), after=NEW, log=ADDED),
    row(
        "a new agent may be asked to be new",
        before={},
        precondition="absent",
        reply=("created", VERSION),
        after=NEW,
        log=ADDED,
    ),
    row(
        "other agents are not touched",
        before=an_agent("b", "degraded", heard=-70_000, due=100),
        reply=("created", VERSION),
        after=NEW,
        log=ADDED,
    ),
    row(
        "a version ahead of the clock goes on by one",
        before={"version": At(3_600_000), "log": (At(3_600_000),)},
        reply=("created", At(3_600_001)),
        after={**NEW, "a/version": At(3_600_001), "a/spec_version": At(3_600_001), "version": At(3_600_001)},
        log=ADDED,
    ),
    row(
        "a spec is bytes, whatever they mean",
        before={},
        spec='{"name":"\\u0000 \\" \\\\ \n % é 日本"}',
        reply=("created", VERSION),
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
        before=an_agent("a", "pending", due=1000),
        reply=("unchanged", "900"),
        after={"deadlines/a": Now(60_000), "counters/registrations": "1"},
    ),
    row(
        "a pending agent with another spec stays pending",
        before=an_agent("a", "pending", due=1000),
        spec=OTHER,
        reply=("updated", VERSION),
        after={**CHANGED, "a/spec": OTHER, "deadlines/a": Now(60_000), "counters/registrations": "1"},
        log=entry("modify", "updated", "", spec_before=SPEC),
    ),
    *(
        row(
            f"a {status} agent recovers",
            before=an_agent("a", status, heard=-200_000, due=1000),
            reply=("unchanged", VERSION),
            after={**BEATEN, "a/status": "healthy", "a/version": VERSION},
            log=entry("modify", "recovered", status_before=status),
        )
        for status in ("degraded", "expired")
    ),
    row(
        "one entry tells of a new spec and of a recovery",
        before=an_agent("a", "degraded", heard=-70_000, due=100),
        spec=OTHER,
        reply=("updated", VERSION),
        after={**CHANGED, **BEATEN, "a/spec": OTHER, "a/status": "healthy"},
        log=entry("modify", "updated", spec_before=SPEC, status_before="degraded"),
    ),
    row(
        "another timeout alone is an update, and counts at once",
        before=HEALTHY,
        timeout=30_000,
        reply=("updated", VERSION),
        after={**CHANGED, **BEATEN, "a/timeout": "30000", "deadlines/a": Now(30_000)},
        log=entry("modify", "updated"),
    ),
    row(
        "another eviction alone is an update",
        before=HEALTHY,
        eviction=90_000,
        reply=("updated", VERSION),
        after={**CHANGED, **BEATEN, "a/eviction": "90000"},
        log=entry("modify", "updated"),
    ),
    row(
        "drain, owner and what later releases add survive",
        before=an_agent("a", "healthy", heard=-5000, due=55_000, draining="1", owner="team-a", later="x"),
        spec=OTHER,
        reply=("updated", VERSION),
        after={**CHANGED, **BEATEN, "a/spec": OTHER},
        log=entry("modify", "updated", spec_before=SPEC),
    ),
    row(
        "a key of another type is replaced",
        before={"a": "not a hash", "deadlines/a": At(1000)},
        reply=("created", VERSION),
        after={**NEW, "a": None},
        log=ADDED,
    ),
    *(
        row(
            f"a record without its {field} is replaced, and nothing of it is left",
            before=HEALTHY | {f"a/{field}": None, "a/owner": "team-a"},
            reply=("created", VERSION),
            after={**NEW, "a/owner": None, "heartbeats/a": None},
            log=ADDED,
        )
        for field in ("spec", "status", "draining", "version", "spec_version", "created")
    ),
    row(
        "a record that cannot be read is as good as absent",
        before=an_agent("a", "pending", due=1000) | {"a/spec_version": None},
        precondition="absent",
        reply=("created", VERSION),
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
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_register(row: Row, bench: Bench) -> None:
    """Every row holds on every kind of server."""
    await bench.check(row)


async def test_the_log_keeps_about_as_many_entries_as_it_is_told(bench: Bench) -> None:
    """Redis trims whole nodes of 100 entries, so at most that many more stay."""
    many = row("", before={"log": tuple(str(at) for at in range(1, 501)), "version": "500"}, history=50, reply=())
    await bench.prepare(many)

    word, _version = await bench.call(many)

    assert word == b"created"
    assert 50 <= len((await bench.state())["log"]) <= 150
