"""The one matcher: at which stage who falls out, and who is the best of those that will do."""

import pytest

from registry.model.agent import Agent, Dependency
from registry.model.resolution import STAGES
from registry.service.resolution.match_policy import Rules
from registry.service.resolution.provider_match import Wanted, rank
from tests.support.builders import an_agent
from tests.support.resolution_builders import capable, lacks_nothing, view_of


def best(need: Dependency, *agents: Agent, namespace: str | None = "default") -> list[str]:
    """Return who will do, the best first."""
    return [each.agent_id for each in rank(view_of(*agents), Wanted(need, namespace), lacks_nothing).providers]


ANY = Dependency("c")
STAGE_ROWS: list[tuple[str, Dependency, Agent, str | None]] = [
    ("healthy", ANY, capable(), None),
    ("degraded is alive", ANY, capable(status="degraded"), None),
    ("pending is listed but not chosen", ANY, capable(status="pending"), "health"),
    ("expired", ANY, capable(status="expired"), "health"),
    ("draining", ANY, capable(draining=True), "draining"),
    ("health comes first", Dependency("c", tags=("x",)), capable(status="expired", draining=True), "health"),
    ("another namespace", ANY, capable(namespace="other"), "namespace"),
    ("the namespace that is named", Dependency("c", namespace="other"), capable(namespace="other"), None),
    ("not the own one then", Dependency("c", namespace="other"), capable(), "namespace"),
    ("any namespace", Dependency("c", namespace="*"), capable(namespace="other"), None),
    ("all tags", Dependency("c", tags=("x", "u")), capable(tags=["x", "u", "y"]), None),
    ("one tag short", Dependency("c", tags=("x", "u")), capable(tags=["x"]), "tags"),
    ("excluded", Dependency("c", tags=("-x",)), capable(tags=["x"]), "tags"),
    ("a version that fits", Dependency("c", version=">=1.0.0"), capable(version="1.2.0"), None),
    ("no version is 1.0.0", Dependency("c", version="=1.0.0"), capable(), None),
    ("another version", Dependency("c", version=">=2"), capable(version="1.2.0"), "version"),
    ("an empty constraint is any", Dependency("c", version=""), capable(version="0.0.1-rc.1"), None),
    ("a constraint nobody can read", Dependency("c", version="banana"), capable(), "version"),
    ("tags before version", Dependency("c", version=">=2", tags=("x",)), capable(), "tags"),
]


@pytest.mark.parametrize(("need", "agent", "stage"), [row[1:] for row in STAGE_ROWS], ids=[r[0] for r in STAGE_ROWS])
def test_each_falls_out_at_its_stage(need: Dependency, agent: Agent, stage: str | None) -> None:
    """Or not at all; the reason for nobody names the stage."""
    ranking = rank(view_of(agent), Wanted(need, "default"), lacks_nothing)

    assert [out.stage for out in ranking.out] == [stage] * (stage is not None)
    assert bool(ranking.providers) == (stage is None)
    assert ranking.fallen.total() == len(ranking.out)
    if stage is not None:
        (says,) = (text for name, text in STAGES.items() if name == stage)
        assert ranking.reason == f"none of the 1 that have it will do: 1 {says}"


ORDER_ROWS: list[tuple[str, Dependency, list[Agent], list[str]]] = [
    ("lowest id", ANY, [capable("b"), capable("a")], ["a", "b"]),
    ("highest version", ANY, [capable("a", version="1.9.0"), capable("b", version="1.10.0")], ["b", "a"]),
    ("a pre-release is below", ANY, [capable("a", version="1.0.0-beta"), capable("b", version="0.9.0")], ["a", "b"]),
    (
        "healthy before degraded",
        Dependency("c", tags=("+x",)),
        [capable("a", "degraded", version="2.0.0", tags=["x"]), capable("b")],
        ["b", "a"],
    ),
    (
        "tags before version",
        Dependency("c", tags=("+fast",)),
        [capable("a", version="2.0.0"), capable("b", version="1.0.0", tags=["fast"])],
        ["b", "a"],
    ),
    (
        "only what fits",
        Dependency("c", version="^1.0.0"),
        [capable("a", version="3.0.0"), capable("b", version="1.5.0")],
        ["b"],
    ),
    ("a build does not count", ANY, [capable("b", version="1.0.0+2"), capable("a", version="1.0.0+1")], ["a", "b"]),
    ("nobody", ANY, [], []),
]


@pytest.mark.parametrize(("need", "agents", "order"), [row[1:] for row in ORDER_ROWS], ids=[r[0] for r in ORDER_ROWS])
def test_the_best_comes_first(need: Dependency, agents: list[Agent], order: list[str]) -> None:
    """Health, tags, version, id; in whatever order they came."""
    assert best(need, *agents) == order
    assert best(need, *reversed(agents)) == order


def test_two_tools_of_one_agent_are_two_candidates() -> None:
    """They may share a capability; the better one is called, and of equals the first."""
    agent = an_agent(
        "p",
        capabilities=[
            {"name": "c", "function_name": "old", "version": "1.0.0"},
            {"name": "c", "function_name": "new", "version": "2.0.0"},
            {"name": "c", "function_name": "new_too", "version": "2.0.0"},
        ],
    )

    providers = rank(view_of(agent), Wanted(ANY, "default"), lacks_nothing).providers

    assert [each.tool_name for each in providers] == ["new", "new_too", "old"]


def test_a_capability_without_a_function_is_called_by_its_name() -> None:
    """As agents of the other form register it."""
    (provider,) = rank(view_of(capable()), Wanted(ANY, "default"), lacks_nothing).providers

    assert (provider.tool_name, provider.endpoint) == ("c", "http://a:1")


def test_rules_are_parameters() -> None:
    """Who else asks may call another status alive, ignore namespaces, and read constraints in another way."""
    rules = Rules(alive=frozenset({"healthy"}), isolates=False, constraint=lambda text: text.__eq__)
    wanted = Wanted(Dependency("c", version="banana"), "default", rules)
    agents = capable("a", "degraded", version="1.0.0"), capable("b", namespace="other", version="1.0.0")

    ranking = rank(view_of(*agents), wanted, lacks_nothing)

    assert [(out.agent_id, out.stage) for out in ranking.out] == [("a", "health"), ("b", "version")]
