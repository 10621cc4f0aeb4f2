"""The options of the agent: from the code and the environment, checked where they are declared."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from mcp.server import MCPServer
from mcp_mesh_client import InvalidData, announce, mesh_agent, tool
from mcp_mesh_client.agent.agent_process import AgentProcess
from mcp_mesh_client.agent.registration_values import check_dependency, check_labels, check_namespace, check_version

from registry.errors import RegistryError
from registry.model.registration.parse import parse_registration
from registry.service.version_constraints import parse_constraint
from tests.support.in_process_agent import in_process_agent

OPTIONS: dict[str, Any] = {
    "name": "code",
    "namespace": "code",
    "labels": {"source": "code", "code": "1"},
    "annotations": {"source": "code"},
    "metadata": {"source": "code", "size": 1},
    "load": 0.25,
    "zone": "code",
    "health_interval": "2s",
}
VARIABLES = {
    "MCP_MESH_AGENT_NAME": "env",
    "MCP_MESH_NAMESPACE": "env",
    "MCP_MESH_LABELS": "source=env,env=1",
    "MCP_MESH_ANNOTATIONS": '{"source": "env", "other": "a, b"}',
    "MCP_MESH_METADATA": '{"source": "env", "list": [1]}',
    "MCP_MESH_LOAD": "0.75",
    "MCP_MESH_ZONE": "env",
    "MCP_MESH_HEALTH_INTERVAL": "3s",
}


def function() -> None:
    """Do nothing."""


@pytest.mark.parametrize(("override", "winner", "load", "interval"), [("", "code", 0.25, 2), ("true", "env", 0.75, 3)])
@pytest.mark.parametrize("declare", ["mesh_agent", "announce"])
def test_the_code_takes_precedence_over_the_environment(
    override: str, winner: str, load: float, interval: float, declare: str
) -> None:
    """Unless MCP_MESH_OVERRIDE is set; mappings are merged."""
    with in_process_agent(**VARIABLES, MCP_MESH_OVERRIDE=override) as local_process:
        if declare == "mesh_agent":
            mesh_agent(**OPTIONS)(function)
        else:
            announce(endpoint="http://me:1", **OPTIONS)
        document = local_process.agent.registration_document("http://me:1")

        assert (document["name"], document["namespace"], document["health_interval"]) == (winner, winner, interval)
        assert re.fullmatch(rf"{winner}-[0-9a-f]{{8}}", document["agent_id"])
        assert document["labels"] == {"source": winner, "code": "1", "env": "1", "zone": winner}
        assert document["annotations"] == {"source": winner, "other": "a, b"}
        assert document["metadata"].items() >= {"source": winner, "size": 1, "list": [1]}.items()
        assert local_process.agent.load() == load


@pytest.mark.parametrize(("override", "winner"), [("", "http://code:1/mcp"), ("1", "http://env:1/mcp")])
def test_an_endpoint_without_a_path_gets_the_one_for_mcp(override: str, winner: str) -> None:
    """Its precedence is that of all options."""
    with in_process_agent(MCP_MESH_ENDPOINT="http://env:1", MCP_MESH_OVERRIDE=override) as local_process:
        announce(endpoint="http://code:1")

        assert local_process.agent.endpoint == winner


def test_the_name_comes_from_the_server_or_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unnamed server has no name of its own."""
    for name, argv, expected in (
        ("Date Service", "/opt/weather.py", "Date Service"),
        (None, "/opt/weather.py", "weather"),
        (None, "/opt/agents/__main__.py", "agents"),
        (None, "-c", "agent"),
    ):
        monkeypatch.setattr("sys.argv", [argv])
        with in_process_agent() as local_process:
            announce(MCPServer(name, log_level="WARNING"), "http://me:1")
            document = local_process.agent.registration_document()
            assert document["name"] == expected
            assert re.fullmatch(rf"{expected.replace(' ', '-')}-[0-9a-f]{{8}}", document["agent_id"])


def test_a_stable_id_is_used_unchanged() -> None:
    """A forked process adds its own number, because an id must be unique."""
    with in_process_agent(MCP_MESH_AGENT_ID="weather-0") as local_process:
        assert local_process.agent.id == "weather-0"
        local_process.after_fork()
        assert re.fullmatch(r"weather-0-[0-9a-f]{8}", local_process.agent.id)


def test_a_load_may_be_a_function(local_process: AgentProcess, caplog: pytest.LogCaptureFixture) -> None:
    """If it fails, no load is sent, and each error is logged once."""
    loads: Iterator[Any] = iter([0.5, 2, "high", "high", 3])
    mesh_agent(load=lambda: next(loads))(function)

    assert [local_process.agent.load() for _ in range(5)] == [0.5, 2, None, None, 3]
    assert local_process.agent.load() is None
    assert [record.message.partition(" ")[0] for record in caplog.records] == ["load_failed"] * 2


@pytest.mark.parametrize(
    ("field", "declaration"),
    [
        ("namespace", {"namespace": "My Team"}),
        ("version", {"version": "latest"}),
        ("name", {"name": "a\nb"}),
        ("security_context", {"security_context": ""}),
        ("labels", {"labels": {"a b": "x"}}),
        ("labels[a]", {"labels": {"a": "x y"}}),
        ("annotations[a]", {"annotations": {"a": 1}}),
        ("metadata.tools", {"metadata": {"tools": []}}),
        ("metadata.a", {"metadata": {"a": {1}}}),
        ("load", {"load": -1}),
        ("load", {"load": "high"}),
        ("zone", {"zone": 5}),
        ("capability", {"capability": "a b"}),
        ("capability", {"capability": "pay\u202e"}),
        ("name", {"name": "A\u200bgent"}),
        ("tags[0]", {"tags": ["cafe\u0301"]}),
        ("capabilities[0].version", {"capabilities": [{"name": "a", "version": "new"}]}),
        ("tags[0]", {"tags": ["a b"]}),
        ("dependencies[0].namespace", {"dependencies": [{"capability": "a", "namespace": "My Team"}]}),
        ("dependencies[0].strategy", {"dependencies": [{"capability": "a", "strategy": "best_of"}]}),
        ("dependencies[0].version", {"dependencies": [{"capability": "a", "version": 1}]}),
        ("timeout_threshold", {"timeout_threshold": "soon"}),
        ("registry_url", {"registry_url": "localhost:8000"}),
    ],
)
def test_a_value_that_cannot_be_registered_is_rejected_at_the_declaration(
    local_process: AgentProcess, field: str, declaration: dict[str, Any]
) -> None:
    """The error names the argument."""
    with pytest.raises(InvalidData) as error:
        mesh_agent(**declaration)(function)

    assert error.value.field.partition("[")[0] == field.partition("[")[0]
    assert str(error.value).startswith(field.partition("[")[0])
    assert local_process.agent.functions == {}


@pytest.mark.parametrize("name", ["capability", "capabilities", "version", "tags", "dependencies"])
@pytest.mark.usefixtures("local_process")
def test_a_class_rejects_the_arguments_of_functions(name: str) -> None:
    """The error names the argument that was passed, and where it belongs."""
    value = {"capability": "a", "version": "1.0.0"}.get(name, ["a"])
    with pytest.raises(InvalidData, match=rf"^{name}: not for a class; ") as error:
        mesh_agent(**{name: value})(type("Agent", (), {}))  # type: ignore[arg-type]
    assert error.value.field == name


@pytest.mark.usefixtures("local_process")
def test_the_capabilities_of_an_object_are_checked() -> None:
    """When the object is made."""

    @mesh_agent()
    class Files:
        def __init__(self) -> None:
            self.capabilities = [{"name": "read", "version": "latest"}]

        @tool(capability="read")
        def read(self) -> None:
            """Do nothing."""

    with pytest.raises(InvalidData, match=r"^capabilities\[0\]\.version: expected a version"):
        Files()


@pytest.mark.usefixtures("local_process")
def test_another_kind_of_server_is_rejected_with_the_alternative() -> None:
    """Such as that of another framework."""
    with pytest.raises(InvalidData, match=r"^server: expected an MCPServer .* call announce\(endpoint=\.\.\.\)"):
        announce(object(), "http://me:1")  # type: ignore[arg-type]


def accepts(field: str, value: Any) -> bool:
    """Return whether the registry accepts a registration with this value."""
    capabilities = [{"name": "c", "version": value}] if field == "version" else []
    document = {"id": "a", "endpoint": "http://a:1", "capabilities": capabilities}
    try:
        parse_registration(document if field == "version" else document | {field: value})
    except RegistryError:
        return False
    return True


@pytest.mark.parametrize(
    "version",
    [
        "1",
        "1.2",
        "1.2.3",
        "v1.2.3",
        "1.2.3.4",
        "1.0.0-rc.1+b.5",
        "1.0.0rc1",
        "0.1.dev3+g12",
        "1.post1",
        "1!2.0",
        *("latest", "", "1.x", "1.0 ", "1..0", "x1", "1.0.0-", "1.0.0+"),
    ],
)
def test_the_rules_are_those_of_the_registry(version: str) -> None:
    """For versions, which have two grammars."""
    try:
        check_version(version)
        is_valid = True
    except InvalidData:
        is_valid = False

    assert is_valid is accepts("version", version)


CONSTRAINTS = ["", "*", "^1.2", "v1.2", "~=1.4", "> 1.0", "2!1.0", "1!=2", "1.0rc1", ">=1.0<2.0", ">= 1.0 , < 2"]
CONSTRAINTS += ["1.2 - 2.0", ">=1.0,<2.0 || 3.x", "1.0-rc.1 || ~>2"]


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_version_constraint_of_the_registry_can_be_declared(constraint: str) -> None:
    """The registry parses it, and so it need not be parsed here."""
    parse_constraint(constraint)
    check_dependency({"capability": "c", "version": constraint}, "")


@pytest.mark.parametrize("constraint", [">>1", "latest", ">=", "^^1", "a.b", "!1", "1.0" * 100, 1.2])
def test_a_wrong_version_constraint_raises_at_the_declaration(constraint: object) -> None:
    """The error names the field and shows two examples."""
    with pytest.raises(InvalidData, match=r"such as \^1\.2 or >=1\.0,<2\.0") as raised:

        @mesh_agent(dependencies=[{"capability": "c", "version": constraint}])
        def plan(c: object = None) -> object:
            return c

    assert raised.value.field == "dependencies[0].version"


@pytest.mark.parametrize(
    ("field", "value"),
    [("namespace", name) for name in ("a", "a-1", "A", "-a", "a-", "a" * 63, "a" * 64, "a.b", "")]
    + [
        ("labels", {key: value})
        for key in ("a", "a.b/c", "A/c", "-a", "a" * 63, "a" * 64, "a/b/c", "")
        for value in ("", "x", "x y")
    ],
)
def test_the_rules_of_names_are_those_of_the_registry(field: str, value: Any) -> None:
    """For namespaces and labels."""
    try:
        {"namespace": check_namespace, "labels": check_labels}[field](value)
        is_valid = True
    except InvalidData:
        is_valid = False

    assert is_valid is accepts(field, value)
