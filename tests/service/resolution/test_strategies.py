"""Strategies: the choice among the matching providers."""

from collections import Counter
from typing import get_args

import pytest

from registry.model.registration.schema import Strategy
from registry.model.resolution import Provider
from registry.service.resolution.strategies import SelectionContext, choose


def a_provider(
    agent_id: str,
    *,
    degraded: bool = False,
    score: int = 0,
    weight: float = 1.0,
    zone: str | None = None,
    late: bool = False,
) -> Provider:
    """Return a provider."""
    return Provider(agent_id, f"http://{agent_id}", "tool", "1.0.0", degraded, score, weight, zone, 0, late=late)


THREE = [a_provider("a"), a_provider("b"), a_provider("c")]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def chosen_id(strategy: Strategy, context: SelectionContext, providers: list[Provider] = THREE) -> str:
    """Return the id of the chosen provider."""
    found = choose(providers, strategy, context)
    assert found is not None
    return found.agent_id


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_provider_is_chosen_from_none(strategy: Strategy) -> None:
    """A single provider is always chosen."""
    assert choose([], strategy, SelectionContext()) is None
    assert chosen_id(strategy, SelectionContext(), [a_provider("a")]) == "a"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_degraded_provider_is_never_chosen_before_a_healthy_one(strategy: Strategy) -> None:
    """Weight, zone and load do not change this."""
    providers = [a_provider("a"), a_provider("b", degraded=True, weight=1000, zone="z")]

    for number in range(50):
        context = SelectionContext(
            seed=str(number), key=str(number), round_robin_index=number, zone="z", loads={"b": 0.0}
        )
        assert chosen_id(strategy, context, providers) == "a"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_late_provider_is_chosen_only_if_all_are_late(strategy: Strategy) -> None:
    """Weight, zone and load do not change this."""
    providers = [a_provider("a"), a_provider("b", late=True, weight=1000, zone="z")]
    only_late = [a_provider("c", late=True, zone="z"), a_provider("d", late=True)]

    for number in range(50):
        context = SelectionContext(
            seed=str(number), key=str(number), round_robin_index=number, zone="z", loads={"b": 0.0}
        )
        assert chosen_id(strategy, context, providers) == "a"
        assert chosen_id(strategy, context, only_late) in "cd"


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ("best", "local")])
def test_the_choice_is_limited_to_the_best_tag_score(strategy: Strategy) -> None:
    """Preferred tags count before the strategy."""
    providers = [a_provider("a", score=10), a_provider("b", score=10), a_provider("c", score=5)]

    found = {
        chosen_id(strategy, SelectionContext(seed=str(n), key=str(n), round_robin_index=n, loads={"c": 0}), providers)
        for n in range(50)
    }

    assert "c" not in found


def test_round_robin_cycles_through_the_providers() -> None:
    """The order is by id, not by rank."""
    assert [chosen_id("round_robin", SelectionContext(round_robin_index=turn), THREE[::-1]) for turn in range(4)] == [
        "a",
        "b",
        "c",
        "a",
    ]


@pytest.mark.parametrize("strategy", ["random", "sticky", "weighted"])
def test_random_choices_are_even_and_reproducible(strategy: Strategy) -> None:
    """The choice depends on the consumer only, so every replica makes the same one."""
    drawn = [chosen_id(strategy, SelectionContext(seed=str(n), key=str(n))) for n in range(3000)]

    assert all(800 < count < 1200 for count in Counter(drawn).values())
    assert drawn == [chosen_id(strategy, SelectionContext(seed=str(n), key=str(n)), THREE[::-1]) for n in range(3000)]


def test_a_weight_is_a_share() -> None:
    """Weights of 3, 1 and 0 give three quarters, one quarter and none."""
    providers = [a_provider("a", weight=3), a_provider("b", weight=1), a_provider("c", weight=0)]

    drawn = Counter(chosen_id("weighted", SelectionContext(seed=str(n)), providers) for n in range(4000))

    assert drawn["c"] == 0
    assert 2800 < drawn["a"] < 3200


@pytest.mark.parametrize("strategy", ["random", "sticky", "weighted"])
def test_a_removed_provider_changes_only_its_own_consumers(strategy: Strategy) -> None:
    """This is the property of rendezvous hashing."""
    contexts = [SelectionContext(seed=str(n), key=str(n)) for n in range(500)]

    before = [chosen_id(strategy, context) for context in contexts]
    after = [chosen_id(strategy, context, THREE[1:]) for context in contexts]

    assert all(now == then for then, now in zip(before, after, strict=True) if then != "a")


def test_the_lowest_load_is_chosen_and_an_unknown_one_last() -> None:
    """Loads that are equal to one decimal are a tie, which the rank decides."""
    assert chosen_id("least_loaded", SelectionContext(loads={"a": 0.9, "b": 0.2})) == "b"
    assert chosen_id("least_loaded", SelectionContext(loads={"c": 7})) == "c"
    assert chosen_id("least_loaded", SelectionContext(loads={"a": 0.21, "b": 0.2, "c": 0.3})) == "a"
    assert chosen_id("least_loaded", SelectionContext()) == "a"


def test_only_the_loads_of_the_first_thousand_providers_count() -> None:
    """The load of a later provider is never refreshed; an old low value was chosen each time."""
    many = [a_provider(f"p{number:04}") for number in range(1_001)]
    loads = {provider.agent_id: 0.5 for provider in many} | {"p0007": 0.2, "p1000": 0.0}

    assert chosen_id("least_loaded", SelectionContext(loads=loads), many) == "p0007"


def test_a_provider_in_the_same_zone_is_chosen_first() -> None:
    """Without one, the best match of all zones is chosen."""
    providers = [a_provider("a", score=10), a_provider("b", zone="z"), a_provider("c", zone="z")]

    assert chosen_id("local", SelectionContext(zone="z"), providers) == "b"
    assert chosen_id("local", SelectionContext(zone="y"), providers) == "a"
    assert chosen_id("local", SelectionContext(zone=None), providers) == "a"
