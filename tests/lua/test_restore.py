"""The table of test cases of restore.lua."""

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

TIMEOUT, EVICTION = "60000", "180000"


def given(
    name: str, status: str, *, heartbeat: str = "5000", remaining: str = TIMEOUT, draining: str = "0", edges: str = ""
) -> list[str]:
    """Return the arguments of the script for one agent."""
    spec = f'{{"endpoint":"http://{name}"}}'
    return [
        name,
        spec,
        status,
        draining,
        "700",
        "800",
        TIMEOUT,
        EVICTION,
        heartbeat,
        remaining,
        edges,
        "n",
        f"http://{name}",
    ]


def restored(name: str, status: str, **fields: Expected) -> dict[str, Expected | None]:
    """Return the cells of a restored agent."""
    cells: dict[str, Expected | None] = {**an_agent(name, status, namespace="n", endpoint=f"http://{name}"), **fields}
    return {**cells, f"{name}/version": LAST_VERSION, f"{name}/spec_version": LAST_VERSION}


def row(
    description: str,
    *,
    agents: list[list[str]],
    reply: tuple[Expected, ...],
    before: dict[str, Expected | None] | None = None,
    after: dict[str, Expected | None] | None = None,
    heartbeats: tuple[str, ...] = (),
) -> ScriptCase:
    """Return a row that restores these agents; `heartbeats` are those of the new log entries."""
    names = tuple(fields[0] for fields in agents)
    return ScriptCase(
        description=description,
        script="restore",
        agents=names,
        args={"log_limits": LOG_LIMITS, "seen_version": 0, "agents…": [field for fields in agents for field in fields]},
        before=before or {},
        reply=reply,
        after=after or {},
        log=tuple(
            {"kind": "add", "reason": "restored", "id": name, "heartbeat": heartbeat}
            for name, heartbeat in zip(names, heartbeats, strict=False)
        ),
    )


ROWS = [
    *(
        row(
            f"a {status} agent is restored with its remaining time",
            agents=[given("a", status, remaining="30000", draining="1")],
            reply=("ok", 1, 0),
            after={
                **restored("a", status, **{"a/draining": "1"}),
                "heartbeats/a": "5000",
                "deadlines/a": MsAfterCall(30_000),
                # Unhealthy since its last heartbeat: too long ago to count towards self-preservation.
                "unhealthy_since/a": None if status == "healthy" else "5000",
            },
            heartbeats=("5000",),
        )
        for status in ("healthy", "degraded", "expired")
    ),
    row(
        "an agent without a heartbeat is restored without one",
        agents=[given("a", "pending", heartbeat="")],
        reply=("ok", 1, 0),
        after={**restored("a", "pending"), "deadlines/a": MsAfterCall(60_000)},
        heartbeats=("",),
    ),
    row(
        "a registered agent is newer, and stays",
        agents=[given("a", "healthy")],
        before=an_agent("a", "degraded", heartbeat_at=-70_000, deadline_at=1000),
        reply=("ok", 0, 1),
    ),
    row(
        "a damaged record is replaced",
        agents=[given("a", "healthy")],
        before={
            "a/spec": "{}",
            "a/foreign": "x",
            "suspended/a": MsAfterStart(-1),
            "deadlines/a": MsAfterStart(1000),
            "unhealthy_since/a": MsAfterStart(-1),
        },
        reply=("ok", 1, 0),
        after={
            **restored("a", "healthy"),
            "a/foreign": None,
            "suspended/a": None,
            "unhealthy_since/a": None,
            "heartbeats/a": "5000",
            "deadlines/a": MsAfterCall(60_000),
        },
        heartbeats=("5000",),
    ),
    row(
        "required edges are counted, and a new edge raises the revision",
        agents=[given("a", "healthy", edges="c d\nc e"), given("b", "healthy", edges="c d")],
        before={"required_edges/c e": "1", "required_edges/revision": "7"},
        reply=("ok", 2, 0),
        after={
            **restored("a", "healthy", **{"a/required_edges": "c d\nc e", "heartbeats/a": "5000"}),
            **restored("b", "healthy", **{"b/required_edges": "c d", "heartbeats/b": "5000"}),
            "deadlines/a": MsAfterCall(60_000),
            "deadlines/b": MsAfterCall(60_000),
            "required_edges/c d": "2",
            "required_edges/c e": "2",
            "required_edges/revision": "8",
        },
        heartbeats=("5000", "5000"),
    ),
    row(
        "the edges of a damaged record are not counted any more",
        agents=[given("a", "healthy", edges="c e")],
        before={"a/spec": "{}", "a/required_edges": "c d\nc e", "required_edges/c d": "1", "required_edges/c e": "1"},
        reply=("ok", 1, 0),
        after={
            **restored("a", "healthy", **{"a/required_edges": "c e", "heartbeats/a": "5000"}),
            "deadlines/a": MsAfterCall(60_000),
            "required_edges/c d": None,
        },
        heartbeats=("5000",),
    ),
    row(
        "a registered agent keeps its counted edges",
        agents=[given("a", "healthy", edges="c e")],
        before={
            **an_agent("a", "healthy", heartbeat_at=-1, deadline_at=1000, required_edges="c d"),
            "required_edges/c d": "1",
        },
        reply=("ok", 0, 1),
    ),
    row("no agents are no error", agents=[], reply=("ok", 0, 0)),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_restore(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)


async def test_a_heartbeat_from_the_future_is_set_to_now(harness: ScriptHarness) -> None:
    """If the clock went back since the backup, no later heartbeat could replace it."""
    row = ScriptCase(
        description="",
        script="restore",
        agents=("a",),
        args={"log_limits": LOG_LIMITS, "seen_version": 0, "agents…": given("a", "healthy", heartbeat="9000000000000")},
        reply=(),
    )
    await harness.write_initial_state(row)

    await harness.call_script(row)

    state = await harness.read_state()
    assert int(state["heartbeats/a"]) < 9_000_000_000_000
    assert int(state["deadlines/a"]) - int(state["heartbeats/a"]) == 60_000


@pytest.mark.parametrize("agents", [[], ["a"], [f"a{number}" for number in range(201)]], ids=len)
async def test_a_wrong_number_of_arguments_is_rejected(harness: ScriptHarness, agents: list[str]) -> None:
    """A call with a field too many or with too many agents is an internal error."""
    fields = [field for name in agents for field in given(name, "healthy")]
    too_many = fields if len(agents) > 200 else [*fields, "one too many"]
    await harness.run_case(
        ScriptCase(
            description="",
            script="restore",
            agents=tuple(agents),
            args={"log_limits": LOG_LIMITS, "seen_version": 0, "agents…": too_many},
            reply=ErrorReply("at most 200 agents"),
        )
    )
