"""Declared functions and classes become the registration of the agent; wrong declarations are rejected at once."""

import inspect
from typing import Any

import pytest
from mcp.server import MCPServer
from mcp_mesh_client import DecoratorOrderError, Dependency, InvalidData, SecurityValidationError, mesh_agent, tool
from mcp_mesh_client.agent.agent_process import AgentProcess
from mcp_mesh_client.types.dependencies import Provider

PROVIDER: Provider = {"agent_id": "date-1", "endpoint": "http://date:1", "tool_name": "get_date"}
RESOLVED = {"greet": {"date_service": PROVIDER}}


def tools(local_process: AgentProcess) -> list[dict[str, Any]]:
    """Return the tools in the registration of this process, without their descriptions."""
    listed = local_process.agent.registration_document("http://me:1")["metadata"]["tools"]
    return [{name: value for name, value in each.items() if name != "description"} for each in listed]


def test_a_function_without_a_capability_gets_its_own_name(local_process: AgentProcess) -> None:
    """The name of the capability is also that of the function."""

    @mesh_agent(version="1.2.0")
    def summarize(text: str) -> str:
        """Sum up."""
        return text

    assert summarize("x") == "x"
    assert local_process.agent.registration_document("http://me:1")["metadata"]["tools"] == [
        {"function_name": "summarize", "capability": "summarize", "version": "1.2.0", "description": "Sum up."}
    ]


def test_a_function_with_several_capabilities_is_a_tool_for_each(local_process: AgentProcess) -> None:
    """Function names are unique, so other tools than the first have the name of the capability."""

    @mesh_agent(capabilities=["file_read", {"name": "file_write", "tags": ["disk"]}], dependencies=["auth"])
    def files(path: str) -> str:
        return path

    assert files("p") == "p"
    assert tools(local_process) == [
        {"function_name": "files", "capability": "file_read", "dependencies": ["auth"]},
        {"function_name": "file_write", "capability": "file_write", "tags": ["disk"], "dependencies": ["auth"]},
    ]


def test_an_injected_dependency_follows_the_resolution(local_process: AgentProcess) -> None:
    """Each call uses the current resolution; the function object stays the same."""

    @mesh_agent(dependencies=["date_service"])
    def greet(date_service: Dependency | None = None) -> object:
        return None if date_service is None else date_service.provider

    assert greet() is None
    local_process.agent.update_dependencies({"dependencies_resolved": RESOLVED})
    assert greet() == PROVIDER
    local_process.agent.update_dependencies({"status": "success"})
    assert greet() == PROVIDER
    local_process.agent.update_dependencies({"dependencies_resolved": {"greet": {"date_service": None}}})
    assert greet() is None


def test_an_argument_of_the_caller_is_not_replaced(local_process: AgentProcess) -> None:
    """Passed by name or by position, so a function can be tested without a mesh."""

    @mesh_agent(dependencies=["date_service"])
    def greet(name: str, date_service: Any = None) -> Any:
        return name, date_service

    local_process.agent.update_dependencies({"dependencies_resolved": RESOLVED})

    assert greet("a", date_service=5) == ("a", 5)
    assert greet("a", None) == ("a", None)
    assert greet(name="a")[1].provider == PROVIDER


def test_a_parameter_is_found_by_the_name_of_the_capability(local_process: AgentProcess) -> None:
    """Invalid characters become `_`; a parameter without a default receives None; a missing one is not passed."""

    @mesh_agent(dependencies=["date-service.v1", "import", {"capability": "other"}])
    async def use(date_service_v1: Any, *, import_: Any = 1) -> Any:
        return date_service_v1, import_

    assert str(inspect.signature(use)) == "() -> Any"
    assert inspect.iscoroutinefunction(use)
    assert local_process.agent.functions["use"].dependencies.keys() == {"date-service.v1", "import", "other"}
    untyped: Any = use
    with pytest.raises(StopIteration) as stopped:
        untyped().send(None)
    assert stopped.value.value == (None, None)


@pytest.mark.usefixtures("local_process")
async def test_the_server_does_not_see_dependencies() -> None:
    """They are not in the schema, and a caller cannot pass them; annotations in strings still work."""
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


def test_the_wrong_decorator_order_is_rejected_with_the_right_one(local_process: AgentProcess) -> None:
    """The server has the bare function by then and would never inject a dependency."""
    server = MCPServer("s")

    def greet(name: str, date_service: Any = None) -> str:
        return f"{name}{date_service}"

    with pytest.raises(TypeError, match=r"put @server\.tool\(\) above @mesh_agent") as wrong:
        mesh_agent(dependencies=["date_service"])(server.tool()(greet))
    assert isinstance(wrong.value, DecoratorOrderError)
    assert local_process.agent.functions == {}


@pytest.mark.usefixtures("local_process")
def test_a_tool_object_means_the_wrong_decorator_order() -> None:
    """Other server classes return such an object from their decorator."""

    class FunctionTool:
        def fn(self) -> None:
            """Do nothing."""

    with pytest.raises(DecoratorOrderError, match="already registered as a tool"):
        mesh_agent()(FunctionTool())  # type: ignore[type-var]


def test_a_class_declares_capabilities_and_tools(local_process: AgentProcess) -> None:
    """A tool has the version and tags of its capability; a capability without a tool is registered, too."""

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

    assert local_process.agent.functions == {}
    files = Files("/")
    assert tools(local_process) == [
        {"function_name": "count", "capability": "count"},
        {"function_name": "read_file", "capability": "read_file", "version": "1.2.0", "tags": ["io"]}
        | {"dependencies": ["auth"]},
        {"function_name": "audit", "capability": "audit"},
    ]
    document = local_process.agent.registration_document("http://me:1")
    assert (document["name"], document["namespace"]) == ("Files", "system")
    assert files.count() == 1
    wrapper = local_process.agent.functions["read_file"].wrapper
    assert str(inspect.signature(wrapper)) == "(path: str) -> str"
    with pytest.raises(StopIteration) as stopped:
        wrapper("x").send(None)
    assert stopped.value.value == "/xNone"


def test_a_later_object_of_a_subclass_replaces_the_earlier_one(local_process: AgentProcess) -> None:
    """The capabilities are read at the time of the registration."""

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

    assert [each["capability"] for each in tools(local_process)] == ["read", "write"]


def test_the_security_context_of_a_class_is_checked_when_an_object_is_made(local_process: AgentProcess) -> None:
    """A rejected object leaves no tool."""

    @mesh_agent(security_context="high_security")
    class Vault:
        def __init__(self, *capabilities: str) -> None:
            self.capabilities = list(capabilities)

    with pytest.raises(SecurityValidationError, match="authentication, authorization"):
        Vault("audit")
    assert tools(local_process) == []
    Vault("audit", "authentication", "authorization")
    assert len(tools(local_process)) == 3


def assert_rejected(local_process: AgentProcess, field: str, **declaration: Any) -> None:
    """Assert that a declaration is rejected with this field and leaves no function."""

    def function(x: Any = None) -> None:
        """Do nothing."""

    with pytest.raises(InvalidData) as error:
        mesh_agent(**declaration)(function)
    assert error.value.field == field
    assert local_process.agent.functions == {}


def test_a_wrong_declaration_is_rejected_with_its_field(local_process: AgentProcess) -> None:
    """An unknown keyword is a TypeError."""
    assert_rejected(local_process, "dependencies", dependencies="auth")
    assert_rejected(local_process, "dependencies[1].capability", dependencies=["a", {}])
    assert_rejected(local_process, "dependencies[1].capability", dependencies=["a", {"capability": "a"}])
    assert_rejected(local_process, "dependencies[0].tags", dependencies=[{"capability": "a", "tags": {1, 2}}])
    assert_rejected(local_process, "capabilities", capabilities="auth")
    assert_rejected(local_process, "capabilities", capabilities=["a"], capability="a")
    assert_rejected(local_process, "capabilities[0].name", capabilities=[{"version": "1"}])
    assert_rejected(local_process, "tags", tags="production")
    with pytest.raises(InvalidData, match=r"^health_interval: expected seconds above 0"):
        mesh_agent(health_interval=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'capabilty'"):
        mesh_agent(capabilty="x")  # type: ignore[call-arg]


def test_one_process_is_one_agent(local_process: AgentProcess) -> None:
    """A second name and a second function of the same name are rejected; the shortest interval is used."""
    mesh_agent(name="A", health_interval=30)(lambda_one)
    with pytest.raises(InvalidData, match=r"^name: already set to "):
        mesh_agent(name="B")(lambda_two)

    def lambda_one_again() -> None:
        """Do nothing."""

    lambda_one_again.__name__ = "lambda_one"
    with pytest.raises(InvalidData, match="lambda_one is declared by"):
        mesh_agent()(lambda_one_again)
    mesh_agent(health_interval=20)(lambda_one)
    assert local_process.agent._options["health_interval"] == 20


def test_thresholds_are_registered_with_the_agent(local_process: AgentProcess) -> None:
    """They are in seconds, and the shortest is used; the defaults are three and six heartbeat intervals."""

    def thresholds() -> tuple[float, float, float]:
        document = local_process.agent.registration_document("http://x")
        return document["health_interval"], document["timeout_threshold"], document["eviction_threshold"]

    assert thresholds() == (0.1, 0.3, 0.6)
    mesh_agent(health_interval=5)(lambda_one)
    assert thresholds() == (5, 15, 30)
    mesh_agent(eviction_threshold=20)(lambda_one)
    assert thresholds() == (5, 10, 20)
    with pytest.raises(InvalidData, match=r"^eviction_threshold: expected more than timeout_threshold, 20"):
        mesh_agent(timeout_threshold="20s")(lambda_two)
    local_process.agent._options.clear()

    mesh_agent(timeout_threshold=15, eviction_threshold=60)(lambda_two)
    mesh_agent(timeout_threshold=20, eviction_threshold="1m")(lambda_three)

    document = local_process.agent.registration_document("http://x")
    assert (document["timeout_threshold"], document["eviction_threshold"]) == (15, 60)
    with pytest.raises(InvalidData, match=r"^timeout_threshold: expected seconds above 0"):
        mesh_agent(timeout_threshold=-1)


def lambda_one() -> None:
    """Do nothing."""


def lambda_three() -> None:
    """Do nothing."""


def lambda_two() -> None:
    """Do nothing."""
