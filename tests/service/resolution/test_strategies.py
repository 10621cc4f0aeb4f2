"""How to choose among those that will do."""

from collections import Counter
from typing import get_args

import pytest

from registry.model.registration.schema import Strategy
from registry.model.resolution import Provider
from registry.service.resolution.strategies import SelectionContext, choose


def a_provider(
    agent_id: str, *, degraded: bool = False, score: int = 0, weight: float = 1.0, zone: str | None = None
) -> Provider:
    """Return one that will do."""
    return Provider(agent_id, f"http://{agent_id}", "tool", "1.0.0", degraded, score, weight, zone, 0)


THREE = [a_provider("a"), a_provider("b"), a_provider("c")]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def chosen(strategy: Strategy, asking: SelectionContext, providers: list[Provider] = THREE) -> str:
    """Return who is chosen."""
    found = choose(providers, strategy, asking)
    assert found is not None
    return found.agent_id


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_of_nobody_nobody_is_chosen(strategy: Strategy) -> None:
    """And of one that one."""
    assert choose([], strategy, SelectionContext()) is None
    assert chosen(strategy, SelectionContext(), [a_provider("a")]) == "a"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_degraded_one_is_never_taken_before_a_healthy_one(strategy: Strategy) -> None:
    """Whatever else speaks for it."""
    providers = [a_provider("a"), a_provider("b", degraded=True, weight=1000, zone="z")]

    for number in range(50):
        asking = SelectionContext(
            seed=str(number), key=str(number), round_robin_index=number, zone="z", loads={"b": 0.0}
        )
        assert chosen(strategy, asking, providers) == "a"


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ("best", "local")])
def test_the_choice_is_among_those_that_meet_the_tags_as_well_as_the_best(strategy: Strategy) -> None:
    """A preference goes before a strategy."""
    providers = [a_provider("a", score=10), a_provider("b", score=10), a_provider("c", score=5)]

    found = {
        chosen(strategy, SelectionContext(seed=str(n), key=str(n), round_robin_index=n, loads={"c": 0}), providers)
        for n in range(50)
    }

    assert "c" not in found


def test_turns_go_round() -> None:
    """By id, whatever the order of merit."""
    assert [chosen("round_robin", SelectionContext(round_robin_index=turn), THREE[::-1]) for turn in range(4)] == [
        "a",
        "b",
        "c",
        "a",
    ]


@pytest.mark.parametrize("strategy", ["random", "sticky", "weighted"])
def test_chance_is_even_and_the_same_for_the_same(strategy: Strategy) -> None:
    """A lot is drawn from who asks, so that every replica draws the same."""
    drawn = [chosen(strategy, SelectionContext(seed=str(n), key=str(n))) for n in range(3000)]

    assert all(800 < count < 1200 for count in Counter(drawn).values())
    assert drawn == [chosen(strategy, SelectionContext(seed=str(n), key=str(n)), THREE[::-1]) for n in range(3000)]


def test_a_weight_is_a_share() -> None:
    """Three to one to nothing."""
    providers = [a_provider("a", weight=3), a_provider("b", weight=1), a_provider("c", weight=0)]

    drawn = Counter(chosen("weighted", SelectionContext(seed=str(n)), providers) for n in range(4000))

    assert drawn["c"] == 0
    assert 2800 < drawn["a"] < 3200


@pytest.mark.parametrize("strategy", ["random", "sticky", "weighted"])
def test_when_one_goes_only_what_it_had_goes_elsewhere(strategy: Strategy) -> None:
    """Rendezvous hashing."""
    askings = [SelectionContext(seed=str(n), key=str(n)) for n in range(500)]

    before = [chosen(strategy, asking) for asking in askings]
    after = [chosen(strategy, asking, THREE[1:]) for asking in askings]

    assert all(now == then for then, now in zip(before, after, strict=True) if then != "a")


def test_the_lowest_load_is_taken_and_an_untold_one_last() -> None:
    """What is alike to one digit is as good, and then the best match is."""
    assert chosen("least_loaded", SelectionContext(loads={"a": 0.9, "b": 0.2})) == "b"
    assert chosen("least_loaded", SelectionContext(loads={"c": 7})) == "c"
    assert chosen("least_loaded", SelectionContext(loads={"a": 0.21, "b": 0.2, "c": 0.3})) == "a"
    assert chosen("least_loaded", SelectionContext()) == "a"


def test_loads_that_are_not_looked_at_any_more_decide_nothing() -> None:
    """Only the first thousand's are; what a replica knew of one behind these was never renewed, yet won each time."""
    many = [a_provider(f"p{number:04}") for number in range(1_001)]
    loads = {provider.agent_id: 0.5 for provider in many} | {"p0007": 0.2, "p1000": 0.0}

    assert chosen("least_loaded", SelectionContext(loads=loads), many) == "p0007"


def test_the_own_zone_comes_first() -> None:
    """In it the best match; without any in it the best match of all."""
    providers = [a_provider("a", score=10), a_provider("b", zone="z"), a_provider("c", zone="z")]

    assert chosen("local", SelectionContext(zone="z"), providers) == "b"
    assert chosen("local", SelectionContext(zone="y"), providers) == "a"
    assert chosen("local", SelectionContext(zone=None), providers) == "a"
