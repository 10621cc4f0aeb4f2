"""Cycles: those who all lead to each other."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.service.resolution.graph import components_and_depths, find_cycles

TABLE: list[tuple[dict[str, list[str]], list[list[str]]]] = [
    ({}, []),
    ({"a": ["b"], "b": ["c"]}, []),
    ({"a": ["a"]}, [["a"]]),
    ({"a": ["b"], "b": ["a"]}, [["a", "b"]]),
    ({"c": ["b"], "b": ["a"], "a": ["c"], "d": ["a"]}, [["a", "b", "c"]]),
    ({"a": ["b"], "b": ["a"], "c": ["d", "a"], "d": ["c"]}, [["a", "b"], ["c", "d"]]),
    ({"a": ["b", "b"], "b": ["c", "a"], "c": ["b"]}, [["a", "b", "c"]]),
]


@pytest.mark.parametrize(("edges", "found"), TABLE)
def test_each_graph_has_the_cycles_it_has(edges: dict[str, list[str]], found: list[list[str]]) -> None:
    """Each once, sorted."""
    assert find_cycles(edges) == found


def test_a_long_chain_is_no_deep_recursion() -> None:
    """As long as the mesh is large."""
    ring = [f"{number:06d}" for number in range(100_000)]

    assert find_cycles({before: [after] for before, after in pairwise([*ring, ring[0]])}) == [ring]


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4)))
def test_those_in_a_cycle_reach_each_other_and_nobody_else_does(edges: dict[str, list[str]]) -> None:
    """As a slow search finds it."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        left = list(edges.get(start, ()))
        while left:
            node = left.pop()
            if node not in found:
                found.add(node)
                left += edges.get(node, ())
        return found

    nodes = set(edges) | {node for after in edges.values() for node in after}
    circular = {node for node in nodes if node in reached(node)}
    expected = {
        tuple(sorted(other for other in circular if other in reached(node) and node in reached(other)))
        for node in circular
    }

    assert [tuple(each) for each in find_cycles(edges)] == sorted(expected)


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4)))
def test_a_row_is_as_long_as_a_slow_search_finds_it(edges: dict[str, list[str]]) -> None:
    """Steps within a circle are left out."""
    within, depths = components_and_depths(edges)
    circular = find_cycles(edges)

    def depth(node: str) -> int:
        own = next((circle for circle in circular if node in circle), [])
        return 1 + max((depth(each) for each in edges.get(node, ()) if each not in own), default=0)

    assert within == {node: at for at, circle in enumerate(circular) for node in circle}
    assert depths == {node: depth(node) for node in depths}
    assert set(edges) <= depths.keys()
