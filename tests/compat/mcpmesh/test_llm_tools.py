"""Tools and providers for language models: as measured on mcp-mesh-registry 3.7.1, with deliberate improvements."""

from typing import Any

import pytest
from msgspec.structs import replace

from registry.compat.mcpmesh.llm_tools import LlmToolFinder
from registry.compat.mcpmesh.match_policies import llm_policy, match_policies
from registry.compat.mcpmesh.registration import FORMAT_NAME
from registry.model.agent import Agent
from registry.service.resolution.ranking_cache import RankingCache
from tests.support.builders import a_change, an_agent
from tests.support.resolution_builders import view_of

OBJECT = {"type": "object"}
TOOLS_OF_OTHERS = ["get_date", "plain", "ask"]
ANYTHING = [*TOOLS_OF_OTHERS, "own"]


def function(name: str, capability: str, **fields: Any) -> dict[str, Any]:
    """Return a function that can be a tool."""
    return {"name": capability, "function_name": name, "input_schema": OBJECT, **fields}


def mcpmesh_agent(agent_id: str, *capabilities: dict[str, Any], **fields: Any) -> Agent:
    """Return an agent in the mcp-mesh format."""
    return an_agent(
        agent_id, capabilities=list(capabilities), **{"registration_format": {"name": FORMAT_NAME}, **fields}
    )


MESH = [
    mcpmesh_agent(
        "prov-1",
        function("get_date", "date_service", tags=["system", "utc"], description="d"),
        function("plain", "plain", tags=["executor", "fast"]),
        {"name": "date_service", "function_name": "no_schema", "tags": ["system"]},
    ),
    mcpmesh_agent(
        "prov-2",
        function("get_date", "date_service", version="2.0.0", tags=["system"]),
        function("ask", "llm", version="1.2.0", tags=["claude"], kwargs={"vendor": "anthropic"}),
    ),
]
OWN = function("own", "own", tags=["self"])


def tool_finder(*, isolate_namespaces: bool = True) -> LlmToolFinder:
    """Return a finder with an empty cache."""
    policies = match_policies(isolate_namespaces=isolate_namespaces)
    return LlmToolFinder(RankingCache(policies), llm_policy(policies))


def found_for(mesh: list[Agent], consumer: Agent, *, isolate_namespaces: bool = True) -> tuple[Any, Any]:
    """Return the tools, as (name, capability, version), and the providers of an agent."""
    result = tool_finder(isolate_namespaces=isolate_namespaces).find(view_of(*mesh, consumer), consumer)
    tools = {
        name: [(each["name"], each["capability"], each["version"]) for each in found]
        for name, found in result.tools.items()
    }
    return tools, result.providers


def tools(entries: Any, mode: Any = "all", mesh: list[Agent] | None = None, **fields: Any) -> list[str]:
    """Return the names of the tools that pass a filter of an agent that has a tool itself."""
    chat = {"name": "chat", "function_name": "chat", "llm_filter": {"filter": entries, "filter_mode": mode}}
    found, _ = found_for(MESH if mesh is None else mesh, mcpmesh_agent("z-llm", OWN, chat, **fields))
    return [name for name, *_ in found["chat"]]


@pytest.mark.parametrize(
    ("entries", "mode", "names"),
    [
        ([{"capability": "date_service", "tags": ["system"]}], "all", ["get_date"]),
        (["date_service"], "all", ["get_date"]),
        (["weather"], "all", []),
        (["weather"], "best_match", []),
        (["weather"], "*", TOOLS_OF_OTHERS),
        ([{"tags": ["executor", "+fast"]}], "all", ["plain"]),
        ([{"tags": ["executor"]}, "date_service"], "all", ["plain", "get_date"]),
        (["date_service", {"tags": ["executor"]}], "all", ["get_date", "plain"]),
        ([], "all", []),
        ([], "best_match", []),
        ([], "*", TOOLS_OF_OTHERS),
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
def test_a_filter_passes_the_tools_that_its_entries_select(entries: Any, mode: Any, names: list[str]) -> None:
    """The result follows the order of the entries and has one tool for each name, the first.

    The agent's own tools count; a function without an input schema is no tool.
    """
    assert tools(entries, mode) == names


def test_a_wildcard_leaves_out_the_asking_agent_in_any_order_of_registration() -> None:
    """All tools of other agents are offered, the last registered first."""
    chat = {"name": "chat", "function_name": "chat", "llm_filter": {"filter": [], "filter_mode": "*"}}
    mesh = [
        replace(mcpmesh_agent(agent_id, function(f"of_{agent_id}", "x"), chat), created=created)
        for created, agent_id in enumerate(["m", "a", "z", "c"])
    ]

    offered = {agent.id: [name for name, *_ in found_for(mesh, agent)[0]["chat"]] for agent in mesh}

    assert offered == {
        "m": ["of_c", "of_z", "of_a"],
        "a": ["of_c", "of_z", "of_m"],
        "z": ["of_c", "of_a", "of_m"],
        "c": ["of_z", "of_a", "of_m"],
    }


@pytest.mark.parametrize(
    "llm_filter", [{}, {"filter": None}, {"filter": {"tags": ["self"]}}, {"filter": "own"}, [], "x"]
)
def test_an_invalid_filter_has_no_result(llm_filter: Any) -> None:
    """The response has no key for the function, as upstream."""
    chat = {"name": "chat", "function_name": "chat", "llm_filter": llm_filter}

    assert found_for(MESH, mcpmesh_agent("z-llm", chat)) == ({}, {})


@pytest.mark.parametrize(
    "bad", [1, None, {"capability": 5}, {"capability": "own", "tags": "self"}, ["own"], {"version": "1" * 1001}]
)
def test_an_invalid_entry_selects_nothing(bad: Any) -> None:
    """The other entries are used; upstream ignores all of them, or selects every tool."""
    assert tools([bad, "plain"]) == ["plain"]


VERSIONS = [
    mcpmesh_agent("pp-1", function("f1", "cc", tags=["a"]), function("g1", "dd")),
    mcpmesh_agent("pp-2", function("f2", "cc", version="2.0.0")),
    mcpmesh_agent("pp-3", function("f3", "cc", version="1.5.0", tags=["a", "b"])),
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
def test_tags_sort_the_tools_and_the_version_decides_the_best(entries: Any, mode: str, names: list[str]) -> None:
    """The best match is one for each capability, whatever entry selects it."""
    assert tools(entries, mode, VERSIONS) == names


def test_the_best_match_of_a_function_is_the_newest_of_all_agents() -> None:
    """Upstream takes the first agent with a function of this name."""
    chat = {"name": "chat", "function_name": "chat", "llm_filter": {"filter": ["x"], "filter_mode": "best_match"}}
    mesh = [mcpmesh_agent("a", function("f", "x")), mcpmesh_agent("b", function("f", "x", version="2.0.0"))]

    assert found_for(mesh, mcpmesh_agent("z-llm", chat))[0] == {"chat": [("f", "x", "2.0.0")]}


def test_a_group_of_tags_is_a_list_of_alternatives() -> None:
    """Upstream ignores a list inside the tags, and selects every tool."""
    assert tools([{"tags": [["self", "claude"]]}]) == ["ask", "own"]


def test_a_tool_may_have_unresolved_requirements() -> None:
    """Its agent must be healthy, in the namespace and not draining."""
    unresolved = function("f", "x", dependencies=[{"capability": "nobody", "required": True}])
    for agent, names in (
        (mcpmesh_agent("a", unresolved), ["f"]),
        (mcpmesh_agent("a", unresolved, status="degraded"), []),
        (mcpmesh_agent("a", unresolved, status="expired"), []),
        (mcpmesh_agent("a", unresolved, draining=True), []),
        (mcpmesh_agent("a", unresolved, namespace="other"), []),
        (an_agent("a", capabilities=[unresolved]), ["f"]),
    ):
        assert tools(["x"], "all", [agent]) == names
    chat = {"name": "chat", "function_name": "chat", "llm_filter": {"filter": ["x"]}}
    assert found_for(
        [mcpmesh_agent("a", unresolved, namespace="other")], mcpmesh_agent("z", chat), isolate_namespaces=False
    )[0] == {"chat": [("f", "x", "1.0.0")]}


def test_the_fields_of_a_tool() -> None:
    """They are those of upstream, and the id of the agent."""
    chat = {"name": "chat", "function_name": "chat", "llm_filter": {"filter": ["date_service"]}}
    consumer = mcpmesh_agent("z-llm", chat)
    result = tool_finder().find(view_of(*MESH, consumer), consumer)

    (tool,) = result.tools["chat"]

    assert {**tool, "inputSchema": None} == {
        "name": "get_date",
        "capability": "date_service",
        "agent_id": "prov-1",
        "endpoint": "http://a:1",
        "description": "d",
        "inputSchema": None,
        "tags": ("system", "utc"),
        "version": "1.0.0",
    }


def provider(dependency: Any, mesh: list[Agent] | None = None) -> Any:
    """Return the provider for a function that delegates, None without one."""
    chat = {"name": "chat", "function_name": "chat", "llm_provider": dependency}
    return found_for(MESH if mesh is None else mesh, mcpmesh_agent("z-llm", OWN, chat))[1].get("chat")


def test_the_fields_of_a_provider() -> None:
    """They include its vendor and its kwargs."""
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
    ("dependency", "name"),
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
def test_the_provider_is_the_best_match(dependency: Any, name: str | None) -> None:
    """Tags count before the version; upstream takes the first match. An invalid dependency has no provider."""
    found = provider(dependency, VERSIONS)

    assert (None if found is None else found["name"]) == name


@pytest.mark.parametrize("mode", ["all", "best_match"])
def test_lists_show_the_tools_that_a_function_received(mode: str) -> None:
    """Each entry shows the received tool of a name, not all tools of the name that match."""
    llm_filter = {"filter": ["date_service", {"tags": ["utc"]}, "nobody"], "filter_mode": mode}
    consumer = mcpmesh_agent("z-llm", {"name": "chat", "function_name": "chat", "llm_filter": llm_filter})
    view, finder = view_of(*MESH, consumer), tool_finder()
    result = finder.find(view, consumer)
    (received,) = (each["agent_id"] for each in result.tools["chat"])

    _, rows = finder.resolutions(view, consumer)

    assert [(row["filter_capability"], row.get("mcp_tool"), row.get("provider_agent_id")) for row in rows] == [
        ("date_service", "get_date", received),
        ("", "get_date", received),
        ("nobody", None, None),
    ]


def test_the_number_of_entries_is_limited() -> None:
    """Each is compared with the whole mesh: one registration with 1 MB of `*` blocked a replica for minutes."""
    assert tools([f"nobody-{at}" for at in range(199)] + ["plain", "own"]) == ["plain"]


def test_the_number_and_size_of_the_tools_are_limited() -> None:
    """The limit applies to all functions of an agent, because many functions can select the same large tool."""
    large = mcpmesh_agent("big", function("big", "big", description="x" * (1 << 20)))
    chats = [
        {"name": f"chat-{at:02}", "function_name": f"chat-{at:02}", "llm_filter": {"filter": ["big"]}}
        for at in range(40)
    ]

    found, _ = found_for([large], mcpmesh_agent("z-llm", *chats))

    assert [len(each) for each in found.values()] == [1] * 15 + [0] * 25


def test_the_matches_of_an_entry_are_cached_until_the_view_changes() -> None:
    """All functions with the same entry share the cached matches."""
    view, finder = view_of(*MESH), tool_finder()
    consumer = mcpmesh_agent("z-llm", {"name": "chat", "function_name": "chat", "llm_filter": {"filter": ["plain"]}})

    first = finder.find(view, consumer).tools["chat"]
    view.apply(a_change(2, agent=mcpmesh_agent("prov-3", function("also", "plain"), version=2)), 0)
    second = finder.find(view, consumer).tools["chat"]

    assert [each["name"] for each in first] == ["plain"]
    assert [each["name"] for each in second] == ["plain", "also"]
