"""What language models are given: facts measured on mcp-mesh-registry 3.7.1, and where we do better on purpose."""

from typing import Any

import pytest

from registry.compat.mcpmesh.llm_tools import LlmToolFinder
from registry.compat.mcpmesh.policy import llm_policy, match_policies
from registry.compat.mcpmesh.registration import FORMAT_NAME
from registry.model.agent import Agent
from registry.service.resolution.ranking_cache import RankingCache
from tests.support.builders import a_change, an_agent
from tests.support.resolution_builders import view_of

OBJECT = {"type": "object"}
ANYTHING = ["get_date", "plain", "ask", "own"]


def function(name: str, capability: str, **fields: Any) -> dict[str, Any]:
    """Return a function that can be a tool."""
    return {"name": capability, "function_name": name, "input_schema": OBJECT, **fields}


def flat(agent_id: str, *capabilities: dict[str, Any], **fields: Any) -> Agent:
    """Return an agent in flat form."""
    return an_agent(
        agent_id, capabilities=list(capabilities), **{"registration_format": {"name": FORMAT_NAME}, **fields}
    )


MESH = [
    flat(
        "prov-1",
        function("get_date", "date_service", tags=["system", "utc"], description="d"),
        function("plain", "plain", tags=["executor", "fast"]),
        {"name": "date_service", "function_name": "no_schema", "tags": ["system"]},
    ),
    flat(
        "prov-2",
        function("get_date", "date_service", version="2.0.0", tags=["system"]),
        function("ask", "llm", version="1.2.0", tags=["claude"], kwargs={"vendor": "anthropic"}),
    ),
]
OWN = function("own", "own", tags=["self"])


def tool_finder(*, isolates: bool = True) -> LlmToolFinder:
    """Return a finder without anything cached."""
    policies = match_policies(isolate_namespaces=isolates)
    return LlmToolFinder(RankingCache(policies), llm_policy(policies))


def given(mesh: list[Agent], asker: Agent, *, isolates: bool = True) -> tuple[Any, Any]:
    """Return the tools, in short, and the providers that an agent is told of."""
    wants = tool_finder(isolates=isolates).find(view_of(*mesh, asker), asker)
    tools = {
        name: [(each["name"], each["capability"], each["version"]) for each in found]
        for name, found in wants.tools.items()
    }
    return tools, wants.providers


def tools(entries: Any, mode: Any = "all", mesh: list[Agent] | None = None, **fields: Any) -> list[str]:
    """Return the names of the tools that a filter lets through, for an agent with a tool of its own."""
    chat = {"name": "chat", "function_name": "chat", "llm_filter": {"filter": entries, "filter_mode": mode}}
    found, _ = given(MESH if mesh is None else mesh, flat("z-llm", OWN, chat, **fields))
    return [name for name, *_ in found["chat"]]


@pytest.mark.parametrize(
    ("entries", "mode", "names"),
    [
        ([{"capability": "date_service", "tags": ["system"]}], "all", ["get_date"]),
        (["date_service"], "all", ["get_date"]),
        (["weather"], "all", []),
        (["weather"], "best_match", []),
        (["weather"], "*", ANYTHING),
        ([{"tags": ["executor", "+fast"]}], "all", ["plain"]),
        ([{"tags": ["executor"]}, "date_service"], "all", ["plain", "get_date"]),
        (["date_service", {"tags": ["executor"]}], "all", ["get_date", "plain"]),
        ([], "all", []),
        ([], "best_match", []),
        ([], "*", ANYTHING),
        ([{}], "all", ANYTHING),
        ([{}], "best_match", ANYTHING),
        ([{"tags": ["+zzz"]}], "all", ANYTHING),
        (["*"], "all", ANYTHING),
        (["*"], "best_match", ANYTHING),
        ([{"capability": "*"}], "all", []),
        ([""], "all", []),
        (["DATE_SERVICE"], "all", []),
        ([{"capability": "date_service", "version": ">=2.0"}], "all", ["get_date"]),
        ([{"capability": "date_service", "version": "banana"}], "all", []),
        ([{"tags": ["self"]}], "all", ["own"]),
        ([{"tags": ["-claude", "-self", "-fast"]}], "all", ["get_date"]),
        (["date_service"], None, ["get_date"]),
        (["date_service"], "unknown", ["get_date"]),
    ],
)
def test_a_filter_lets_through_what_its_entries_name(entries: Any, mode: Any, names: list[str]) -> None:
    """Entry by entry, strings and objects; own tools too; of one name the first; what has no schema is no tool."""
    assert tools(entries, mode) == names


@pytest.mark.parametrize("wanted", [{}, {"filter": None}, {"filter": {"tags": ["self"]}}, {"filter": "own"}, [], "x"])
def test_what_is_no_filter_is_not_answered(wanted: Any) -> None:
    """The function's key is left out, as upstream leaves it out."""
    chat = {"name": "chat", "function_name": "chat", "llm_filter": wanted}

    assert given(MESH, flat("z-llm", chat)) == ({}, {})


@pytest.mark.parametrize(
    "bad", [1, None, {"capability": 5}, {"capability": "own", "tags": "self"}, ["own"], {"version": "1" * 1001}]
)
def test_an_entry_that_cannot_be_read_asks_for_nothing(bad: Any) -> None:
    """The others are answered; upstream answers none of them, or takes it for one that asks for anything."""
    assert tools([bad, "plain"]) == ["plain"]


VERSIONS = [
    flat("pp-1", function("f1", "cc", tags=["a"]), function("g1", "dd")),
    flat("pp-2", function("f2", "cc", version="2.0.0")),
    flat("pp-3", function("f3", "cc", version="1.5.0", tags=["a", "b"])),
]


@pytest.mark.parametrize(
    ("entries", "mode", "names"),
    [
        (["cc"], "all", ["f1", "f2", "f3"]),
        ([{"capability": "cc", "tags": ["+b"]}], "all", ["f3", "f1", "f2"]),
        ([{"capability": "cc", "tags": ["+a"]}], "all", ["f1", "f3", "f2"]),
        (["cc"], "best_match", ["f2"]),
        ([{"capability": "cc", "tags": ["+b"]}], "best_match", ["f2"]),
        ([{"capability": "cc", "version": "<2"}], "best_match", ["f3"]),
        (["cc", "cc"], "best_match", ["f2"]),
        ([{"capability": "cc", "version": "<2"}, "cc"], "best_match", ["f2"]),
        (["dd", "cc"], "best_match", ["g1", "f2"]),
    ],
)
def test_tags_put_tools_in_order_and_the_version_tells_the_best(entries: Any, mode: str, names: list[str]) -> None:
    """One of each capability, whichever entry it passed; not one for each entry."""
    assert tools(entries, mode, VERSIONS) == names


def test_the_best_of_one_function_is_the_newest_though_an_older_agent_comes_first() -> None:
    """Upstream has dropped it by then, as one of its name was seen before."""
    chat = {"name": "chat", "function_name": "chat", "llm_filter": {"filter": ["x"], "filter_mode": "best_match"}}
    mesh = [flat("a", function("f", "x")), flat("b", function("f", "x", version="2.0.0"))]

    assert given(mesh, flat("z-llm", chat))[0] == {"chat": [("f", "x", "2.0.0")]}


def test_alternatives_are_heard() -> None:
    """A list inside the tags; upstream passes over it, and gives everything."""
    assert tools([{"tags": [["self", "claude"]]}]) == ["ask", "own"]


def test_a_tool_need_not_find_what_it_requires() -> None:
    """Availability is no matter of filters: its agent must live, be in the namespace, and not drain."""
    needy = function("f", "x", dependencies=[{"capability": "nobody", "required": True}])
    for agent, names in (
        (flat("a", needy), ["f"]),
        (flat("a", needy, status="degraded"), []),
        (flat("a", needy, status="expired"), []),
        (flat("a", needy, draining=True), []),
        (flat("a", needy, namespace="other"), []),
        (an_agent("a", capabilities=[needy]), ["f"]),
    ):
        assert tools(["x"], "all", [agent]) == names
    chat = {"name": "chat", "function_name": "chat", "llm_filter": {"filter": ["x"]}}
    assert given([flat("a", needy, namespace="other")], flat("z", chat), isolates=False)[0] == {
        "chat": [("f", "x", "1.0.0")]
    }


def test_a_tool_is_told_whole() -> None:
    """As upstream tells it, and who has it."""
    chat = {"name": "chat", "function_name": "chat", "llm_filter": {"filter": ["date_service"]}}
    asker = flat("z-llm", chat)
    wants = tool_finder().find(view_of(*MESH, asker), asker)

    (told,) = wants.tools["chat"]

    assert {**told, "inputSchema": None} == {
        "name": "get_date",
        "capability": "date_service",
        "agent_id": "prov-1",
        "endpoint": "http://a:1",
        "description": "d",
        "inputSchema": None,
        "tags": ("system", "utc"),
        "version": "1.0.0",
    }


def provider(need: Any, mesh: list[Agent] | None = None) -> Any:
    """Return whom a function that delegates is told of, None for nobody."""
    chat = {"name": "chat", "function_name": "chat", "llm_provider": need}
    return given(MESH if mesh is None else mesh, flat("z-llm", OWN, chat))[1].get("chat")


def test_a_provider_is_told_whole() -> None:
    """With its vendor and what it was declared with."""
    assert provider(
        {"capability": "llm", "tags": ["claude", "-stream"], "version": ">=1.0", "namespace": "default"}
    ) == {
        "agent_id": "prov-2",
        "name": "ask",
        "capability": "llm",
        "endpoint": "http://a:1",
        "status": "available",
        "tags": ("claude",),
        "version": "1.2.0",
        "vendor": "anthropic",
        "kwargs": {"vendor": "anthropic"},
    }
    own = provider({"capability": "own"})
    assert (own["agent_id"], own["vendor"], "kwargs" in own) == ("z-llm", "unknown", False)


@pytest.mark.parametrize(
    ("need", "name"),
    [
        ({"capability": "cc", "tags": ["+b"]}, "f3"),
        ({"capability": "cc", "version": "<2", "tags": ["a"]}, "f3"),
        ({"capability": "cc"}, "f2"),
        ({"capability": "cc", "version": ""}, "f2"),
        ({"capability": "cc", "tags": ["gpt"]}, None),
        ({"capability": "cc", "version": "banana"}, None),
        ({"capability": "zz"}, None),
        ({"capability": ""}, None),
        ({"tags": ["a"]}, None),
        ("cc", None),
        ({"capability": "cc", "tags": "a"}, None),
    ],
)
def test_a_provider_is_the_best_that_is_wanted(need: Any, name: str | None) -> None:
    """By tags, then version; where upstream takes who came first. What cannot be read asks for nobody."""
    found = provider(need, VERSIONS)

    assert (None if found is None else found["name"]) == name


@pytest.mark.parametrize("mode", ["all", "best_match"])
def test_lists_show_the_tools_that_a_function_was_given(mode: str) -> None:
    """Of one name the one it got, under each entry; all that had passed were shown, as if it could call them."""
    wanted = {"filter": ["date_service", {"tags": ["utc"]}, "nobody"], "filter_mode": mode}
    asker = flat("z-llm", {"name": "chat", "function_name": "chat", "llm_filter": wanted})
    view, toolsets = view_of(*MESH, asker), tool_finder()
    wants = toolsets.find(view, asker)
    (got,) = (each["agent_id"] for each in wants.tools["chat"])

    _, rows = toolsets.resolutions(view, asker)

    assert [(row["filter_capability"], row.get("mcp_tool"), row.get("provider_agent_id")) for row in rows] == [
        ("date_service", "get_date", got),
        ("", "get_date", got),
        ("nobody", None, None),
    ]


def test_so_many_entries_ask_for_something_and_no_more() -> None:
    """Each looks through all the mesh: one registration with a megabyte of `*` stood a replica still for minutes."""
    assert tools([f"nobody-{at}" for at in range(199)] + ["plain", "own"]) == ["plain"]


def test_all_functions_together_are_given_so_many_tools_and_bytes() -> None:
    """A hundred functions with the same large tool each were an answer of a hundred times its size."""
    large = flat("big", function("big", "big", description="x" * (1 << 20)))
    chats = [
        {"name": f"chat-{at:02}", "function_name": f"chat-{at:02}", "llm_filter": {"filter": ["big"]}}
        for at in range(40)
    ]

    found, _ = given([large], flat("z-llm", *chats))

    assert [len(each) for each in found.values()] == [1] * 15 + [0] * 25


def test_what_passes_an_entry_is_looked_up_anew_when_it_changed() -> None:
    """All who filter for the same share what was found, as of the view's version."""
    view, toolsets = view_of(*MESH), tool_finder()
    asker = flat("z-llm", {"name": "chat", "function_name": "chat", "llm_filter": {"filter": ["plain"]}})

    first = toolsets.find(view, asker).tools["chat"]
    view.apply(a_change(2, agent=flat("prov-3", function("also", "plain"), version=2)), 0)
    second = toolsets.find(view, asker).tools["chat"]

    assert [each["name"] for each in first] == ["plain"]
    assert [each["name"] for each in second] == ["plain", "also"]
