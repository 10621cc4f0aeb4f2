"""Filters and their encoding as a query string."""

from typing import Any

import pytest
from mcp_mesh_client import InvalidData
from mcp_mesh_client.filters import AgentFilters, CapabilityFilters, SelectOptions, WatchFilters, query_pairs

from registry.api.request.query_parsers import LIST_AGENTS_PARAMS, LIST_CAPABILITIES_PARAMS
from registry.api.request.select_arguments import SELECT_PARAMS


def test_the_filters_are_the_parameters_of_the_api() -> None:
    """A watch has additional parameters of its own."""
    stream = {"watch", "send_initial", "timeout"}

    assert {name.rstrip("_") for name in AgentFilters.__annotations__} == set(LIST_AGENTS_PARAMS) - stream
    assert set(CapabilityFilters.__annotations__) == set(LIST_CAPABILITIES_PARAMS)
    assert set(SelectOptions.__annotations__) | {"capability"} == set(SELECT_PARAMS)
    assert set(WatchFilters.__annotations__) < set(AgentFilters.__annotations__)


def test_values_are_encoded_for_the_api() -> None:
    """The order is fixed, so equal filters give equal queries."""
    filters = {
        "status": "any",
        "fuzzy_match": True,
        "capability": ["x", "y"],
        "continue_": "t",
        "limit": 5,
        "wait": 1.5,
    }

    assert query_pairs(filters) == query_pairs(dict(reversed(filters.items())))
    assert query_pairs(filters | {"namespace": None}) == (
        ("capability", "x"),
        ("capability", "y"),
        ("continue", "t"),
        ("fuzzy_match", "true"),
        ("limit", "5"),
        ("status", "any"),
        ("wait", "1500ms"),
    )


@pytest.mark.parametrize("value", [{"a": 1}, object(), [["x"]], b"x"])
def test_a_value_that_no_query_can_contain_is_rejected(value: Any) -> None:
    """The error names the filter."""
    with pytest.raises(InvalidData, match=r"^label_selector: expected a string"):
        query_pairs({"label_selector": value} if not isinstance(value, bytes) else {"label_selector": [value]})
