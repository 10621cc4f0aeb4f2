"""Resolutions: what is kept always equals what would be found out anew, and is the same on every replica."""

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


class NoLoads:
    """A store in which nobody told a load but those set here."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}
        self.asked: list[list[str]] = []

    def loads(self, agent_ids: Sequence[str]) -> Awaitable[list[float | None]]:
        """Return the load each agent told last."""
        self.asked.append(list(agent_ids))

        async def answer() -> list[float | None]:
            return [self.told.get(agent_id) for agent_id in agent_ids]

        return answer()


class Replica:
    """A view that follows changes, and what resolves over it."""

    def __init__(self, source: NoLoads | None = None) -> None:
        self.view = View(LogPosition(0, "h"))
        self.resolutions = make_resolver(source or NoLoads())

    def take(self, *agents: Agent) -> None:
        """Take agents as the next changes."""
        for agent in agents:
            version = self.view.version + 1
            fields = {name: getattr(agent, name) for name in agent.__struct_fields__}
            self.view.apply(a_change(version, agent=Agent(**{**fields, "version": version})), 0)

    def of(self, agent_id: str) -> CachedResolution:
        """Return what an agent's dependencies resolve to."""
        return self.resolutions.resolve(self.view, self.view.records[agent_id])

    def resolved(self, agent_id: str) -> Any:
        """Return the map that answers show."""
        return self.of(agent_id).response_fields["dependencies_resolved"]


def tool(name: str, capability: str, *needs: Any, **fields: Any) -> dict[str, Any]:
    """Return one function of an agent."""
    needed = [need if isinstance(need, dict) else {"capability": need} for need in needs]
    return {"name": capability, "function_name": name, "dependencies": needed, **fields}


def test_each_function_has_its_own_map() -> None:
    """In the shape of the page; unresolved is null, with a reason beside it."""
    replica = Replica()
    replica.take(
        an_agent("date-1", endpoint="http://date:8080", capabilities=[tool("get_date", "date_service")]),
        an_agent(
            "me",
            capabilities=[tool("greet", "greeting", "date_service", "weather"), tool("farewell", "goodbye")],
            dependencies=[{"capability": "greeting"}],
        ),
    )

    fields = replica.of("me").response_fields

    assert fields["dependencies_resolved"] == {
        "greet": {
            "date_service": {"agent_id": "date-1", "endpoint": "http://date:8080", "tool_name": "get_date"},
            "weather": None,
        },
        "farewell": {},
        "*": {"greeting": {"agent_id": "me", "endpoint": "http://a:1", "tool_name": "greet"}},
    }
    assert fields["dependencies_unresolved"] == {"greet": {"weather": "no agent has this capability"}}
    assert fields["dependencies_version"] == replica.of("me").digest


def test_an_agent_without_functions_and_needs_is_told_nothing() -> None:
    """It registered in the other form."""
    replica = Replica()
    replica.take(an_agent("a", capabilities=[{"name": "c"}]))

    assert (replica.of("a").encoded_fields, replica.of("a").digest, replica.of("a").response_fields) == (b"", "", {})


def test_of_two_needs_of_one_name_the_first_that_is_met_is_shown() -> None:
    """The map has room for one."""
    replica = Replica()
    replica.take(
        an_agent("p", capabilities=[{"name": "c", "tags": ["x"]}]),
        an_agent(
            "me",
            capabilities=[
                tool("f", "g", {"capability": "c", "tags": ["y"]}, {"capability": "c", "tags": ["x"]}),
            ],
        ),
    )

    fields = replica.of("me").response_fields

    assert fields["dependencies_resolved"]["f"]["c"]["agent_id"] == "p"
    assert fields["dependencies_unresolved"] == {}


def test_what_nobody_asked_for_moves_nothing() -> None:
    """The very same answer is kept while other capabilities come and go."""
    replica = Replica()
    replica.take(an_agent("p", capabilities=[{"name": "c"}]), an_agent("me", capabilities=[tool("f", "g", "c")]))
    before = replica.of("me")

    for number in range(20):
        replica.take(an_agent(f"other-{number % 3}", capabilities=[{"name": f"other-{number}"}]))
        assert replica.of("me") is before


def test_consumers_take_turns_in_the_order_in_which_they_came() -> None:
    """A newcomer moves nobody; when one leaves, those after it move up."""
    replica = Replica()
    need = {"capability": "c", "strategy": "round_robin"}
    replica.take(*(an_agent(f"p{number}", capabilities=[{"name": "c"}]) for number in range(3)))

    def provider(agent_id: str) -> str:
        return str(replica.resolved(agent_id)["f"]["c"]["agent_id"])

    found = []
    for number, agent_id in enumerate("zyxw"):
        made = an_agent(agent_id, capabilities=[tool("f", "g", need)])
        fields = {name: getattr(made, name) for name in made.__struct_fields__}
        replica.take(Agent(**{**fields, "created": number}))
        found.append([provider(each) for each in "zyxw"[: number + 1]])

    assert found == [["p0"], ["p0", "p1"], ["p0", "p1", "p2"], ["p0", "p1", "p2", "p0"]]
    replica.view.apply(a_change(replica.view.version + 1, "remove", replica.view.records["z"].agent), 0)
    assert [provider(each) for each in "zyxw"[1:]] == ["p1", "p2", "p0"]
    replica.view.apply(a_change(99, "remove", an_agent("z", 99)), 0)


async def test_loads_are_learnt_for_those_who_choose_by_them() -> None:
    """Once in two seconds, and only of those that will do."""
    source = NoLoads()
    replica = Replica(source)
    need = {"capability": "c", "strategy": "least_loaded"}
    replica.take(
        an_agent("a", capabilities=[{"name": "c"}]),
        an_agent("b", capabilities=[{"name": "c"}]),
        an_agent("gone", status="expired", capabilities=[{"name": "c"}]),
        an_agent("me", capabilities=[tool("f", "g", need)]),
    )
    source.told = {"a": 0.9, "b": 0.1}

    for _ in range(3):
        await replica.resolutions.resolve_with_loads(replica.view, replica.view.records["me"])

    assert replica.of("me").depends_on_load
    assert replica.resolved("me")["f"]["c"]["agent_id"] == "b"
    assert source.asked == [["a", "b"]]


CAPABILITIES = st.sampled_from(["c", "d", "e", "f"])
TAG_NEEDS = st.lists(st.sampled_from(["x", "+x", "-x", ["x", "+u"]]), max_size=2)
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
# Mostly plain, so that most are met: a chain of those that nobody meets moves nothing.
PLAIN_NEEDS = st.fixed_dictionaries({"capability": CAPABILITIES}, optional={"required": st.just(True)})
NEEDS = PLAIN_NEEDS | st.fixed_dictionaries(
    {"capability": CAPABILITIES},
    optional={
        "version": st.sampled_from(["", ">=1.1", "^2"]),
        "tags": TAG_NEEDS,
        "namespace": st.sampled_from(["default", "other", "*"]),
        "strategy": st.sampled_from(["best", "round_robin", "random", "sticky", "weighted", "local"]),
        # Chains of these close circles, too: what no registration may do can still stand in a store.
        "required": st.booleans(),
        "matchMode": st.sampled_from(["subset", "strict"]),
        "expectedSchemaHash": st.sampled_from(["h1", "h2"]),
        "expectedSchemaCanonical": st.just(SCHEMA),
    },
)
FILTERS = st.builds(
    lambda entries, mode: {"filter": entries, "filter_mode": mode},
    st.lists(st.one_of(CAPABILITIES, st.builds(lambda tags: {"tags": tags}, TAG_NEEDS)), max_size=2),
    st.sampled_from(["all", "best_match", "*"]),
)
TOOLS = st.fixed_dictionaries(
    {"name": CAPABILITIES, "dependencies": st.lists(NEEDS, max_size=2)},
    optional={
        "version": st.sampled_from(["1.0.0", "1.2.0", "2.0.0", "2.0.0-rc.1"]),
        "tags": st.lists(st.sampled_from(["x", "u"]), max_size=2),
        "weight": st.sampled_from([0, 1, 5]),
        "input_schema": st.just({"type": "object"}),
        "outputSchemaHash": st.sampled_from(["h1", "h2"]),
        "outputSchemaCanonical": st.sampled_from([{"type": "object"}, SCHEMA]),
        "kwargs": st.sampled_from([{}, {"vendor": "v"}]),
        "llm_filter": FILTERS,
        "llm_provider": NEEDS,
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
    dependencies=st.lists(NEEDS, max_size=1),
    draining=st.sampled_from([*[False] * 5, True]),
)
STEPS = st.lists(st.tuples(AGENTS, st.booleans(), st.sets(st.integers(0, 5), max_size=3)), max_size=25)


@settings(max_examples=100)
@given(STEPS)
def test_what_is_kept_equals_what_is_found_anew_and_replicas_agree(
    steps: list[tuple[Agent, bool, set[int]]],
) -> None:
    """Whatever changes, whoever was asked in between, and when the replica was filled; all forms, chains, models."""
    asked, lazy = Replica(), Replica()
    for at, (agent, remove, questions) in enumerate(steps):
        known = asked.view.records.get(agent.id)
        if remove and known is None:
            continue
        made = known.agent if remove and known is not None else agent
        fields = {name: getattr(made, name) for name in made.__struct_fields__}
        created = known.agent.created if known is not None else at
        version = asked.view.version + 1
        taken = Agent(**{**fields, "version": version, "created": created})
        change: Change = a_change(version, "remove" if remove else "modify" if known else "add", taken)
        for replica in (asked, lazy):
            replica.view.apply(change, 0)
        for number in questions:
            if f"a{number}" in asked.view.records:
                asked.of(f"a{number}")

    filled = Replica()
    filled.view.version = asked.view.version
    for record in reversed(asked.view.records.values()):
        filled.view.put(record.agent, None, 0)
    for agent_id in asked.view.records:
        kept, first, anew = (
            (answer.digest, answer.encoded_fields, answer.dependencies)
            for answer in (replica.of(agent_id) for replica in (asked, lazy, filled))
        )
        assert kept == anew
        assert first == anew


LINKS = st.tuples(
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.sampled_from([*["healthy"] * 3, "expired"]),
    st.sampled_from(["p", "q", "r", "s"]),
    st.lists(st.tuples(st.sampled_from(["p", "q", "r", "s"]), st.booleans()), max_size=2),
    st.booleans(),
)


@settings(max_examples=150)
@given(st.lists(LINKS, min_size=3, max_size=15))
def test_a_chain_moves_all_that_hang_on_it(links: list[tuple[str, Any, str, list[tuple[str, bool]], bool]]) -> None:
    """However far away: everybody is asked after each change, and is told what a new replica would tell."""
    asked = Replica()
    for name, status, capability, needs, mcpmesh in links:
        needed = [{"capability": need, **({"required": True} if required else {})} for need, required in needs]
        fields: dict[str, Any] = {
            "capabilities": [tool("f", capability, *needed)],
            **(MCPMESH if mcpmesh else {}),
        }
        asked.take(an_agent(name, 1, status, **fields))
        anew = Replica()
        anew.view.version = asked.view.version
        for record in asked.view.records.values():
            anew.view.put(record.agent, None, 0)
        for agent_id in asked.view.records:
            assert asked.of(agent_id).dependencies == anew.of(agent_id).dependencies
            assert asked.of(agent_id).digest == anew.of(agent_id).digest


@pytest.mark.parametrize("gone", [3, 12_000])
def test_capabilities_that_are_gone_are_not_remembered_for_ever(gone: int) -> None:
    """And whoever waits for one still learns when it comes back, or that another one went."""
    replica = Replica()
    replica.take(an_agent("p", capabilities=[{"name": "c"}]), an_agent("me", capabilities=[tool("f", "g", "c")]))
    assert replica.resolved("me")["f"]["c"] is not None
    replica.take(an_agent("p", capabilities=[]))
    for number in range(gone):
        replica.take(an_agent("churn", capabilities=[{"name": f"x{number}"}]))

    assert replica.resolved("me")["f"]["c"] is None
    assert len(replica.view._last_changes) <= 10_100
    replica.take(an_agent("p", capabilities=[{"name": "c"}]))
    assert replica.resolved("me")["f"]["c"] is not None


async def test_who_looks_for_very_much_lets_others_have_their_turn() -> None:
    """One registration with ten thousand different needs stood a replica still for minutes."""
    replica, other = Replica(), Replica()
    provider = an_agent("p", capabilities=[{"name": "c", "function_name": f"f{at}"} for at in range(100)])
    needs = [{"capability": "c", "tags": [f"+{at}"]} for at in range(300)]
    for each in replica, other:
        each.take(provider, an_agent("z", capabilities=[{"name": "x", "dependencies": needs}]))

    async with count_yields() as them:
        found = await replica.resolutions.resolve_async(replica.view, replica.view.records["z"])

    assert them.yields > 2
    assert found.encoded_fields == other.of("z").encoded_fields


def test_what_providers_say_at_length_is_told_up_to_a_bound() -> None:
    """A megabyte of kwargs was told for each of ten thousand dependencies: an answer of ten gigabytes."""
    replica = Replica()
    replica.take(an_agent("p", **MCPMESH, capabilities=[tool("f", "c", kwargs={"k": "x" * (1 << 20)})]))
    replica.take(an_agent("z", **MCPMESH, capabilities=[tool("g", "d", *["c"] * 100)]))

    found = replica.of("z").response_fields["dependencies_resolved"]["g"]

    assert [each["agent_id"] for each in found] == ["p"] * 100
    assert ["kwargs" in each for each in found] == [True] * 15 + [False] * 85
