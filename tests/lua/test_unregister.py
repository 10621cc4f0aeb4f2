"""The table of unregister.lua."""

import pytest

from tests.lua.script_harness import HISTORY, VERSION, At, Bench, Expected, Row, an_agent, gone


def row(
    promise: str,
    *,
    before: dict[str, Expected | None],
    reply: tuple[Expected, ...],
    after: dict[str, Expected | None] | None = None,
    heartbeat: Expected | None = None,
) -> Row:
    """Agent a leaves; with `heartbeat`, the entry says so."""
    entry: dict[str, Expected] = {"kind": "remove", "reason": "unregistered", "id": "a"}
    return Row(
        promise=promise,
        script="unregister",
        agents=("a",),
        args={"id": "a", "history": HISTORY},
        before=before,
        reply=reply,
        after=after or {},
        log=() if heartbeat is None else ({**entry, "heartbeat": heartbeat},),
    )


GONE: dict[str, Expected | None] = {**gone("a"), "counters/unregistrations": "1"}

ROWS = [
    *(
        row(
            f"a {status} agent goes at once, and the log carries it as it was",
            before=an_agent("a", status, heard=-70_000, due=1000, draining="1", owner="team-a"),
            reply=("removed", VERSION),
            after=GONE | gone("a", owner=""),
            heartbeat=At(-70_000),
        )
        for status in ("healthy", "degraded", "expired")
    ),
    row(
        "an agent that never sent a heartbeat goes without one",
        before=an_agent("a", "pending", due=1000),
        reply=("removed", VERSION),
        after=GONE,
        heartbeat="",
    ),
    row(
        "a silent agent is forgotten whole",
        before={**an_agent("a", "expired", heard=-70_000, due=1000), "silent/a": At(-10_000), "silent/b": At(-9000)},
        reply=("removed", VERSION),
        after=GONE,
        heartbeat=At(-70_000),
    ),
    row(
        "what it cannot do without is counted no more",
        before={
            **an_agent("a", "healthy", heard=-1, due=1000, requires="c d\nc e"),
            "required/c d": "2",
            "required/c e": "1",
            "required/number": "5",
        },
        reply=("removed", VERSION),
        after={**GONE, **gone("a", requires=""), "required/c d": "1", "required/c e": None},
        heartbeat=At(-1),
    ),
    row(
        "others stay",
        before={**an_agent("a", "healthy", heard=-1, due=1000), **an_agent("b", "healthy", heard=-2, due=2000)},
        reply=("removed", VERSION),
        after=GONE,
        heartbeat=At(-1),
    ),
    row(
        "a version ahead of the clock goes on by one",
        before={**an_agent("a", "pending", due=1000), "version": At(3_600_000), "log": (At(3_600_000),)},
        reply=("removed", At(3_600_001)),
        after=GONE,
        heartbeat="",
    ),
    row(
        "totals are added up",
        before={**an_agent("a", "pending", due=1000), "counters/unregistrations": "41"},
        reply=("removed", VERSION),
        after={**GONE, "counters/unregistrations": "42"},
        heartbeat="",
    ),
    row("nobody is told so", before=an_agent("b", "healthy", heard=-1, due=1000), reply=("unknown_agent",)),
    row(
        "a record with fields missing can be removed",
        before={"a/spec": "{}", "heartbeats/a": At(-1), "deadlines/a": At(1000)},
        reply=("removed", VERSION),
        after=GONE,
        heartbeat=At(-1),
    ),
    row(
        "a key of another type can be removed",
        before={"a": "not a hash", "heartbeats/a": At(-1), "deadlines/a": At(1000)},
        reply=("removed", VERSION),
        after={**GONE, "a": None},
        heartbeat=At(-1),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_unregister(row: Row, bench: Bench) -> None:
    """Every row holds on every kind of server."""
    await bench.check(row)
