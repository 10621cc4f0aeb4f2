"""The table of drain.lua."""

import pytest

from tests.lua.script_harness import HISTORY, VERSION, At, Bench, Error, Expected, Now, Row, an_agent


def row(
    promise: str,
    draining: str,
    *names: str,
    before: dict[str, Expected | None],
    reply: tuple[Expected, ...] | Error,
    after: dict[str, Expected | None] | None = None,
    log: tuple[dict[str, Expected], ...] = (),
    more: tuple[str, ...] = (),
) -> Row:
    """One call for these agents."""
    return Row(
        promise=promise,
        script="drain",
        agents=names,
        args={"draining": draining, "history": HISTORY, "ids…": [*names, *more]},
        before=before,
        reply=reply if isinstance(reply, Error) else ("ok", *reply),
        after=after or {},
        log=log,
    )


def drains(name: str, heartbeat: Expected) -> dict[str, Expected]:
    """The entry of an agent that begins to drain."""
    return {"kind": "modify", "reason": "drained", "id": name, "heartbeat": heartbeat, "draining_before": "0"}


HEALTHY = an_agent("a", "healthy", heard=-5000, due=55_000)
DRAINING = HEALTHY | {"a/draining": "1"}
TWO_HUNDRED = [f"n{number}" for number in range(200)]

ROWS = [
    *(
        row(
            f"a {status} agent drains and is what it was otherwise",
            "1",
            "a",
            before=an_agent("a", status, heard=-70_000, due=1000, owner="team-a", later="x"),
            reply=("changed", VERSION),
            after={"a/draining": "1", "a/version": VERSION},
            log=(drains("a", At(-70_000)),),
        )
        for status in ("healthy", "degraded", "expired")
    ),
    row(
        "an agent that never sent a heartbeat drains, too",
        "1",
        "a",
        before=an_agent("a", "pending", due=1000),
        reply=("changed", VERSION),
        after={"a/draining": "1", "a/version": VERSION},
        log=(drains("a", ""),),
    ),
    row(
        "an agent is put back into service",
        "0",
        "a",
        before=DRAINING,
        reply=("changed", VERSION),
        after={"a/draining": "0", "a/version": VERSION},
        log=({"kind": "modify", "reason": "undrained", "id": "a", "heartbeat": At(-5000), "draining_before": "1"},),
    ),
    row("one that drains already is left alone", "1", "a", before=DRAINING, reply=("unchanged", "900")),
    row("one in service already is left alone", "0", "a", before=HEALTHY, reply=("unchanged", "900")),
    row("nobody is told so", "1", "a", "b", before={}, reply=("unknown_agent", "", "unknown_agent", "")),
    row(
        "a bad record fails alone",
        "1",
        "a",
        "b",
        "c",
        "d",
        before={
            "a": "not a hash",
            **an_agent("b", "healthy", heard=-1, due=1) | {"b/timeout": None},
            **an_agent("c", "healthy", heard=-2, due=1) | {"c/draining": None},
            **an_agent("d", "healthy", heard=-3, due=1),
        },
        reply=("bad_record", "", "bad_record", "", "bad_record", "", "changed", VERSION),
        after={"d/draining": "1", "d/version": VERSION},
        log=(drains("d", At(-3)),),
    ),
    row(
        "each change has an entry and a version of its own, in order",
        "1",
        "b",
        "nobody",
        "a",
        "c",
        before={
            **HEALTHY,
            **an_agent("b", "degraded", heard=-9, due=9),
            **an_agent("c", "healthy", heard=-8, due=8, draining="1"),
        },
        reply=("changed", Now(), "unknown_agent", "", "changed", VERSION, "unchanged", "900"),
        after={"a/draining": "1", "a/version": VERSION, "b/draining": "1", "b/version": VERSION},
        log=(drains("b", At(-9)), drains("a", At(-5000))),
    ),
    row(
        "one id twice is one change",
        "1",
        "a",
        "a",
        before=HEALTHY,
        reply=("changed", VERSION, "unchanged", VERSION),
        after={"a/draining": "1", "a/version": VERSION},
        log=(drains("a", At(-5000)),),
    ),
    row(
        "a version ahead of the clock goes on by one",
        "1",
        "a",
        before={**HEALTHY, "version": At(3_600_000), "log": (At(3_600_000),)},
        reply=("changed", At(3_600_001)),
        after={"a/draining": "1", "a/version": At(3_600_001)},
        log=(drains("a", At(-5000)),),
    ),
    row("200 agents are one call", "1", *TWO_HUNDRED, before={}, reply=("unknown_agent", "") * 200),
    row("201 agents are refused", "1", *TWO_HUNDRED, "a", before=HEALTHY, reply=Error("at most 200 agents")),
    row("an argument too many is refused", "1", "a", more=("b",), before=HEALTHY, reply=Error("at most 200 agents")),
    row("what is neither 0 nor 1 is refused", "yes", "a", before=HEALTHY, reply=Error("takes 0 or 1")),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_drain(row: Row, bench: Bench) -> None:
    """Every row holds on every kind of server."""
    await bench.check(row)
