"""The graph of required dependencies: capabilities by namespace as nodes, `<namespace>/<capability>`."""

from collections.abc import Iterable
from typing import Final, TypeAlias

# A capability and one that it requires; the namespace of the second is `*` for any.
Edge: TypeAlias = tuple[str, str]

ANY_NAMESPACE: Final = "*"
"""Stands for all namespaces in a dependency."""
_ANY_PREFIX: Final = f"{ANY_NAMESPACE}/"


def is_any_namespace(node: str) -> bool:
    """Return whether a node stands for a capability in all namespaces."""
    return node.startswith(_ANY_PREFIX)


def capability_of(node: str) -> str:
    """Return the name of the capability of a node."""
    return node.partition("/")[2]


def any_namespace_node(node: str) -> str:
    """Return the node that stands for the capability of a node in all namespaces."""
    return _ANY_PREFIX + capability_of(node)


def with_any_namespace(edges: Iterable[Edge]) -> set[Edge]:
    """Return edges, and for each capability with requirements the edge to it from its name in all namespaces.

    With these a search through `*/c` reaches the requirements of every `<namespace>/c`.
    """
    found = set(edges)
    return found | {(any_namespace_node(name), name) for name, _ in found}
