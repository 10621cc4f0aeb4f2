"""The table of restore.lua."""

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

TIMEOUT, EVICTION = "60000", "180000"


def given(
    name: str, status: str, *, heartbeat: str = "5000", rest: str = TIMEOUT, draining: str = "0", edges: str = ""
) -> list[str]:
    """Return an agent as the script is given it."""
    spec = f'{{"endpoint":"http://{name}"}}'
    return [name, spec, status, draining, "700", "800", TIMEOUT, EVICTION, heartbeat, rest, edges]


def put_back(name: str, status: str, **fields: Expected) -> dict[str, Expected | None]:
    """Return the cells of an agent that was put back."""
    cells: dict[str, Expected | None] = {**an_agent(name, status), **fields}
    return {**cells, f"{name}/version": LAST_VERSION, f"{name}/spec_version": LAST_VERSION}


def row(
    promise: str,
    *,
    agents: list[list[str]],
    reply: tuple[Expected, ...],
    before: dict[str, Expected | None] | None = None,
    after: dict[str, Expected | None] | None = None,
    heartbeats: tuple[str, ...] = (),
) -> ScriptCase:
    """These agents are put back; `heartbeats` are those of the entries the log gets."""
    names = tuple(fields[0] for fields in agents)
    return ScriptCase(
        description=promise,
        script="restore",
        agents=names,
        args={"log_length": LOG_LENGTH, "agents…": [field for fields in agents for field in fields]},
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
            f"a {status} agent is put back as it was, with its rest to go",
            agents=[given("a", status, rest="30000", draining="1")],
            reply=("ok", 1, 0),
            after={
                **put_back("a", status, **{"a/draining": "1"}),
                "heartbeats/a": "5000",
                "deadlines/a": MsAfterCall(30_000),
                # Silent since it was last heard: too long ago to count towards a hold.
                "unhealthy_since/a": None if status == "healthy" else "5000",
            },
            heartbeats=("5000",),
        )
        for status in ("healthy", "degraded", "expired")
    ),
    row(
        "an agent without a heartbeat is put back without one",
        agents=[given("a", "pending", heartbeat="")],
        reply=("ok", 1, 0),
        after={**put_back("a", "pending"), "deadlines/a": MsAfterCall(60_000)},
        heartbeats=("",),
    ),
    row(
        "who is there is newer, and stays",
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
            "deadlines/a": MsAfterStart(1000),
            "unhealthy_since/a": MsAfterStart(-1),
        },
        reply=("ok", 1, 0),
        after={
            **put_back("a", "healthy"),
            "a/foreign": None,
            "unhealthy_since/a": None,
            "heartbeats/a": "5000",
            "deadlines/a": MsAfterCall(60_000),
        },
        heartbeats=("5000",),
    ),
    row(
        "what agents cannot do without is counted, and a new edge raises the number",
        agents=[given("a", "healthy", edges="c d\nc e"), given("b", "healthy", edges="c d")],
        before={"required_edges/c e": "1", "required_edges/revision": "7"},
        reply=("ok", 2, 0),
        after={
            **put_back("a", "healthy", **{"a/required_edges": "c d\nc e", "heartbeats/a": "5000"}),
            **put_back("b", "healthy", **{"b/required_edges": "c d", "heartbeats/b": "5000"}),
            "deadlines/a": MsAfterCall(60_000),
            "deadlines/b": MsAfterCall(60_000),
            "required_edges/c d": "2",
            "required_edges/c e": "2",
            "required_edges/revision": "8",
        },
        heartbeats=("5000", "5000"),
    ),
    row(
        "what a damaged record was counted for is counted no more",
        agents=[given("a", "healthy", edges="c e")],
        before={"a/spec": "{}", "a/required_edges": "c d\nc e", "required_edges/c d": "1", "required_edges/c e": "1"},
        reply=("ok", 1, 0),
        after={
            **put_back("a", "healthy", **{"a/required_edges": "c e", "heartbeats/a": "5000"}),
            "deadlines/a": MsAfterCall(60_000),
            "required_edges/c d": None,
        },
        heartbeats=("5000",),
    ),
    row(
        "who is there keeps what it is counted for",
        agents=[given("a", "healthy", edges="c e")],
        before={
            **an_agent("a", "healthy", heartbeat_at=-1, deadline_at=1000, required_edges="c d"),
            "required_edges/c d": "1",
        },
        reply=("ok", 0, 1),
    ),
    row("nobody is nothing", agents=[], reply=("ok", 0, 0)),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_restore(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)


async def test_a_heartbeat_of_the_future_becomes_one_of_now(bench: ScriptHarness) -> None:
    """Where the clock was set back since the backup, no later heartbeat could move it."""
    row = ScriptCase(
        description="",
        script="restore",
        agents=("a",),
        args={"log_length": LOG_LENGTH, "agents…": given("a", "healthy", heartbeat="9000000000000")},
        reply=(),
    )
    await bench.write_initial_state(row)

    await bench.call_script(row)

    state = await bench.read_state()
    assert int(state["heartbeats/a"]) < 9_000_000_000_000
    assert int(state["deadlines/a"]) - int(state["heartbeats/a"]) == 60_000


@pytest.mark.parametrize("agents", [[], ["a"], [f"a{number}" for number in range(201)]], ids=len)
async def test_what_does_not_fit_together_is_refused(bench: ScriptHarness, agents: list[str]) -> None:
    """A call with a field too many, or too many agents, is a bug of ours."""
    fields = [field for name in agents for field in given(name, "healthy")]
    too_many = fields if len(agents) > 200 else [*fields, "one too many"]
    await bench.run_case(
        ScriptCase(
            description="",
            script="restore",
            agents=tuple(agents),
            args={"log_length": LOG_LENGTH, "agents…": too_many},
            reply=ErrorReply("at most 200 agents"),
        )
    )
