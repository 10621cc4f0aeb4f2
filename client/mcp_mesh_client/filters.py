"""Filters of lists, watches and searches, and their encoding as a query string."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from mcp_mesh_client.errors import InvalidData

QueryPairs = tuple[tuple[str, str], ...]


class WaitFilters(TypedDict, total=False):
    """The filters of `wait_for()` other than the capability, with the names of the API."""

    namespace: str
    status: Literal["pending", "healthy", "degraded", "expired", "unhealthy", "offline", "any"]
    draining: bool
    agent_id: str
    label_selector: str
    capability_category: str
    capability_stability: str
    capability_tags: str | Sequence[str]
    version_constraint: str
    fuzzy_match: bool


class WatchFilters(WaitFilters, total=False):
    """The filters of `watch()`, with the names of the API."""

    capability: str | Sequence[str]
    match: Literal["all", "any"]


class AgentFilters(WatchFilters, total=False):
    """The filters of `agents()`, with the names of the API; `continue_` is `continue`, `wait` a duration."""

    resource_version: str | int
    resource_version_match: Literal["Exact", "NotOlderThan"]
    limit: int
    continue_: str
    fields: str | Sequence[str]
    wait: float | str


class SelectOptions(TypedDict, total=False):
    """The options of `select_agent()`: constraints on the provider, the strategy and its parameters.

    `exclude` are ids of agents that must not be selected.
    """

    version_constraint: str
    tags: Sequence[str | Sequence[str]]
    namespace: str
    strategy: Literal["best", "round_robin", "random", "least_loaded", "sticky", "weighted", "local"]
    key: str
    zone: str
    exclude: Sequence[str]
    resource_version: str


class CapabilityFilters(TypedDict, total=False):
    """The filters of `capabilities()`, with the names of the API."""

    name: str
    q: str
    description_contains: str
    category: str
    tags: str | Sequence[str]
    stability: str
    version_constraint: str
    fuzzy_match: bool
    include_deprecated: bool
    agent_namespace: str
    agent_status: Literal["pending", "healthy", "degraded", "expired", "unhealthy", "offline", "any"]
    agent_draining: bool
    agent_id: str
    resource_version: str | int
    resource_version_match: Literal["Exact", "NotOlderThan"]


def query_pairs(filters: Mapping[str, object]) -> QueryPairs:
    """Return filters as name and value pairs of a query string, sorted by name.

    A filter of None is omitted. Raises InvalidData for a value that cannot be encoded; the registry rejects unknown
    names.
    """
    pairs: list[tuple[str, str]] = []
    for given in sorted(filters):
        value, name = filters[given], given.rstrip("_")
        if value is None:
            continue
        if name == "wait" and isinstance(value, int | float) and not isinstance(value, bool):
            pairs.append((name, f"{max(1, round(value * 1000))}ms"))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            pairs.extend((name, _query_value(name, each)) for each in value)
        else:
            pairs.append((name, _query_value(name, value)))
    return tuple(pairs)


def _query_value(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise InvalidData(name, f"{name}: expected a string, number or boolean, not {type(value).__name__}")
