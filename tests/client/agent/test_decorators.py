"""What is declared is what the agent says of itself, and what is declared wrongly is said at once."""

import inspect
from typing import Any

import pytest
from mcp.server import MCPServer
from mcp_mesh_client import DecoratorOrderError, Dependency, InvalidData, SecurityValidationError, mesh_agent, tool
from mcp_mesh_client.agent.process import AgentProcess
from mcp_mesh_client.types.dependencies import Provider

PROVIDER: Provider = {"agent_id": "date-1", "endpoint": "http://date:1", "tool_name": "get_date"}
DATED = {"greet": {"date_service": PROVIDER}}


def tools(here: AgentProcess) -> list[dict[str, Any]]:
    """Return the tools this process would register, without what they are for."""
    listed = here.agent.registration_document("http://me:1")["metadata"]["tools"]
    return [{name: value for name, value in each.items() if name != "description"} for each in listed]


def test_a_function_is_named_for_itself_where_nothing_else_is_said(here: AgentProcess) -> None:
    """Its capability as well."""

    @mesh_agent(version="1.2.0")
    def summarize(text: str) -> str:
        """Sum up."""
        return text

    assert summarize("x") == "x"
    assert here.agent.registration_document("http://me:1")["metadata"]["tools"] == [
        {"function_name": "summarize", "capability": "summarize", "version": "1.2.0", "description": "Sum up."}
    ]


def test_a_function_of_several_capabilities_is_a_tool_by_each_name(here: AgentProcess) -> None:
    """Function names are unique, so all but the first go by the capability's; what it needs stands beside each."""

    @mesh_agent(capabilities=["file_read", {"name": "file_write", "tags": ["disk"]}], dependencies=["auth"])
    def files(path: str) -> str:
        return path

    assert files("p") == "p"
    assert tools(here) == [
        {"function_name": "files", "capability": "file_read", "dependencies": ["auth"]},
        {"function_name": "file_write", "capability": "file_write", "tags": ["disk"], "dependencies": ["auth"]},
    ]


def test_what_is_handed_over_comes_changes_and_goes(here: AgentProcess) -> None:
    """At each call it is what is resolved then; the function is the same one all the time."""

    @mesh_agent(dependencies=["date_service"])
    def greet(date_service: Dependency | None = None) -> object:
        return None if date_service is None else date_service.provider

    assert greet() is None
    here.agent.update_dependencies({"dependencies_resolved": DATED})
    assert greet() == PROVIDER
    here.agent.update_dependencies({"status": "success"})
    assert greet() == PROVIDER
    here.agent.update_dependencies({"dependencies_resolved": {"greet": {"date_service": None}}})
    assert greet() is None


def test_who_hands_one_over_himself_is_not_overruled(here: AgentProcess) -> None:
    """By name or by place: so a function is tested without a mesh."""

    @mesh_agent(dependencies=["date_service"])
    def greet(name: str, date_service: Any = None) -> Any:
        return name, date_service

    here.agent.update_dependencies({"dependencies_resolved": DATED})

    assert greet("a", date_service=5) == ("a", 5)
    assert greet("a", None) == ("a", None)
    assert greet(name="a")[1].provider == PROVIDER


def test_a_parameter_is_named_for_the_capability(here: AgentProcess) -> None:
    """With `_` for what a name cannot have; one without a default is handed None; one that is not there is left out."""

    @mesh_agent(dependencies=["date-service.v1", "import", {"capability": "other"}])
    async def use(date_service_v1: Any, *, import_: Any = 1) -> Any:
        return date_service_v1, import_

    assert str(inspect.signature(use)) == "() -> Any"
    assert inspect.iscoroutinefunction(use)
    assert here.agent.functions["use"].dependencies.keys() == {"date-service.v1", "import", "other"}
    called: Any = use
    with pytest.raises(StopIteration) as done:
        called().send(None)
    assert done.value.value == (None, None)


@pytest.mark.usefixtures("here")
async def test_the_server_sees_no_dependency() -> None:
    """Neither in the schema nor from a caller who sends one; annotations of others are read as ever."""
    server = MCPServer("s")

    @server.tool()
    @mesh_agent(dependencies=["date_service"])
    def greet(name: "str", date_service: "Dependency | None" = None) -> "list[str]":
        """Greet."""
        return [name, str(date_service)]

    (listed,) = await server.list_tools()
    assert listed.input_schema["properties"].keys() == {"name"}
    assert listed.description == "Greet."
    result: Any = await server.call_tool("greet", {"name": "Ada", "date_service": "forged"})
    assert result.structured_content == {"result": ["Ada", "None"]}


def test_the_wrong_order_is_said_with_the_right_one(here: AgentProcess) -> None:
    """The server has the bare function by then, and would never hand anything over."""
    server = MCPServer("s")

    def greet(name: str, date_service: Any = None) -> str:
        return f"{name}{date_service}"

    with pytest.raises(TypeError, match=r"put @server\.tool\(\) above @mesh_agent") as wrong:
        mesh_agent(dependencies=["date_service"])(server.tool()(greet))
    assert isinstance(wrong.value, DecoratorOrderError)
    assert here.agent.functions == {}


@pytest.mark.usefixtures("here")
def test_a_tool_object_in_place_of_a_function_is_the_wrong_order() -> None:
    """Other server classes give one back."""

    class FunctionTool:
        def fn(self) -> None:
            """Do nothing."""

    with pytest.raises(DecoratorOrderError, match="already registered as a tool"):
        mesh_agent()(FunctionTool())  # type: ignore[type-var]


def test_an_object_with_capabilities_and_methods(here: AgentProcess) -> None:
    """Its tools do what its capabilities say by the same name; those without a tool are said, too."""

    @mesh_agent(name="Files", namespace="system")
    class Files:
        def __init__(self, root: str) -> None:
            self.root = root
            self.capabilities = [{"name": "read_file", "version": "1.2.0", "tags": ["io"]}, "audit"]

        @tool(name="read_file", dependencies=["auth"])
        async def read(self, path: str, auth: Any = None) -> str:
            """Read."""
            return f"{self.root}{path}{auth}"

        @tool()
        def count(self) -> int:
            return 1

    assert here.agent.functions == {}
    files = Files("/")
    assert tools(here) == [
        {"function_name": "count", "capability": "count"},
        {"function_name": "read_file", "capability": "read_file", "version": "1.2.0", "tags": ["io"]}
        | {"dependencies": ["auth"]},
        {"function_name": "audit", "capability": "audit"},
    ]
    document = here.agent.registration_document("http://me:1")
    assert (document["name"], document["namespace"]) == ("Files", "system")
    assert files.count() == 1
    given = here.agent.functions["read_file"].wrapper
    assert str(inspect.signature(given)) == "(path: str) -> str"
    with pytest.raises(StopIteration) as done:
        given("x").send(None)
    assert done.value.value == "/xNone"


def test_a_subclass_is_declared_once_and_a_later_object_takes_the_place(here: AgentProcess) -> None:
    """With what it has when it is registered."""

    @mesh_agent()
    class Files:
        def __init__(self) -> None:
            self.capabilities = ["read"]

    class More(Files):
        def __init__(self) -> None:
            super().__init__()
            self.capabilities.append("write")

    Files()
    More()

    assert [each["capability"] for each in tools(here)] == ["read", "write"]


def test_what_a_security_context_requires_is_checked_when_the_object_is_made(here: AgentProcess) -> None:
    """And an object that was refused leaves nothing."""

    @mesh_agent(security_context="high_security")
    class Vault:
        def __init__(self, *capabilities: str) -> None:
            self.capabilities = list(capabilities)

    with pytest.raises(SecurityValidationError, match="authentication, authorization"):
        Vault("audit")
    assert tools(here) == []
    Vault("audit", "authentication", "authorization")
    assert len(tools(here)) == 3


def refuse(here: AgentProcess, field: str, **declaration: Any) -> None:
    """Assert that a declaration over a function is refused for this field, and leaves nothing."""

    def function(x: Any = None) -> None:
        """Do nothing."""

    with pytest.raises(InvalidData) as error:
        mesh_agent(**declaration)(function)
    assert error.value.field == field
    assert here.agent.functions == {}


def test_what_is_wrong_is_named(here: AgentProcess) -> None:
    """By its field."""
    refuse(here, "dependencies", dependencies="auth")
    refuse(here, "dependencies[1].capability", dependencies=["a", {}])
    refuse(here, "dependencies[1].capability", dependencies=["a", {"capability": "a"}])
    refuse(here, "dependencies[0].tags", dependencies=[{"capability": "a", "tags": {1, 2}}])
    refuse(here, "capabilities", capabilities="auth")
    refuse(here, "capabilities", capabilities=["a"], capability="a")
    refuse(here, "capabilities[0].name", capabilities=[{"version": "1"}])
    refuse(here, "tags", tags="production")
    with pytest.raises(InvalidData, match=r"^health_interval: expected seconds above 0"):
        mesh_agent(health_interval=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'capabilty'"):
        mesh_agent(capabilty="x")  # type: ignore[call-arg]


def test_one_process_is_one_agent(here: AgentProcess) -> None:
    """Two names for it are refused, and so are two functions of one name; the shortest interval counts."""
    mesh_agent(name="A", health_interval=30)(lambda_one)
    with pytest.raises(InvalidData, match=r"^name: already set to "):
        mesh_agent(name="B")(lambda_two)

    def lambda_one_again() -> None:
        """Do nothing."""

    lambda_one_again.__name__ = "lambda_one"
    with pytest.raises(InvalidData, match="lambda_one is declared by"):
        mesh_agent()(lambda_one_again)
    mesh_agent(health_interval=20)(lambda_one)
    assert here.agent._options["health_interval"] == 20


def test_how_long_it_may_be_silent_is_registered_with_it(here: AgentProcess) -> None:
    """In seconds; of several the shortest counts. Without, the registry has its own."""
    mesh_agent()(lambda_one)
    assert not {"timeout_threshold", "eviction_threshold"} & here.agent.registration_document("http://x").keys()

    mesh_agent(timeout_threshold=15, eviction_threshold=60)(lambda_two)
    mesh_agent(timeout_threshold=20)(lambda_three)

    document = here.agent.registration_document("http://x")
    assert (document["timeout_threshold"], document["eviction_threshold"]) == (15, 60)
    with pytest.raises(InvalidData, match=r"^timeout_threshold: expected seconds above 0"):
        mesh_agent(timeout_threshold=-1)


def lambda_one() -> None:
    """Do nothing."""


def lambda_three() -> None:
    """Do nothing."""


def lambda_two() -> None:
    """Do nothing."""
