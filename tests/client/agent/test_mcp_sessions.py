"""Calling a provider: what comes back, how long it may take, and what is said when the provider is gone."""

import asyncio
import contextlib
import gc
import threading
import time
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
from mcp_mesh_client.agent.http_server import AgentHttpServer
from mcp_mesh_client.agent.mcp_sessions import mcp_url
from mcp_mesh_client.agent.process import AgentProcess as LocalProcess
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
    given: dict[str, Any] = {
        "text": "2026-11-27",
        "number": 42,
        "words": ["a", "b"],
        "object": {"a": 1},
        "tricky": {"result": 1},
        "nothing": None,
    }
    kinds = {"text": str, "number": int, "words": list[str], "object": dict[str, int], "tricky": dict[str, int]}
    for name, value in given.items():

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
    def unsaid(many: bool):  # type: ignore[no-untyped-def]  # noqa: ANN202, FBT001
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
    """Provide where a provider answers, in a thread of this process."""
    site, thread = AgentHttpServer(provider_server(), "127.0.0.1", 0, quiet=True), EventLoopThread()
    ended = thread.submit(site.serve())
    yield site.url
    site.should_exit = True
    ended.result(10)
    thread.stop()


def wire(here: LocalProcess, endpoint: str, tool: str) -> None:
    """Let the dependency `it` of all functions be this tool."""
    provider = {"agent_id": "provider-1", "endpoint": endpoint, "tool_name": tool}
    here.agent.update_dependencies({"dependencies_resolved": {name: {"it": provider} for name in here.agent.functions}})


def in_sync(here: LocalProcess, endpoint: str, tool: str, timeout: float | None = None, **arguments: Any) -> Any:
    """Call a tool from a function that is not async."""

    @mesh_agent(dependencies=["it"])
    def use(it: Any = None) -> Any:
        return (it if timeout is None else it.with_timeout(timeout))(**arguments)

    wire(here, endpoint, tool)
    return use()


async def in_async(here: LocalProcess, endpoint: str, tool: str, timeout: float | None = None, **arguments: Any) -> Any:
    """Call a tool from an async function."""

    @mesh_agent(dependencies=["it"])
    async def await_it(it: Any = None) -> Any:
        return await (it if timeout is None else it.with_timeout(timeout))(**arguments)

    wire(here, endpoint, tool)
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
async def test_a_call_returns_what_the_tool_returns(here: LocalProcess, endpoint: str, name: str, value: Any) -> None:
    """Not how it is told on the way, from both kinds of functions."""
    assert await asyncio.to_thread(in_sync, here, endpoint, name) == value
    assert await in_async(here, endpoint, name) == value


def test_what_is_not_structured_is_text(here: LocalProcess, endpoint: str) -> None:
    """Or a list of texts."""
    assert in_sync(here, endpoint, "untyped", many=False) == "plain"
    assert in_sync(here, endpoint, "untyped", many=True) == ["a", "b"]


def test_an_object_stays_an_object_where_the_tool_does_not_say_its_type(here: LocalProcess, endpoint: str) -> None:
    """`-> dict`, and nothing at all, are what many tools say; a caller got the text of the object, and no key of it."""
    assert in_sync(here, endpoint, "bare") == {"word": "a", "inner": {"n": 1}}
    assert in_sync(here, endpoint, "unsaid", many=False) == {"a": [1, 2]}
    assert in_sync(here, endpoint, "unsaid", many=True) == [{"a": 1}, "b"]


@pytest.mark.parametrize("text", ['{"a": 1}', '{\n  "a": ', "[1]", "5"])
def test_a_text_without_a_type_stays_a_text(here: LocalProcess, endpoint: str, text: str) -> None:
    """Unless it is written just as an object is."""
    assert in_sync(here, endpoint, "raw", text=text) == text


@pytest.mark.parametrize("text", ['{"result": 1}', '{"result": "x"}', "null", '"quoted"', ""])
def test_a_text_that_looks_like_json_stays_a_text(here: LocalProcess, endpoint: str, text: str) -> None:
    """A str is a str."""
    assert in_sync(here, endpoint, "echo", text=text) == text


async def test_a_call_times_out(here: LocalProcess, endpoint: str) -> None:
    """In both kinds of functions, by a time of its own; the session goes on."""
    with pytest.raises(TimeoutError, match=r"wait on provider-1 at http://.* no response within 0\.1 s"):
        await in_async(here, endpoint, "wait", 0.1, seconds=30)
    with pytest.raises(DependencyTimeout):
        await asyncio.to_thread(in_sync, here, endpoint, "wait", 0.1, seconds=30)
    assert await in_async(here, endpoint, "wait", 5, seconds=0) == "waited"
    with pytest.raises(InvalidData):
        await in_async(here, endpoint, "wait", 0, seconds=0)


async def test_a_tool_that_fails_says_so(here: LocalProcess, endpoint: str) -> None:
    """In the provider's words; so does one that is not there."""
    with pytest.raises(DependencyFailed, match=r"fail on provider-1 at .*: Error executing tool fail"):
        await in_async(here, endpoint, "fail")
    with pytest.raises(RuntimeError, match="Unknown tool: gone"):
        await asyncio.to_thread(in_sync, here, endpoint, "gone")


async def test_nobody_at_the_endpoint_is_said_at_once(here: LocalProcess) -> None:
    """A refused connection, a name that is none, and what speaks no MCP."""
    for nowhere in (f"http://127.0.0.1:{free_port()}", "http://nowhere.invalid:80"):
        with pytest.raises(DependencyUnavailable, match="text on provider-1 at http://"):
            await in_async(here, nowhere, "text")
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(in_sync, here, nowhere, "text")
    async with CannedServer(http_response(404, b"no such page")) as stranger:
        with pytest.raises(DependencyUnavailable):
            await in_async(here, stranger.url, "text")


async def test_silence_is_not_waited_for_beyond_the_time(here: LocalProcess) -> None:
    """A frozen provider takes connections and says nothing."""
    async with CannedServer() as silent:
        with pytest.raises(DependencyTimeout):
            await in_async(here, silent.url, "text", 0.3)


@contextlib.contextmanager
def provider_process() -> Iterator[tuple[AgentProcess, str]]:
    """Run a provider, and give where it is to answer."""
    port = free_port()
    with AgentProcess(PROGRAM.replace("{port}", str(port)), "http://127.0.0.1:9", name="provider") as process:
        process.wait_for_output("begins")
        yield process, f"http://127.0.0.1:{port}"


def until_it_answers(here: LocalProcess, url: str) -> None:
    """Call until the provider answers."""

    def answers() -> bool:
        try:
            return bool(in_sync(here, url, "wait", seconds=0) == "waited")
        except DependencyUnavailable:
            return False

    wait_until(answers, description="the provider answers", timeout=15)


def test_a_provider_killed_in_the_middle_of_a_call(here: LocalProcess) -> None:
    """All calls under way learn it at once; when it is back on the same port, the next call arrives."""

    @mesh_agent(dependencies=["it"])
    def hold(it: Any = None) -> Any:
        return it(seconds=60)

    with provider_process() as (process, url):
        until_it_answers(here, url)
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(hold) for _ in range(8)]
            wait_until(lambda: process.output.count("waits") >= 8 + 1, description="they wait")
            began = time.monotonic()
            process.kill()
            for call in calls:
                assert isinstance(call.exception(5), DependencyUnavailable)
            assert time.monotonic() - began < 5
        with pytest.raises(DependencyUnavailable):
            in_sync(here, url, "wait", seconds=0)
        process.start()
        until_it_answers(here, url)


def test_a_frozen_provider_takes_no_more_than_the_time(here: LocalProcess) -> None:
    """And when it thaws, the same session goes on."""
    with provider_process() as (process, url):
        until_it_answers(here, url)
        process.pause()
        with pytest.raises(DependencyTimeout):
            in_sync(here, url, "wait", 0.3, seconds=0)
        process.resume()
        assert in_sync(here, url, "wait", 10, seconds=0) == "waited"


def test_hundreds_of_calls_from_threads_at_once(here: LocalProcess, endpoint: str) -> None:
    """Each gets its own answer, over one session."""

    @mesh_agent(dependencies=["it"])
    def use(text: str, it: Dependency | None = None) -> Any:
        assert it is not None
        return it(text=text)

    wire(here, endpoint, "echo")
    with ThreadPoolExecutor(300) as pool:
        texts = [str(n) for n in range(300)]
        assert list(pool.map(use, texts)) == texts
    assert threading.active_count() < 100


def test_event_loops_that_end_take_their_sessions_along(here: LocalProcess, endpoint: str) -> None:
    """One loop after the other, as a command line tool makes them; nothing is left open or said."""

    @mesh_agent(dependencies=["it"])
    async def use(it: Any = None) -> Any:
        return await it()

    wire(here, endpoint, "text")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert asyncio.run(use()) == "2026-11-27"
            gc.collect()
    assert len(here.agent._sessions) == 0


async def test_a_dependency_that_goes_while_a_function_runs_is_said(here: LocalProcess, endpoint: str) -> None:
    """And one that changes is followed."""
    seen: list[Any] = []

    @mesh_agent(dependencies=["it"])
    async def use(it: Any = None) -> None:
        seen.append(await it())
        wire(here, endpoint, "number")
        seen.append(await it())
        seen.append(repr(it))
        here.agent.update_dependencies({"dependencies_resolved": {}})
        seen.append((it.provider, repr(it)))
        await it()

    wire(here, endpoint, "text")
    with pytest.raises(DependencyUnavailable, match="it: no provider is available"):
        await use()
    assert seen == ["2026-11-27", 42, "<it: number on provider-1>", (None, "<it: unresolved>")]


async def test_a_caller_that_is_cancelled_stops_waiting(here: LocalProcess, endpoint: str) -> None:
    """The session is there for the others."""
    task = asyncio.create_task(in_async(here, endpoint, "wait", seconds=60))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert await in_async(here, endpoint, "text") == "2026-11-27"


def test_an_endpoint_may_have_a_path_or_not() -> None:
    """Without one MCP is spoken under `/mcp`."""
    assert mcp_url("http://a:1") == mcp_url("http://a:1/") == mcp_url("http://a:1/mcp") == "http://a:1/mcp"
    assert mcp_url("http://a:1/other") == "http://a:1/other"
