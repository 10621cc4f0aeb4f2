"""The resolver: a cached resolution equals a new one, and all replicas have the same."""

from collections.abc import Awaitable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.cache.view import View
from registry.model.agent import Agent
from registry.model.change import Change, LogPosition
from registry.model.resolution import CachedResolution
from tests.support.builders import a_change, an_agent
from tests.support.resolution_builders import make_resolver
from tests.support.yield_counter import count_yields

MCPMESH: dict[str, Any] = {"registration_format": {"name": "mcp-mesh"}}


class FakeLoads:
    """A store with the loads that the test sets."""

    def __init__(self) -> None:
        self.by_agent: dict[str, float] = {}
        self.requests: list[list[str]] = []

    def loads(self, agent_ids: Sequence[str]) -> Awaitable[list[float | None]]:
        """Return the last reported load of each agent."""
        self.requests.append(list(agent_ids))

        async def reported() -> list[float | None]:
            return [self.by_agent.get(agent_id) for agent_id in agent_ids]

        return reported()


class Replica:
    """A view that follows changes, and a resolver over it."""

    def __init__(self, source: FakeLoads | None = None) -> None:
        self.view = View(LogPosition(0, "h"))
        self.resolutions = make_resolver(source or FakeLoads())

    def apply(self, *agents: Agent) -> None:
        """Apply agents as the next changes."""
        for agent in agents:
            version = self.view.version + 1
            fields = {name: getattr(agent, name) for name in agent.__struct_fields__}
            self.view.apply(a_change(version, agent=Agent(**{**fields, "version": version})), 0)

    def resolution(self, agent_id: str) -> CachedResolution:
        """Return the resolution of an agent."""
        return self.resolutions.resolve(self.view, self.view.records[agent_id])

    def resolved(self, agent_id: str) -> Any:
        """Return the resolved dependencies as in a response."""
        return self.resolution(agent_id).response_fields["dependencies_resolved"]


def tool(name: str, capability: str, *dependencies: Any, **fields: Any) -> dict[str, Any]:
    """Return one function of an agent."""
    full = [each if isinstance(each, dict) else {"capability": each} for each in dependencies]
    return {"name": capability, "function_name": name, "dependencies": full, **fields}


def test_each_function_has_its_own_map() -> None:
    """An unresolved dependency is null, with a reason in a second map."""
    replica = Replica()
    replica.apply(
        an_agent("date-1", endpoint="http://date:8080", capabilities=[tool("get_date", "date_service")]),
        an_agent(
            "me",
            capabilities=[tool("greet", "greeting", "date_service", "weather"), tool("farewell", "goodbye")],
            dependencies=[{"capability": "greeting"}],
        ),
    )

    fields = replica.resolution("me").response_fields

    assert fields["dependencies_resolved"] == {
        "greet": {
            "date_service": {"agent_id": "date-1", "endpoint": "http://date:8080", "tool_name": "get_date"},
            "weather": None,
        },
        "farewell": {},
        "*": {"greeting": {"agent_id": "me", "endpoint": "http://a:1", "tool_name": "greet"}},
    }
    assert fields["dependencies_unresolved"] == {"greet": {"weather": "no agent has this capability"}}
    assert fields["dependencies_version"] == replica.resolution("me").digest


def test_an_agent_without_functions_and_dependencies_has_an_empty_resolution() -> None:
    """Its response has no fields about dependencies."""
    replica = Replica()
    replica.apply(an_agent("a", capabilities=[{"name": "c"}]))

    assert (
        replica.resolution("a").encoded_fields,
        replica.resolution("a").digest,
        replica.resolution("a").response_fields,
    ) == (b"", "", {})


def test_the_first_resolved_dependency_of_one_name_is_shown() -> None:
    """The map has one entry for each capability."""
    replica = Replica()
    replica.apply(
        an_agent("p", capabilities=[{"name": "c", "tags": ["x"]}]),
        an_agent(
            "me",
            capabilities=[
                tool("f", "g", {"capability": "c", "tags": ["y"]}, {"capability": "c", "tags": ["x"]}),
            ],
        ),
    )

    fields = replica.resolution("me").response_fields

    assert fields["dependencies_resolved"]["f"]["c"]["agent_id"] == "p"
    assert fields["dependencies_unresolved"] == {}


def test_an_unrelated_change_keeps_a_resolution() -> None:
    """The same object is returned while other capabilities come and go."""
    replica = Replica()
    replica.apply(an_agent("p", capabilities=[{"name": "c"}]), an_agent("me", capabilities=[tool("f", "g", "c")]))
    before = replica.resolution("me")

    for number in range(20):
        replica.apply(an_agent(f"other-{number % 3}", capabilities=[{"name": f"other-{number}"}]))
        assert replica.resolution("me") is before


def test_round_robin_assigns_providers_in_the_order_of_registration() -> None:
    """A new consumer changes no other; when one is removed, the consumers after it move up."""
    replica = Replica()
    dependency = {"capability": "c", "strategy": "round_robin"}
    replica.apply(*(an_agent(f"p{number}", capabilities=[{"name": "c"}]) for number in range(3)))

    def provider(agent_id: str) -> str:
        return str(replica.resolved(agent_id)["f"]["c"]["agent_id"])

    found = []
    for number, agent_id in enumerate("zyxw"):
        agent = an_agent(agent_id, capabilities=[tool("f", "g", dependency)])
        fields = {name: getattr(agent, name) for name in agent.__struct_fields__}
        replica.apply(Agent(**{**fields, "created": number}))
        found.append([provider(each) for each in "zyxw"[: number + 1]])

    assert found == [["p0"], ["p0", "p1"], ["p0", "p1", "p2"], ["p0", "p1", "p2", "p0"]]
    replica.view.apply(a_change(replica.view.version + 1, "remove", replica.view.records["z"].agent), 0)
    assert [provider(each) for each in "zyxw"[1:]] == ["p1", "p2", "p0"]
    replica.view.apply(a_change(99, "remove", an_agent("z", 99)), 0)


async def test_loads_are_read_for_agents_that_select_by_load() -> None:
    """They are read once in two seconds, and only of matching providers."""
    source = FakeLoads()
    replica = Replica(source)
    dependency = {"capability": "c", "strategy": "least_loaded"}
    replica.apply(
        an_agent("a", capabilities=[{"name": "c"}]),
        an_agent("b", capabilities=[{"name": "c"}]),
        an_agent("gone", status="expired", capabilities=[{"name": "c"}]),
        an_agent("me", capabilities=[tool("f", "g", dependency)]),
    )
    source.by_agent = {"a": 0.9, "b": 0.1}

    for _ in range(3):
        await replica.resolutions.resolve_current(replica.view, replica.view.records["me"])

    assert replica.resolution("me").depends_on_load
    assert replica.resolved("me")["f"]["c"]["agent_id"] == "b"
    assert source.requests == [["a", "b"]]


CAPABILITIES = st.sampled_from(["c", "d", "e", "f"])
TAG_REQUIREMENTS = st.lists(st.sampled_from(["x", "+x", "-x", ["x", "+u"]]), max_size=2)
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
# Most dependencies have no other conditions, so that most are resolved: an unresolved chain never changes.
PLAIN_DEPENDENCIES = st.fixed_dictionaries({"capability": CAPABILITIES}, optional={"required": st.just(True)})
DEPENDENCIES = PLAIN_DEPENDENCIES | st.fixed_dictionaries(
    {"capability": CAPABILITIES},
    optional={
        "version": st.sampled_from(["", ">=1.1", "^2"]),
        "tags": TAG_REQUIREMENTS,
        "namespace": st.sampled_from(["default", "other", "*"]),
        "strategy": st.sampled_from(["best", "round_robin", "random", "sticky", "weighted", "local"]),
        # These also form cycles, which no registration may, but a store may contain.
        "required": st.booleans(),
        "matchMode": st.sampled_from(["subset", "strict"]),
        "expectedSchemaHash": st.sampled_from(["h1", "h2"]),
        "expectedSchemaCanonical": st.just(SCHEMA),
    },
)
FILTERS = st.builds(
    lambda entries, mode: {"filter": entries, "filter_mode": mode},
    st.lists(st.one_of(CAPABILITIES, st.builds(lambda tags: {"tags": tags}, TAG_REQUIREMENTS)), max_size=2),
    st.sampled_from(["all", "best_match", "*"]),
)
TOOLS = st.fixed_dictionaries(
    {"name": CAPABILITIES, "dependencies": st.lists(DEPENDENCIES, max_size=2)},
    optional={
        "version": st.sampled_from(["1.0.0", "1.2.0", "2.0.0", "2.0.0-rc.1"]),
        "tags": st.lists(st.sampled_from(["x", "u"]), max_size=2),
        "weight": st.sampled_from([0, 1, 5]),
        "input_schema": st.just({"type": "object"}),
        "outputSchemaHash": st.sampled_from(["h1", "h2"]),
        "outputSchemaCanonical": st.sampled_from([{"type": "object"}, SCHEMA]),
        "kwargs": st.sampled_from([{}, {"vendor": "v"}]),
        "llm_filter": FILTERS,
        "llm_provider": DEPENDENCIES,
    },
)
FUNCTIONS = st.lists(TOOLS, max_size=3).map(
    lambda tools: [{**each, "function_name": f"f{at}"} for at, each in enumerate(tools)]
)
ROUTES = FUNCTIONS.map(lambda tools: [{**each, "name": "", "function_name": f"r{at}"} for at, each in enumerate(tools)])
AGENTS = st.builds(
    lambda agent_id, status, mcpmesh, **fields: an_agent(
        agent_id, 1, status, **fields, **({} if mcpmesh is None else {"registration_format": mcpmesh})
    ),
    st.sampled_from([f"a{number}" for number in range(6)]),
    st.sampled_from([*["healthy"] * 4, "pending", "degraded", "expired"]),
    st.one_of(st.none(), ROUTES.map(lambda routes: {"name": "mcp-mesh", "routes": routes})),
    endpoint=st.sampled_from(["http://one", "http://two"]),
    capabilities=FUNCTIONS,
    namespace=st.sampled_from([*["default"] * 4, "other"]),
    labels=st.sampled_from([{}, {"zone": "z"}]),
    dependencies=st.lists(DEPENDENCIES, max_size=1),
    draining=st.sampled_from([*[False] * 5, True]),
)
STEPS = st.lists(st.tuples(AGENTS, st.booleans(), st.sets(st.integers(0, 5), max_size=3)), max_size=25)


@settings(max_examples=100)
@given(STEPS)
def test_a_cached_resolution_equals_a_new_one_on_any_replica(
    steps: list[tuple[Agent, bool, set[int]]],
) -> None:
    """It holds for any changes, lookups in between and time of the fill, with all formats and schemas."""
    eager, lazy = Replica(), Replica()
    for at, (agent, remove, looked_up) in enumerate(steps):
        known = eager.view.records.get(agent.id)
        if remove and known is None:
            continue
        written = known.agent if remove and known is not None else agent
        fields = {name: getattr(written, name) for name in written.__struct_fields__}
        created = known.agent.created if known is not None else at
        version = eager.view.version + 1
        applied = Agent(**{**fields, "version": version, "created": created})
        change: Change = a_change(version, "remove" if remove else "modify" if known else "add", applied)
        for replica in (eager, lazy):
            replica.view.apply(change, 0)
        for number in looked_up:
            if f"a{number}" in eager.view.records:
                eager.resolution(f"a{number}")

    filled = Replica()
    filled.view.version = eager.view.version
    for record in reversed(eager.view.records.values()):
        filled.view.put(record.agent, None, 0)
    for agent_id in eager.view.records:
        cached, first, new = (
            (resolution.digest, resolution.encoded_fields, resolution.dependencies)
            for resolution in (replica.resolution(agent_id) for replica in (eager, lazy, filled))
        )
        assert cached == new
        assert first == new


LINKS = st.tuples(
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.sampled_from([*["healthy"] * 3, "expired"]),
    st.sampled_from(["p", "q", "r", "s"]),
    st.lists(st.tuples(st.sampled_from(["p", "q", "r", "s"]), st.booleans()), max_size=2),
    st.booleans(),
)


@settings(max_examples=150)
@given(st.lists(LINKS, min_size=3, max_size=15))
def test_a_change_reaches_all_agents_that_depend_on_it(
    links: list[tuple[str, Any, str, list[tuple[str, bool]], bool]],
) -> None:
    """After each change, every resolution equals that of a new replica."""
    eager = Replica()
    for name, status, capability, needed, mcpmesh in links:
        dependencies = [{"capability": each, **({"required": True} if required else {})} for each, required in needed]
        fields: dict[str, Any] = {
            "capabilities": [tool("f", capability, *dependencies)],
            **(MCPMESH if mcpmesh else {}),
        }
        eager.apply(an_agent(name, 1, status, **fields))
        new = Replica()
        new.view.version = eager.view.version
        for record in eager.view.records.values():
            new.view.put(record.agent, None, 0)
        for agent_id in eager.view.records:
            assert eager.resolution(agent_id).dependencies == new.resolution(agent_id).dependencies
            assert eager.resolution(agent_id).digest == new.resolution(agent_id).digest


@pytest.mark.parametrize("gone", [3, 12_000])
def test_removed_capabilities_are_forgotten(gone: int) -> None:
    """Their consumers still detect when one comes back or another one is removed."""
    replica = Replica()
    replica.apply(an_agent("p", capabilities=[{"name": "c"}]), an_agent("me", capabilities=[tool("f", "g", "c")]))
    assert replica.resolved("me")["f"]["c"] is not None
    replica.apply(an_agent("p", capabilities=[]))
    for number in range(gone):
        replica.apply(an_agent("churn", capabilities=[{"name": f"x{number}"}]))

    assert replica.resolved("me")["f"]["c"] is None
    assert len(replica.view._last_changes) <= 10_100
    replica.apply(an_agent("p", capabilities=[{"name": "c"}]))
    assert replica.resolved("me")["f"]["c"] is not None


async def test_a_resolution_with_many_dependencies_yields_to_other_tasks() -> None:
    """One registration with 10,000 different dependencies blocked a replica for minutes."""
    replica, other = Replica(), Replica()
    provider = an_agent("p", capabilities=[{"name": "c", "function_name": f"f{at}"} for at in range(100)])
    dependencies = [{"capability": "c", "tags": [f"+{at}"]} for at in range(300)]
    for each in replica, other:
        each.apply(provider, an_agent("z", capabilities=[{"name": "x", "dependencies": dependencies}]))

    async with count_yields() as counter:
        found = await replica.resolutions.resolve_async(replica.view, replica.view.records["z"])

    assert counter.yields > 2
    assert found.encoded_fields == other.resolution("z").encoded_fields


def test_the_size_of_a_response_is_limited() -> None:
    """A provider with 1 MB of kwargs made a response of 10 GB for 10,000 dependencies."""
    replica = Replica()
    replica.apply(an_agent("p", **MCPMESH, capabilities=[tool("f", "c", kwargs={"k": "x" * (1 << 20)})]))
    replica.apply(an_agent("z", **MCPMESH, capabilities=[tool("g", "d", *["c"] * 100)]))

    found = replica.resolution("z").response_fields["dependencies_resolved"]["g"]

    assert [each["agent_id"] for each in found] == ["p"] * 100
    assert ["kwargs" in each for each in found] == [True] * 15 + [False] * 85
