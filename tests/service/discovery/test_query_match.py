"""The matcher: which agents a query finds, which changes affect it, and which index it uses."""

from typing import Any, cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from registry.cache.change_buffer import ChangeEntry
from registry.cache.view import View
from registry.errors import MalformedRequest
from registry.model.agent import STATUSES, Agent
from registry.model.change import Change, LogPosition
from registry.model.label_selector import parse_selector
from registry.model.query import AgentQuery, CapabilityQuery
from registry.service.discovery.query_match import CapabilityQueryMatcher, Matcher, expand_status
from tests.support.builders import an_agent


def a_capability(name: str, **fields: Any) -> dict[str, Any]:
    """Return a capability as in a registration."""
    return {"name": name, **fields}


def query_id(given: object) -> str:
    """Return a test id for a query that is the same in every process; the sets in a selector are not."""
    if isinstance(given, dict):
        given = {name: getattr(value, "text", value) for name, value in given.items()}
    return str(given)


AGENT = an_agent(
    "a",
    namespace="n",
    labels={"env": "prod", "tier": "web"},
    capabilities=[
        a_capability("read_file", version="1.2.0", category="files", tags=["io", "fs"]),
        a_capability("write_file", version="2.0.0", category="files", tags=["io"], stability="beta"),
    ],
)

MATCHES: list[dict[str, Any]] = [
    {},
    {"namespace": "n"},
    {"status": "healthy"},
    {"agent_id": "a"},
    {"draining": False},
    {"selector": parse_selector("env in (dev, prod), tier!=db, !gone, env")},
    {"capabilities": ("read_file",)},
    {"capabilities": ("read_file", "write_file")},
    {"capabilities": ("read_file", "nothing"), "any_capability": True},
    {"tags": ("io", "fs")},
    {"category": "files", "stability": "beta"},
    {"capabilities": ("read_file",), "version_constraint": "^1.1", "tags": ("fs",)},
    {"capabilities": ("read_file", "write_file"), "tags": ("io",), "category": "files"},
    {"capabilities": ("READ",), "fuzzy": True},
    {"capabilities": ("read_fiel",), "fuzzy": True},
    {"capabilities": ("raed_file", "nothing"), "fuzzy": True, "any_capability": True},
]
FAILS: list[dict[str, Any]] = [
    {"namespace": "N"},
    {"status": "unhealthy"},
    {"agent_id": "b"},
    {"draining": True},
    {"agent_id": "a", "draining": True},
    {"capabilities": ("read_file",), "draining": True},
    {"selector": parse_selector("env notin (prod)")},
    {"selector": parse_selector("env=prod,gone")},
    {"capabilities": ("read",)},
    {"capabilities": ("READ_FILE",)},
    {"capabilities": ("read_file", "nothing")},
    {"capabilities": ("nothing", "nobody"), "any_capability": True},
    {"tags": ("io", "net")},
    # Each condition is satisfied, but not all by one capability.
    {"tags": ("fs",), "stability": "beta"},
    {"capabilities": ("read_file",), "version_constraint": ">=2"},
    {"capabilities": ("read_file", "write_file"), "tags": ("fs",)},
    {"capabilities": ("read_file",), "stability": "beta", "any_capability": True},
    {"capabilities": ("nothing",), "fuzzy": True},
    {"capabilities": ("read", "nothing"), "fuzzy": True},
]


@pytest.mark.parametrize("query", MATCHES, ids=query_id)
def test_an_agent_that_satisfies_every_condition_matches(query: dict[str, Any]) -> None:
    """The matcher and a selection from a view agree."""
    assert Matcher(AgentQuery(**query)).matches(AGENT)
    assert [record.agent for record in Matcher(AgentQuery(**query)).select(a_view(AGENT))] == [AGENT]


@pytest.mark.parametrize("query", FAILS, ids=query_id)
def test_an_agent_that_violates_one_condition_does_not_match(query: dict[str, Any]) -> None:
    """The matcher and a selection from a view agree."""
    assert not Matcher(AgentQuery(**query)).matches(AGENT)
    assert Matcher(AgentQuery(**query)).select(a_view(AGENT)) == []


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ({}, None),
        ({"status": "healthy"}, None),
        ({"namespace": "n"}, ("namespace", "n")),
        ({"namespace": "n", "capabilities": ("x", "y")}, ("capability", "x")),
        ({"capabilities": ("x", "y"), "any_capability": True}, None),
        ({"capabilities": ("x",), "any_capability": True}, ("capability", "x")),
        ({"capabilities": ("x",), "fuzzy": True}, None),
        ({"selector": parse_selector("a in (b)"), "namespace": "n"}, ("label", "a", "b")),
        ({"selector": parse_selector("a!=b")}, None),
        ({"agent_id": "i", "capabilities": ("x",)}, ("id", "i")),
    ],
    ids=query_id,
)
def test_the_index_key_is_a_value_that_every_match_has(query: dict[str, Any], key: tuple[str, ...] | None) -> None:
    """An optional or fuzzy condition gives no key."""
    assert Matcher(AgentQuery(**query)).index_key == key


@pytest.mark.parametrize(
    ("query", "field"), [({"status": "sleepy"}, "status"), ({"version_constraint": "soon"}, "version_constraint")]
)
def test_an_invalid_query_is_rejected(query: dict[str, Any], field: str) -> None:
    """It is rejected before any agent is examined."""
    with pytest.raises(MalformedRequest) as caught:
        Matcher(AgentQuery(**query))

    assert caught.value.details[0].field == field


def test_the_score_is_the_mean_of_the_best_match_of_each_name() -> None:
    """Only capabilities that satisfy the other conditions count, and only names that match."""
    agent = an_agent(capabilities=[a_capability("file", tags=["old"]), a_capability("file_search", tags=["new"])])

    def score(*names: str, **query: Any) -> float:
        return Matcher(AgentQuery(capabilities=names, fuzzy=True, **query)).score(agent)

    assert score("FILE") == 100
    assert 96 < score("file", tags=("new",)) < 100
    assert score("file", "file_search") == 100
    assert score("file", "nothing", any_capability=True) == 100
    assert score("nothing") == 0
    assert score("file") > score("file", "search") > score("search") > 0


NAMES = st.sampled_from(["read", "write", "read_files"])
CAPABILITIES = st.lists(
    st.builds(
        a_capability,
        NAMES,
        version=st.sampled_from(["1.0.0", "2.0.0"]),
        category=st.sampled_from(["x", "y"]),
        tags=st.lists(st.sampled_from(["t", "u"]), unique=True, max_size=2),
    ),
    max_size=2,
    unique_by=lambda each: cast(str, each["name"]),
)
AGENTS = st.builds(
    lambda status, draining, **fields: an_agent("a", 9, status, draining=draining, **fields),
    st.sampled_from(STATUSES),
    st.booleans(),
    namespace=st.sampled_from(["n", "m"]),
    capabilities=CAPABILITIES,
    labels=st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["1", "2"])),
)
QUERIES = st.builds(
    AgentQuery,
    namespace=st.sampled_from([None, "n"]),
    status=st.sampled_from(["any", "healthy", "unhealthy"]),
    draining=st.sampled_from([None, None, False, True]),
    agent_id=st.sampled_from([None, None, "a"]),
    selector=st.sampled_from(["", "k=1", "k in (1,2)", "k!=1,l", "!l"]).map(parse_selector),
    capabilities=st.lists(st.sampled_from(["read", "write", "file"]), max_size=2, unique=True).map(tuple),
    any_capability=st.booleans(),
    category=st.sampled_from([None, None, "x"]),
    tags=st.sampled_from([(), (), ("t",), ("t", "u")]),
    version_constraint=st.sampled_from([None, None, ">=2"]),
    fuzzy=st.booleans(),
)


@given(st.none() | AGENTS, st.none() | AGENTS, QUERIES)
def test_no_change_that_affects_a_query_is_missed(before: Agent | None, after: Agent | None, query: AgentQuery) -> None:
    """The index key finds every agent that matches before or after; the event type is the one for this query."""
    assume(before is not None or after is not None)
    matcher = Matcher(query)
    entry = ChangeEntry(make_change(before, after))
    was = before is not None and matcher.matches(before)
    is_now = after is not None and matcher.matches(after)

    expected = {(False, True): "ADDED", (True, True): "MODIFIED", (True, False): "DELETED"}.get((was, is_now))
    assert matcher.event_type(entry) == expected
    assert matcher.affects(entry) is (expected is not None)


def make_change(before: Agent | None, after: Agent | None) -> Change:
    """Return the change from one state to another; None means that the agent does not exist."""
    if before is None or after is None:
        return Change(9, 8, "add" if before is None else "remove", "test", after or before)
    return Change(9, 8, "modify", "test", after, None, before.status, before.draining, before.spec)


def a_view(*agents: Agent) -> View:
    """Return a view of these agents."""
    view = View(LogPosition(1, "h"))
    for agent in agents:
        view.put(agent, None, 0.0)
    return view


CAPABILITY = an_agent(
    capabilities=[
        a_capability(
            "read_file", description="Reads a File", category="files", tags=["io", "filesystem"], version="1.4.0"
        )
    ]
).indexed.capabilities[0]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"name": "read_file"},
        {"name": "READ", "fuzzy": True},
        {"name": "read_fiel", "fuzzy": True},
        {"description_contains": "a file"},
        {"category": "files", "stability": "stable", "tags": ("io", "filesystem"), "version_constraint": "1.x"},
        {"text": "FILESYSTEM"},
        {"text": "filesystme"},
        {"text": "reads"},
        {"text": "file io"},
    ],
    ids=str,
)
def test_a_capability_that_satisfies_a_search_has_a_score(query: dict[str, Any]) -> None:
    """The cases range from an exact name to the weakest match."""
    score = CapabilityQueryMatcher(CapabilityQuery(**query)).score(CAPABILITY)

    assert score is not None
    assert 0 < score <= 100


@pytest.mark.parametrize(
    "query",
    [
        {"name": "read"},
        {"name": "READ_FILE"},
        {"name": "rd", "fuzzy": True},
        {"description_contains": "directory"},
        {"description_contains": "a_file"},
        {"category": "FILES"},
        {"stability": "beta"},
        {"tags": ("io", "net")},
        {"version_constraint": ">1.4"},
        {"text": "directory"},
        {"text": "file directory"},
        {"text": "file", "name": "write_file"},
    ],
    ids=str,
)
def test_a_capability_that_violates_one_condition_has_no_score(query: dict[str, Any]) -> None:
    """One condition is enough."""
    assert CapabilityQueryMatcher(CapabilityQuery(**query)).score(CAPABILITY) is None


@pytest.mark.parametrize(
    ("query", "shown"),
    [({}, False), ({"include_deprecated": True}, True), ({"stability": "deprecated"}, True), ({"name": "x"}, False)],
    ids=str,
)
def test_deprecated_capabilities_are_hidden_unless_requested(query: dict[str, Any], *, shown: bool) -> None:
    """A query for the name does not request them."""
    (old,) = an_agent(capabilities=[a_capability("x", stability="deprecated")]).indexed.capabilities

    assert (CapabilityQueryMatcher(CapabilityQuery(**query)).score(old) is not None) is shown


STATUS_WORDS = {
    "pending": ("pending",),
    "healthy": ("healthy",),
    "degraded": ("degraded",),
    "expired": ("expired",),
    "unhealthy": ("degraded", "expired"),
    "offline": ("expired",),
    "any": ("pending", "healthy", "degraded", "expired"),
}


@pytest.mark.parametrize(("word", "statuses"), STATUS_WORDS.items())
def test_a_status_word_expands_to_statuses(word: str, statuses: tuple[str, ...]) -> None:
    """The words are the four statuses, two groups, and `any`."""
    assert expand_status(word, "status") == statuses


@pytest.mark.parametrize("word", ["", "Healthy", "all", "unknown", "healthy,degraded", "x" * 1000])
def test_an_unknown_status_word_is_rejected_with_the_known_ones(word: str) -> None:
    """The error names the field, and is short."""
    with pytest.raises(MalformedRequest) as caught:
        expand_status(word, "agent_status")

    (detail,) = caught.value.details
    assert detail.field == "agent_status"
    assert all(known in detail.problem for known in STATUS_WORDS)
    assert len(detail.problem) < 250
