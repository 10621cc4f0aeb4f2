"""Calls of a provider: the results, the timeouts, and the errors."""

import asyncio
import contextlib
import gc
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from mcp.server import MCPServer
from mcp_mesh_client import (
    Dependency,
    DependencyFailed,
    DependencyTimeout,
    DependencyUnavailable,
    InvalidData,
    mesh_agent,
)
from mcp_mesh_client.agent.agent_process import AgentProcess as LocalProcess
from mcp_mesh_client.agent.env import mcp_url
from mcp_mesh_client.agent.http_server import AgentHttpServer
from mcp_mesh_client.event_loop_thread import EventLoopThread

from tests.support.agent_process import AgentProcess
from tests.support.canned_server import CannedServer, http_response
from tests.support.polling import wait_until
from tests.support.ports import free_port

PROGRAM = """
import asyncio, sys
from mcp.server import MCPServer
server = MCPServer("provider", log_level="WARNING")

@server.tool()
async def wait(seconds: float) -> str:
    print("waits", flush=True)
    await asyncio.sleep(seconds)
    return "waited"

print("begins", flush=True)
server.run("streamable-http", port=int(sys.argv[-1]) if sys.argv[-1].isdigit() else {port})
"""


def provider_server() -> MCPServer[Any]:
    """Return a server with a tool for each kind of result."""
    server: MCPServer[Any] = MCPServer("provider", log_level="ERROR")
    results: dict[str, Any] = {
        "text": "2026-11-27",
        "number": 42,
        "words": ["a", "b"],
        "object": {"a": 1},
        "tricky": {"result": 1},
        "nothing": None,
    }
    kinds = {"text": str, "number": int, "words": list[str], "object": dict[str, int], "tricky": dict[str, int]}
    for name, value in results.items():

        def give(value: Any = value) -> Any:
            return value

        give.__annotations__ = {"return": kinds.get(name)}
        server.add_tool(give, name=name)

    @server.tool(structured_output=False)
    def untyped(many: bool) -> Any:  # noqa: FBT001
        return ["a", "b"] if many else "plain"

    @server.tool()
    def bare() -> dict:  # type: ignore[type-arg]
        return {"word": "a", "inner": {"n": 1}}

    @server.tool()
    def unannotated(many: bool):  # type: ignore[no-untyped-def]  # noqa: ANN202, FBT001
        return [{"a": 1}, "b"] if many else {"a": [1, 2]}

    @server.tool(structured_output=False)
    def raw(text: str) -> str:
        return text

    @server.tool()
    def echo(text: str) -> str:
        return text

    @server.tool()
    async def wait(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "waited"

    @server.tool()
    def fail() -> str:
        raise ValueError("a secret")

    return server


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Serve a provider in a thread of this process; provide its URL."""
    http_server, thread = AgentHttpServer(provider_server(), "127.0.0.1", 0, quiet=True), EventLoopThread()
    ended = thread.submit(http_server.serve())
    yield http_server.url
    http_server.should_exit = True
    ended.result()
    thread.stop()


def resolve(local_process: LocalProcess, endpoint: str, tool: str) -> None:
    """Resolve the dependency `it` of all functions to this tool."""
    local_process.agent.caller.suspects.clear()
    provider = {"agent_id": "provider-1", "endpoint": endpoint, "tool_name": tool}
    local_process.agent.update_dependencies(
        {"dependencies_resolved": {name: {"it": provider} for name in local_process.agent.functions}}
    )


def call_sync(
    local_process: LocalProcess, endpoint: str, tool: str, timeout: float | None = None, **arguments: Any
) -> Any:
    """Call a tool from a function that is not async."""

    @mesh_agent(dependencies=["it"])
    def use(it: Any = None) -> Any:
        return (it if timeout is None else it.with_timeout(timeout))(**arguments)

    resolve(local_process, endpoint, tool)
    return use()


async def call_async(
    local_process: LocalProcess, endpoint: str, tool: str, timeout: float | None = None, **arguments: Any
) -> Any:
    """Call a tool from an async function."""

    @mesh_agent(dependencies=["it"])
    async def await_it(it: Any = None) -> Any:
        return await (it if timeout is None else it.with_timeout(timeout))(**arguments)

    resolve(local_process, endpoint, tool)
    return await await_it()


RESULTS = {
    "text": "2026-11-27",
    "number": 42,
    "words": ["a", "b"],
    "object": {"a": 1},
    "tricky": {"result": 1},
    "nothing": None,
}


@pytest.mark.parametrize(("name", "value"), RESULTS.items())
async def test_a_call_returns_the_value_of_the_tool(
    local_process: LocalProcess, endpoint: str, name: str, value: Any
) -> None:
    """It is the value of the tool, not its MCP encoding, in functions of both kinds."""
    assert await asyncio.to_thread(call_sync, local_process, endpoint, name) == value
    assert await call_async(local_process, endpoint, name) == value


def test_unstructured_results_are_texts(local_process: LocalProcess, endpoint: str) -> None:
    """Several content items are a list of texts."""
    assert call_sync(local_process, endpoint, "untyped", many=False) == "plain"
    assert call_sync(local_process, endpoint, "untyped", many=True) == ["a", "b"]


def test_an_object_is_returned_without_a_return_annotation(local_process: LocalProcess, endpoint: str) -> None:
    """This includes a bare `-> dict`; the caller gets an object, not its text."""
    assert call_sync(local_process, endpoint, "bare") == {"word": "a", "inner": {"n": 1}}
    assert call_sync(local_process, endpoint, "unannotated", many=False) == {"a": [1, 2]}
    assert call_sync(local_process, endpoint, "unannotated", many=True) == [{"a": 1}, "b"]


@pytest.mark.parametrize("text", ['{"a": 1}', '{\n  "a": ', "[1]", "5"])
def test_a_text_without_a_type_stays_a_text(local_process: LocalProcess, endpoint: str, text: str) -> None:
    """Only text with exactly the format of an encoded object is decoded."""
    assert call_sync(local_process, endpoint, "raw", text=text) == text


@pytest.mark.parametrize("text", ['{"result": 1}', '{"result": "x"}', "null", '"quoted"', ""])
def test_a_text_that_looks_like_json_stays_a_text(local_process: LocalProcess, endpoint: str, text: str) -> None:
    """The return annotation `str` decides."""
    assert call_sync(local_process, endpoint, "echo", text=text) == text


async def test_a_call_times_out(local_process: LocalProcess, endpoint: str) -> None:
    """The timeout of a call applies in functions of both kinds; the session stays usable."""
    with pytest.raises(TimeoutError, match=r"wait on provider-1 at http://.* no response within 0\.1 s"):
        await call_async(local_process, endpoint, "wait", 0.1, seconds=30)
    with pytest.raises(DependencyTimeout):
        await asyncio.to_thread(call_sync, local_process, endpoint, "wait", 0.1, seconds=30)
    assert await call_async(local_process, endpoint, "wait", 5, seconds=0) == "waited"
    with pytest.raises(InvalidData):
        await call_async(local_process, endpoint, "wait", 0, seconds=0)


async def test_an_error_of_a_tool_is_raised(local_process: LocalProcess, endpoint: str) -> None:
    """The message is that of the provider; an unknown tool is an error of this kind, too."""
    with pytest.raises(DependencyFailed, match=r"fail on provider-1 at .*: Error executing tool fail"):
        await call_async(local_process, endpoint, "fail")
    with pytest.raises(RuntimeError, match="Unknown tool: gone"):
        await asyncio.to_thread(call_sync, local_process, endpoint, "gone")


async def test_an_unavailable_endpoint_is_reported_at_once(local_process: LocalProcess) -> None:
    """The connection is refused, the host name does not exist, or the server does not support MCP."""
    for unavailable in (f"http://127.0.0.1:{free_port()}", "http://nowhere.invalid:80"):
        with pytest.raises(DependencyUnavailable, match="text on provider-1 at http://"):
            await call_async(local_process, unavailable, "text")
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(call_sync, local_process, unavailable, "text")
    async with CannedServer(http_response(404, b"no such page")) as other_server:
        with pytest.raises(DependencyUnavailable):
            await call_async(local_process, other_server.url, "text")


async def test_a_provider_that_does_not_respond_is_bounded_by_the_timeout(local_process: LocalProcess) -> None:
    """It accepts connections and sends nothing."""
    async with CannedServer() as hanging:
        with pytest.raises(DependencyTimeout):
            await call_async(local_process, hanging.url, "text", 0.3)


@contextlib.contextmanager
def provider_process() -> Iterator[tuple[AgentProcess, str]]:
    """Run a provider as a process; return it and its URL."""
    port = free_port()
    with AgentProcess(PROGRAM.replace("{port}", str(port)), "http://127.0.0.1:9", name="provider") as process:
        process.wait_for_output("begins")
        yield process, f"http://127.0.0.1:{port}"


def wait_until_available(local_process: LocalProcess, url: str) -> None:
    """Repeat a call until the provider responds."""

    def is_available() -> bool:
        try:
            return bool(call_sync(local_process, url, "wait", seconds=0) == "waited")
        except DependencyUnavailable:
            return False

    wait_until(is_available, description="the provider responds")


def test_calls_of_a_killed_provider_fail(local_process: LocalProcess) -> None:
    """All calls under way fail, long before they would end; after a restart on the same port the next call succeeds."""

    @mesh_agent(dependencies=["it"])
    def wait_long(it: Any = None) -> Any:
        return it(seconds=3600)

    with provider_process() as (process, url):
        wait_until_available(local_process, url)
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(wait_long) for _ in range(8)]
            wait_until(lambda: process.output.count("waits") >= 8 + 1, description="all calls wait")
            process.kill()
            for call in calls:
                assert isinstance(call.exception(), DependencyUnavailable)
        with pytest.raises(DependencyUnavailable):
            call_sync(local_process, url, "wait", seconds=0)
        process.start()
        wait_until_available(local_process, url)


def test_calls_of_a_frozen_provider_time_out(local_process: LocalProcess) -> None:
    """The session stays usable when the provider continues."""
    with provider_process() as (process, url):
        wait_until_available(local_process, url)
        process.pause()
        with pytest.raises(DependencyTimeout):
            call_sync(local_process, url, "wait", 0.3, seconds=0)
        process.resume()
        assert call_sync(local_process, url, "wait", 10, seconds=0) == "waited"


def test_hundreds_of_threads_call_at_once(
    local_process: LocalProcess, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets its own response, over one session, however long a busy machine takes to connect."""
    monkeypatch.setattr("mcp_mesh_client.agent.provider_sessions._MAX_CONNECT_TIMEOUT_S", 60)

    @mesh_agent(dependencies=["it"])
    def use(text: str, it: Dependency | None = None) -> Any:
        assert it is not None
        return it(text=text)

    resolve(local_process, endpoint, "echo")
    with ThreadPoolExecutor(300) as pool:
        texts = [str(n) for n in range(300)]
        assert list(pool.map(use, texts)) == texts
    assert threading.active_count() < 100


def test_a_closed_event_loop_closes_its_sessions(local_process: LocalProcess, endpoint: str) -> None:
    """A command line tool may run one loop after another; no session stays open and no warning is printed."""

    @mesh_agent(dependencies=["it"])
    async def use(it: Any = None) -> Any:
        return await it()

    resolve(local_process, endpoint, "text")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert asyncio.run(use()) == "2026-11-27"
            gc.collect()
    assert len(local_process.agent.caller._sessions) == 0


async def test_a_running_function_sees_changes_of_its_dependency(local_process: LocalProcess, endpoint: str) -> None:
    """A new provider is called; without a provider the call raises an error."""
    results: list[Any] = []

    @mesh_agent(dependencies=["it"])
    async def use(it: Any = None) -> None:
        results.append(await it())
        resolve(local_process, endpoint, "number")
        results.append(await it())
        results.append(repr(it))
        local_process.agent.update_dependencies({"dependencies_resolved": {}})
        results.append((it.provider, repr(it)))
        await it()

    resolve(local_process, endpoint, "text")
    with pytest.raises(DependencyUnavailable, match="it: no provider is available"):
        await use()
    assert results == ["2026-11-27", 42, "<it: number on provider-1>", (None, "<it: unresolved>")]


async def test_a_cancelled_caller_stops_waiting(local_process: LocalProcess, endpoint: str) -> None:
    """Other callers can still use the session."""
    task = asyncio.create_task(call_async(local_process, endpoint, "wait", seconds=60))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert await call_async(local_process, endpoint, "text") == "2026-11-27"


def test_an_endpoint_without_a_path_means_mcp() -> None:
    """The default path is `/mcp`."""
    assert mcp_url("http://a:1") == mcp_url("http://a:1/") == mcp_url("http://a:1/mcp") == "http://a:1/mcp"
    assert mcp_url("http://a:1/other") == "http://a:1/other"
    assert mcp_url("http://a:1?key=b/") == "http://a:1/mcp?key=b/"
