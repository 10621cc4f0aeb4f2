"""The table of test cases of update_self_preservation.lua."""

from collections.abc import Sequence

import pytest

from tests.lua.script_harness import (
    Cells,
    ErrorReply,
    Expected,
    MsAfterCall,
    MsAfterStart,
    ScriptCase,
    ScriptHarness,
    a_period,
    an_agent,
)

WINDOW, DURATION = 60_000, 600_000


def row(
    description: str,
    before: Cells,
    after: Cells | None = None,
    *,
    namespaces: Sequence[str] = ("n",),
    released: int = 0,
    reply: tuple[Expected, ...] | ErrorReply | None = None,
    epoch: str = "7",
    start: str = "",
    release_all: int = 0,
) -> ScriptCase:
    """Return a row with one call under epoch 7 that updates the periods of `namespaces`, and needs no other call."""
    return ScriptCase(
        description=description,
        script="update_self_preservation",
        args={
            "leader_epoch": epoch,
            "window": WINDOW,
            "max_share": 50,
            "min_agents": 10,
            "max_duration": DURATION,
            "release_all": release_all,
            "after": start,
            "namespaces…": list(namespaces),
        },
        before={"epoch": "7", **before},
        reply=("done", str(released)) if reply is None else reply,
        after=after or {},
    )


def active(since: int, until: int, ended: int | None = None, below: int | None = None, name: str = "n") -> Cells:
    """Return the cells of a period of self-preservation."""
    ended_at, below_since = ("-" if at is None else MsAfterStart(at) for at in (ended, below))
    return a_period(name, MsAfterStart(since), MsAfterStart(until), ended_at, below_since)


def agents(healthy: int, unhealthy: int = 0, suspended: int = 0, *, ago: int = 30_000, namespace: str = "n") -> Cells:
    """Return agents of a namespace: healthy ones, unhealthy ones for `ago` ms, and healthy ones that are suspended."""
    cells: Cells = {}
    for at in range(healthy + unhealthy + suspended):
        name = f"{namespace}{at}"
        if at < healthy:
            cells |= an_agent(name, "healthy", heartbeat_at=-1000, deadline_at=59_000, namespace=namespace)
        elif at < healthy + unhealthy:
            cells |= an_agent(name, "degraded", heartbeat_at=-1000 - ago, deadline_at=59_000, namespace=namespace)
            cells[f"unhealthy_since/{name}"] = MsAfterStart(-ago)
        else:
            cells |= an_agent(name, "healthy", heartbeat_at=-60_500, namespace=namespace)
            cells[f"suspended/{name}"] = MsAfterStart(-500)
    return cells


def released(*names: str) -> Cells:
    """Return the cells of agents that are overdue again."""
    cells: Cells = {f"suspended/{name}": None for name in names}
    return cells | {f"deadlines/{name}": MsAfterStart(-500) for name in names}


def below(since: int, until: int, ended: int | None = None, *, name: str = "n") -> Cells:
    """Return the cells of a period during which the share is below the limit from now on."""
    end = "-" if ended is None else MsAfterStart(ended)
    return a_period(name, MsAfterStart(since), MsAfterStart(until), end, MsAfterCall())


def none(name: str = "n") -> Cells:
    """Return the cells of a period that was deleted."""
    return dict.fromkeys(a_period(name, "1", "2"))


PERIODS = [
    row("without self-preservation nothing changes", agents(8, 10)),
    row(
        "self-preservation continues while the agents that miss heartbeats are above the share",
        {**active(-90_000, 510_000, below=-70_000), **agents(15, 0, 20)},
        active(-90_000, 510_000),
    ),
    row(
        "250 suspended agents are counted, not only those of one sweep",
        {**active(-90_000, 510_000, below=-70_000), **agents(240, 0, 250)},
        active(-90_000, 510_000),
    ),
    row(
        "its end begins when they are below the share", {**active(-1000, 599_000), **agents(50)}, below(-1000, 599_000)
    ),
    row(
        "agents that were not healthy before do not keep it active, even more than a sweep changes",
        {
            **active(-90_000, 510_000),
            **agents(15),
            **{
                name: cell
                for at in range(250)
                for name, cell in {
                    **an_agent(f"e{at}", "expired", heartbeat_at=-900_000, namespace="n"),
                    f"suspended/e{at}": MsAfterStart(-500),
                }.items()
            },
        },
        below(-90_000, 510_000),
    ),
    row(
        "nearly a window after its cause is gone it is active",
        {**active(-90_000, 510_000, below=-55_000), **agents(50, 0, 1)},
    ),
    row(
        "a clock rollback does not shorten the window after its cause is gone",
        {**active(-90_000, 510_000, below=3_600_000), **agents(50)},
        below(-90_000, 510_000),
    ),
    row(
        "a window after its cause is gone it ends by itself, and the next one may start at once",
        {**active(-90_000, 510_000, below=-60_000), **agents(50, 0, 2)},
        {**none(), **released("n50", "n51")},
        released=2,
    ),
    row(
        "agents that were degraded before it started keep it active until they return or unregister",
        {**active(-20_000, 580_000, below=-60_000), **agents(8, 10)},
        active(-20_000, 580_000),
    ),
    row(
        "agents that were degraded long before do not",
        {**active(-10, 599_990), **agents(50, 60, ago=60_500)},
        below(-10, 599_990),
    ),
    row(
        "a clock rollback does not extend self-preservation",
        {**active(3_600_000, 4_200_000), **agents(8, 10)},
        {
            "self_preservation/n": (MsAfterStart(3_600_000), " ", MsAfterCall(DURATION), " - - 30 40"),
        },
    ),
    row(
        "it ends after its duration",
        {**active(-600_001, -1), **agents(8, 10, 1)},
        {**active(-600_001, -1, ended=-1), **released("n18")},
        released=1,
    ),
    row(
        "after its duration, below the share, the window starts in which it has to stay there",
        active(-600_001, -1),
        below(-600_001, -1, -1),
    ),
    row(
        "an interrupted time below the share does not count",
        {**active(-660_000, -60_000, ended=-60_000, below=-30_000), **agents(8, 10)},
        active(-660_000, -60_000, ended=-60_000),
    ),
    row(
        "below the share, the window starts in which it has to stay there",
        {**active(-660_000, -60_000, ended=-60_000), **agents(50)},
        below(-660_000, -60_000, -60_000),
    ),
    row(
        "nearly a window below the share is not a window",
        {**active(-660_000, -60_000, ended=-60_000, below=-55_000), **agents(50)},
    ),
    row(
        "after a whole window below the share self-preservation may start again",
        {**active(-660_000, -60_000, ended=-60_000, below=-60_000), **agents(50)},
        none(),
    ),
    row(
        "a clock rollback does not shorten that window",
        {**active(-660_000, -60_000, ended=-60_000, below=3_600_000), **agents(50)},
        below(-660_000, -60_000, -60_000),
    ),
    row(
        "the agents of other namespaces do not count",
        {
            **active(-1000, 599_000),
            **agents(50),
            **agents(0, 10, 10, namespace="m"),
            **active(-1000, 599_000, name="m"),
            **agents(0, 0, 5, namespace="n-n"),
            **active(-1000, 599_000, name="n-n"),
        },
        below(-1000, 599_000),
        start="z",
    ),
]

THREE = ("a", "b", "c")


def protected(names: Sequence[str], healthy: int = 20) -> Cells:
    """Return the cells of namespaces that are in self-preservation."""
    return {
        name: cell
        for each in names
        for name, cell in {**active(-1000, 599_000, name=each), **agents(healthy, namespace=each)}.items()
    }


def large(count: int, healthy: int = 10) -> Cells:
    """Return the cells of other namespaces with healthy agents."""
    return {name: cell for at in range(count) for name, cell in agents(healthy, namespace=f"x{at}").items()}


def mesh_started(active: int, counted: int) -> Cells:
    """Return the cells of self-preservation of the mesh that starts now."""
    return {
        **a_period("*", MsAfterCall(), MsAfterCall(DURATION), numbers=(active, counted)),
        "counters/self_preservation_activations": "1",
    }


MESH = [
    row(
        "three of five namespaces are more than half",
        {**protected(THREE), **large(2)},
        mesh_started(3, 5),
        namespaces=(),
    ),
    row("three of six are not", {**protected(THREE), **large(3)}, namespaces=()),
    row("two of two are too few", protected("ab"), namespaces=()),
    row(
        "namespaces with fewer than ten healthy agents do not count",
        {**protected(THREE), **large(9, healthy=9)},
        mesh_started(3, 3),
        namespaces=(),
    ),
    row(
        "unless they are in self-preservation, because some have become unhealthy",
        {**protected(THREE, healthy=4), **large(3)},
        namespaces=(),
    ),
    row(
        "self-preservation that has ended does not count",
        {**protected("ab"), **active(-1000, 599_000, ended=-10, name="c"), **agents(20, namespace="c")},
        namespaces=(),
    ),
    row(
        "that of the mesh continues while so many are in it",
        {**protected(THREE), **active(-90_000, 510_000, below=-70_000, name="*")},
        active(-90_000, 510_000, name="*"),
        namespaces=(),
    ),
    row(
        "a window after its cause is gone it ends by itself, and overdue agents are transitioned",
        {
            **protected("a"),
            **active(-90_000, 510_000, below=-60_000, name="*"),
            **agents(0, 0, 1, namespace="m"),
            **an_agent("kept", "healthy", namespace="a"),
            "suspended/kept": MsAfterStart(-500),
        },
        {**none("*"), **released("m0")},
        namespaces=(),
        released=1,
    ),
    row(
        "until then agents of all namespaces stay suspended",
        {**active(-90_000, 510_000, below=-55_000, name="*"), **agents(0, 0, 1, namespace="m")},
        namespaces=(),
    ),
    row(
        "it ends after its duration, and no other starts while so many are in it",
        {**protected(THREE), **active(-600_001, -1, name="*"), **agents(0, 0, 1, namespace="m")},
        {**active(-600_001, -1, ended=-1, name="*"), **released("m0")},
        namespaces=(),
        released=1,
    ),
]

RELEASE = [
    row("agents without self-preservation are released", agents(0, 0, 2), released("n0", "n1"), released=2),
    row(
        "those of protected namespaces are not",
        {**active(-1000, 599_000, name="m"), **agents(0, 0, 10, namespace="m"), **agents(0, 0, 2)},
        released("n0", "n1"),
        namespaces=(),
        released=2,
    ),
    row(
        "unless all are",
        {**active(-1000, 599_000, name="m"), **agents(0, 0, 1, namespace="m")},
        released("m0"),
        namespaces=(),
        released=1,
        release_all=1,
    ),
    row(
        "a call continues after a namespace, and does not update the mesh",
        {**agents(0, 0, 1, namespace="m"), **agents(0, 0, 1), **protected(THREE)},
        released("n0"),
        namespaces=(),
        start="m",
        released=1,
    ),
    row(
        "a call releases a thousand agents",
        {**agents(0, 0, 10, namespace="m"), **agents(0, 0, 1195)},
        released(*(f"m{at}" for at in range(10)), *sorted(f"n{at}" for at in range(1195))[:1000]),
        namespaces=(),
        reply=("ok", "1010", "m"),
    ),
    row(
        "a call reads two hundred namespaces",
        {
            name: cell
            for at in range(200, 402)
            for name, cell in {**agents(0, 0, 10, namespace=f"p{at}"), **active(-1, 599_999, name=f"p{at}")}.items()
        }
        | active(-1, 599_999, name="*"),
        namespaces=(),
        reply=("ok", "0", "p399"),
    ),
]

ROWS = [
    *PERIODS,
    *MESH,
    *RELEASE,
    row("a stale epoch writes nothing", active(-600_001, -1), epoch="6", reply=("stale_epoch", "7")),
    row("an unknown epoch is stale", {"epoch": None}, reply=("stale_epoch", "0")),
    row(
        "201 namespaces are rejected",
        {},
        namespaces=[str(at) for at in range(201)],
        reply=ErrorReply("at most 200 namespaces"),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_update_self_preservation(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
