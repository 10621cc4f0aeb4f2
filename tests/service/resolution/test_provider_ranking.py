"""The provider matcher: the stage at which a candidate is rejected, and the order of the providers."""

import pytest

from registry.model.agent import Agent, Dependency
from registry.model.resolution import STAGE_DESCRIPTIONS
from registry.service.resolution.match_policy import MatchPolicy
from registry.service.resolution.provider_ranking import ProviderMatcher, rank
from tests.support.builders import an_agent
from tests.support.resolution_builders import no_missing_requirement, provider_agent, view_of


def best(dependency: Dependency, *agents: Agent, namespace: str | None = "default") -> list[str]:
    """Return the ids of the providers, best first."""
    return [
        each.agent_id
        for each in rank(view_of(*agents), ProviderMatcher(dependency, namespace), no_missing_requirement).providers
    ]


ANY = Dependency("c")
STAGE_ROWS: list[tuple[str, Dependency, Agent, str | None]] = [
    ("healthy", ANY, provider_agent(), None),
    ("degraded is alive", ANY, provider_agent(status="degraded"), None),
    ("pending is listed but not chosen", ANY, provider_agent(status="pending"), "health"),
    ("expired", ANY, provider_agent(status="expired"), "health"),
    ("draining", ANY, provider_agent(draining=True), "draining"),
    ("health comes first", Dependency("c", tags=("x",)), provider_agent(status="expired", draining=True), "health"),
    ("another namespace", ANY, provider_agent(namespace="other"), "namespace"),
    ("the namespace that is named", Dependency("c", namespace="other"), provider_agent(namespace="other"), None),
    ("not the own one then", Dependency("c", namespace="other"), provider_agent(), "namespace"),
    ("any namespace", Dependency("c", namespace="*"), provider_agent(namespace="other"), None),
    ("all tags", Dependency("c", tags=("x", "u")), provider_agent(tags=["x", "u", "y"]), None),
    ("one tag short", Dependency("c", tags=("x", "u")), provider_agent(tags=["x"]), "tags"),
    ("excluded", Dependency("c", tags=("-x",)), provider_agent(tags=["x"]), "tags"),
    ("a version that fits", Dependency("c", version=">=1.0.0"), provider_agent(version="1.2.0"), None),
    ("no version is 1.0.0", Dependency("c", version="=1.0.0"), provider_agent(), None),
    ("another version", Dependency("c", version=">=2"), provider_agent(version="1.2.0"), "version"),
    ("an empty constraint is any", Dependency("c", version=""), provider_agent(version="0.0.1-rc.1"), None),
    ("a constraint nobody can read", Dependency("c", version="banana"), provider_agent(), "version"),
    ("tags before version", Dependency("c", version=">=2", tags=("x",)), provider_agent(), "tags"),
]


@pytest.mark.parametrize(
    ("dependency", "agent", "stage"), [row[1:] for row in STAGE_ROWS], ids=[r[0] for r in STAGE_ROWS]
)
def test_a_candidate_is_rejected_at_its_stage(dependency: Dependency, agent: Agent, stage: str | None) -> None:
    """The reason names the stage if there is no provider."""
    ranking = rank(view_of(agent), ProviderMatcher(dependency, "default"), no_missing_requirement)

    assert [rejected.stage for rejected in ranking.rejected_sample] == [stage] * (stage is not None)
    assert bool(ranking.providers) == (stage is None)
    assert ranking.rejected_by_stage.total() == len(ranking.rejected_sample)
    if stage is not None:
        (description,) = (text for name, text in STAGE_DESCRIPTIONS.items() if name == stage)
        assert ranking.reason == f"none of the 1 candidates qualifies: 1 {description}"


ORDER_ROWS: list[tuple[str, Dependency, list[Agent], list[str]]] = [
    ("lowest id", ANY, [provider_agent("b"), provider_agent("a")], ["a", "b"]),
    (
        "the last registration before the lower id",
        ANY,
        [provider_agent("a", created=1), provider_agent("b", created=2), provider_agent("c", created=1)],
        ["b", "a", "c"],
    ),
    (
        "version before the last registration",
        ANY,
        [provider_agent("a", created=1, version="1.1.0"), provider_agent("b", created=2)],
        ["a", "b"],
    ),
    ("highest version", ANY, [provider_agent("a", version="1.9.0"), provider_agent("b", version="1.10.0")], ["b", "a"]),
    (
        "a pre-release is below",
        ANY,
        [provider_agent("a", version="1.0.0-beta"), provider_agent("b", version="0.9.0")],
        ["a", "b"],
    ),
    (
        "healthy before degraded",
        Dependency("c", tags=("+x",)),
        [provider_agent("a", "degraded", version="2.0.0", tags=["x"]), provider_agent("b")],
        ["b", "a"],
    ),
    (
        "tags before version",
        Dependency("c", tags=("+fast",)),
        [provider_agent("a", version="2.0.0"), provider_agent("b", version="1.0.0", tags=["fast"])],
        ["b", "a"],
    ),
    (
        "only what fits",
        Dependency("c", version="^1.0.0"),
        [provider_agent("a", version="3.0.0"), provider_agent("b", version="1.5.0")],
        ["b"],
    ),
    (
        "a build does not count",
        ANY,
        [provider_agent("b", version="1.0.0+2"), provider_agent("a", version="1.0.0+1")],
        ["a", "b"],
    ),
    ("nobody", ANY, [], []),
]


@pytest.mark.parametrize(
    ("dependency", "agents", "order"), [row[1:] for row in ORDER_ROWS], ids=[r[0] for r in ORDER_ROWS]
)
def test_providers_are_sorted_best_first(dependency: Dependency, agents: list[Agent], order: list[str]) -> None:
    """Health, tags, version, time of registration and id decide, in this order."""
    assert best(dependency, *agents) == order
    assert best(dependency, *reversed(agents)) == order


def test_late_providers_come_after_equal_ones() -> None:
    """Before the time of registration, after the version; a degraded provider is not equal to a healthy one."""
    agents = [
        provider_agent("a", created=1),
        provider_agent("late", created=2),
        provider_agent("newer", version="1.1.0"),
        provider_agent("z", "degraded"),
    ]

    ranking = rank(view_of(*agents), ProviderMatcher(ANY, "default"), no_missing_requirement, {"late", "newer"})

    assert [each.agent_id for each in ranking.providers] == ["newer", "a", "late", "z"]


def test_two_tools_of_one_agent_are_two_candidates() -> None:
    """They may share a capability; the better one is called, and the first of equals."""
    agent = an_agent(
        "p",
        capabilities=[
            {"name": "c", "function_name": "old", "version": "1.0.0"},
            {"name": "c", "function_name": "new", "version": "2.0.0"},
            {"name": "c", "function_name": "new_too", "version": "2.0.0"},
        ],
    )

    providers = rank(view_of(agent), ProviderMatcher(ANY, "default"), no_missing_requirement).providers

    assert [each.tool_name for each in providers] == ["new", "new_too", "old"]


def test_a_capability_without_a_function_is_called_by_its_name() -> None:
    """The native format has no function names."""
    (provider,) = rank(view_of(provider_agent()), ProviderMatcher(ANY, "default"), no_missing_requirement).providers

    assert (provider.tool_name, provider.endpoint) == ("c", "http://a:1")


def test_the_match_policy_sets_the_rules() -> None:
    """It sets the selectable statuses, the isolation of namespaces and the grammar of constraints."""
    rules = MatchPolicy(
        selectable_statuses=frozenset({"healthy"}), isolate_namespaces=False, parse_constraint=lambda text: text.__eq__
    )
    matcher = ProviderMatcher(Dependency("c", version="banana"), "default", rules)
    agents = provider_agent("a", "degraded", version="1.0.0"), provider_agent("b", namespace="other", version="1.0.0")

    ranking = rank(view_of(*agents), matcher, no_missing_requirement)

    assert [(rejected.agent_id, rejected.stage) for rejected in ranking.rejected_sample] == [
        ("a", "health"),
        ("b", "version"),
    ]
