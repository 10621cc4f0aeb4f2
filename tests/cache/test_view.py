"""The view: its indexes stay correct through every change."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from registry.cache.view import Record, View
from registry.model.agent import STATUSES, Status
from registry.model.change import Change, LogPosition
from registry.model.dependency_graph import with_any_namespace
from tests.support.builders import a_change, an_agent


def a_view(version: int = 0) -> View:
    """Return an empty view."""
    return View(LogPosition(version, "h"))


def test_a_change_updates_the_version_and_the_agent() -> None:
    """After an entry is applied, the view has its version and its agent."""
    view = a_view()

    view.apply(a_change(1, agent=an_agent("a", 1)), read_at=0)

    assert view.version == 1
    assert view.records["a"].agent.version == 1


def test_an_older_state_never_replaces_a_newer_one() -> None:
    """A fill may read an agent before the log entries that led to its state; those entries are then outdated."""
    view = a_view()
    view.put(an_agent("a", 5, "healthy"), None, 0)

    view.apply(a_change(3, "modify", an_agent("a", 3, "pending")), read_at=0)
    view.apply(a_change(4, "remove", an_agent("a", 4)), read_at=0)

    assert view.records["a"].agent.status == "healthy"
    assert view.version == 4


def test_a_status_change_updates_the_counts() -> None:
    """The counts include every status, also with zero agents."""
    view = a_view()
    view.put(an_agent("a", 1, "pending"), None, 0)
    view.put(an_agent("a", 2, "healthy"), 7, 0)

    assert view.count_by_status() == {"pending": 0, "healthy": 1, "degraded": 0, "expired": 0}


def test_draining_agents_are_indexed() -> None:
    """An agent stays in the index through other changes, and leaves it when it is removed."""
    view = a_view()
    view.put(an_agent("a", 1), None, 0)
    view.put(an_agent("b", 2, draining=True), None, 0)
    assert list(view.draining) == ["b"]

    view.put(an_agent("a", 3, draining=True), None, 0)
    view.put(an_agent("b", 4, "degraded", draining=True, namespace="n"), None, 0)
    assert view.draining == {"a": view.records["a"], "b": view.records["b"]}

    view.put(an_agent("a", 5), None, 0)
    view.remove(an_agent("b", 6))
    assert view.draining == {}


def test_a_body_is_encoded_once_for_each_change() -> None:
    """The same bytes object is returned until the agent or its heartbeat changes."""
    view = a_view()
    view.put(an_agent("a", 1), 1_000, 0)
    record = view.records["a"]
    body = record.json

    record.update_heartbeat(1_000, 1)
    assert record.json is body

    record.update_heartbeat(2_000, 2)
    assert orjson.loads(record.json)["last_heartbeat"] == "1970-01-01T00:00:02.000Z"


def test_an_older_heartbeat_is_ignored() -> None:
    """Responses of Redis may arrive out of order; the last heartbeat never goes back."""
    view = a_view()
    view.put(an_agent("a", 1), 5_000, 0)

    view.records["a"].update_heartbeat(4_000, 1)

    assert view.records["a"].heartbeat == 5_000


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["put", "remove"]),
        st.sampled_from(STATUSES),
        st.sampled_from(["n1", "n2"]),
        st.lists(st.sampled_from(["x", "y", "z"]), unique=True),
        st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["1", "2"])),
    ),
    max_size=40,
)


@given(OPERATIONS)
def test_the_indexes_match_a_scan_of_all_agents(
    operations: list[tuple[str, str, Status, str, list[str], dict[str, str]]],
) -> None:
    """After any changes every index contains exactly the agents that a full scan finds, and no empty entry."""
    view = a_view()
    for version, (agent_id, operation, status, namespace, names, labels) in enumerate(operations, start=1):
        agent = an_agent(
            agent_id,
            version,
            status,
            namespace=namespace,
            capabilities=[
                {
                    "name": n,
                    "dependencies": [{"capability": f"need-{n}", "required": "k" in labels}],
                    "tags": [*labels.values()],
                    **({"input_schema": {}} if "l" in labels else {}),
                }
                for n in names
            ],
            labels=labels,
        )
        view.apply(a_change(version, "remove" if operation == "remove" else "modify", agent), read_at=0)

    agents = [record.agent for record in view.records.values()]
    scanned = {
        (kind, key, agent.id)
        for agent in agents
        for kind, keys in (
            ("capability", {c.name for c in agent.indexed.capabilities}),
            ("dependency", {f"need-{c.name}" for c in agent.indexed.capabilities}),
            ("namespace", {agent.indexed.namespace}),
            ("label", set(agent.indexed.labels.items())),
            ("status", {agent.status}),
            ("tool", {("tool", tag) for c in agent.indexed.llm_tools for tag in (None, *c.tags)}),
        )
        for key in keys
    }
    indexes: dict[str, Mapping[Any, Mapping[str, Any]]] = {
        "capability": view.by_capability,
        "dependency": view.by_dependency,
        "namespace": view.by_namespace,
        "label": view.by_label,
        "status": view.by_status,
        "tool": view.by_llm_tool_tag,
    }
    indexed = {(kind, key, i) for kind, index in indexes.items() for key, found in index.items() for i in found}
    assert indexed == scanned
    assert all(view.by_capability.values())
    assert all(view.by_dependency.values())
    edges = Counter(edge for agent in agents for edge in with_any_namespace(agent.indexed.required_edges))
    assert {(name, needed): n for name, ways in view.required_edges.items() for needed, n in ways.items()} == edges
    assert {(name, needed): n for needed, ways in view.dependent_edges.items() for name, n in ways.items()} == edges
    assert all((*view.required_edges.values(), *view.dependent_edges.values(), *view.by_llm_tool_tag.values()))
    assert view.capability_count == sum(len(agent.indexed.capabilities) for agent in agents)
    assert sum(view.count_by_status().values()) == len(agents)


def test_a_heartbeat_from_the_future_is_corrected_after_a_clock_rollback() -> None:
    """The next heartbeat then counts again. The encoded agent changes with it; earlier heartbeats stay."""
    record = Record(an_agent(), 9_000, 0.0)
    assert b"00:00:09" in record.json

    record.clamp_heartbeat(9_000, 4_000)
    assert record.heartbeat == 9_000
    record.clamp_heartbeat(5_000, 4_000)
    assert record.heartbeat == 4_000
    assert b"00:00:04" in record.json
    record.update_heartbeat(4_500, 1.0)
    assert record.heartbeat == 4_500
    without_heartbeat = Record(an_agent(), None, 0.0)
    without_heartbeat.clamp_heartbeat(5_000, 4_000)
    assert without_heartbeat.heartbeat is None


def test_a_change_updates_the_old_and_the_new_capabilities_of_an_agent() -> None:
    """The lookup versions of other capabilities stay, so their consumers are not resolved again."""
    view = a_view(10)
    view.apply(a_change(11, agent=an_agent("a", 11, capabilities=[{"name": "x"}])), 0)
    view.apply(a_change(12, agent=an_agent("b", 12, capabilities=[{"name": "y"}])), 0)

    view.apply(a_change(13, "modify", an_agent("a", 13, capabilities=[{"name": "z"}])), 0)

    assert [view.last_change(name) for name in ("x", "y", "z", "never")] == [13, 12, 13, 10]
    view.apply(a_change(14, "modify", an_agent("b", 14, "degraded", capabilities=[{"name": "y"}])), 0)
    view.apply(a_change(15, "remove", an_agent("a", 15)), 0)
    assert [view.last_change(name) for name in ("x", "y", "z", "never")] == [13, 14, 15, 10]


def test_a_change_updates_all_capabilities_that_require_it() -> None:
    """It does so at any depth and through cycles; optional dependencies are not affected."""

    def link(name: str, version: int, needed: str, **fields: Any) -> Change:
        dependency = {"capability": needed, **fields}
        return a_change(
            version, agent=an_agent(name, version, capabilities=[{"name": name, "dependencies": [dependency]}])
        )

    view = a_view()
    for version, (name, needed) in enumerate([("a", "b"), ("b", "c"), ("c", "d"), ("x", "y"), ("y", "x")], start=1):
        view.apply(link(name, version, needed, required=True), 0)
    view.apply(link("may", 6, "d"), 0)

    view.apply(a_change(7, agent=an_agent("d", 7, capabilities=[{"name": "d"}])), 0)
    assert [view.last_change(name) for name in ("a", "b", "c", "d", "may", "x")] == [7, 7, 7, 7, 6, 5]
    view.apply(a_change(8, "modify", an_agent("y", 8, "degraded", capabilities=[{"name": "y"}])), 0)
    assert [view.last_change(name) for name in ("a", "x", "y")] == [7, 8, 8]
    view.apply(a_change(9, "remove", an_agent("c", 9)), 0)
    view.apply(a_change(10, "remove", an_agent("d", 10)), 0)
    assert [view.last_change(name) for name in ("a", "b", "c", "d")] == [9, 9, 9, 10]


def test_a_tool_updates_its_tags() -> None:
    """It also updates the lookup for any tool; a capability without an input schema is not a tool."""
    view = a_view()
    tool = {"name": "c", "tags": ["t", "u"], "input_schema": {}}
    view.apply(a_change(1, agent=an_agent("a", 1, capabilities=[tool])), 0)
    view.apply(a_change(2, agent=an_agent("b", 2, capabilities=[{"name": "d", "tags": ["t"]}])), 0)

    assert [view.last_change(("tool", tag)) for tag in ("t", "u", "v", None)] == [1, 1, 0, 1]
    view.apply(a_change(3, "modify", an_agent("a", 3, capabilities=[tool | {"tags": ["v"]}])), 0)
    assert [view.last_change(("tool", tag)) for tag in ("t", "u", "v", None)] == [3, 3, 3, 3]


def test_a_round_robin_consumer_updates_the_capability_it_requires() -> None:
    """The round robin positions of the other consumers depend on it."""
    view = a_view()
    dependencies = [{"capability": "x", "strategy": "round_robin"}, {"capability": "y"}]

    view.apply(a_change(1, agent=an_agent("a", 1, dependencies=dependencies)), 0)

    assert (view.last_change("x"), view.last_change("y")) == (1, 0)
