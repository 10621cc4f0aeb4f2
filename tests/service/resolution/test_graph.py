"""The graph of capabilities: cycles and depths."""

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
def test_the_cycles_of_a_graph_are_found(edges: dict[str, list[str]], found: list[list[str]]) -> None:
    """Each is found once, sorted."""
    assert find_cycles(edges) == found


def test_a_long_cycle_causes_no_deep_recursion() -> None:
    """It has 100,000 nodes."""
    ring = [f"{number:06d}" for number in range(100_000)]

    assert find_cycles({before: [after] for before, after in pairwise([*ring, ring[0]])}) == [ring]


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4)))
def test_the_nodes_of_a_cycle_are_those_that_reach_each_other(edges: dict[str, list[str]]) -> None:
    """The expected result comes from a slow search."""

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
def test_the_depth_of_a_node_equals_the_longest_path(edges: dict[str, list[str]]) -> None:
    """Edges within a cycle do not count; the expected result comes from a slow search."""
    within, depths = components_and_depths(edges)
    circular = find_cycles(edges)

    def depth(node: str) -> int:
        own = next((cycle for cycle in circular if node in cycle), [])
        return 1 + max((depth(each) for each in edges.get(node, ()) if each not in own), default=0)

    assert within == {node: at for at, cycle in enumerate(circular) for node in cycle}
    assert depths == {node: depth(node) for node in depths}
    assert set(edges) <= depths.keys()
