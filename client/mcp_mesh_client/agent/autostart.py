"""The MCP server of this agent: run by the application, or started by this module in a thread."""

import asyncio
import concurrent.futures
import logging
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from mcp_mesh_client.agent.agent_function import AgentFunction
from mcp_mesh_client.agent.dependency_caller import mcp_missing_error
from mcp_mesh_client.agent.env import check_endpoint, listening_host
from mcp_mesh_client.agent.local_agent import LocalAgent
from mcp_mesh_client.errors import ClientError, DecoratorOrderError, InvalidData
from mcp_mesh_client.event_loop_thread import EventLoopThread

if TYPE_CHECKING:
    from mcp.server import MCPServer

    from mcp_mesh_client.agent.http_server import AgentHttpServer

_log = logging.getLogger("mcp_mesh_client")

# The delay of the autostart after the last declaration, the interval between checks whether the main thread still
# imports modules, and the limit of the shutdown.
_AUTOSTART_DELAY_S, _IMPORT_POLL_S, _CLOSE_TIMEOUT_S = 1.0, 0.2, 2.0

DECORATOR_ORDER_HINT = "put @server.tool() above @mesh_agent(...), not below it"


class AgentServer:
    """Makes the declared functions callable through an MCP server.

    An application that runs the server itself calls `reserve` or `announce`; otherwise a server is started in a thread
    when it is needed.
    """

    def __init__(self, agent: LocalAgent) -> None:
        self._agent = agent
        self._reserved = self._autostart_tried = False
        self._own_server: tuple[AgentHttpServer, EventLoopThread, concurrent.futures.Future[None]] | None = None
        self._prepared_servers = weakref.WeakSet[Any]()
        self._lock = threading.Lock()

    def announce(
        self, server: "MCPServer[Any] | None", endpoint: str | None, default_endpoint: str | None = None
    ) -> None:
        """Set the agent's URL for callers, and add the declared tools to `server`, which the application runs.

        `default_endpoint` applies if neither the code nor the environment sets one. Raises InvalidData, and
        DecoratorOrderError for a tool without dependency injection.
        """
        self._reserved = True
        endpoint = self._agent.environment.choose("endpoint", endpoint) or default_endpoint
        if endpoint is None:
            raise InvalidData("endpoint", "endpoint: expected the URL for MCP calls, such as http://host:8080/mcp")
        if server is not None:
            self._prepare_server(server)
        self._agent.set_endpoint(check_endpoint(endpoint, "endpoint"))
        self.close()

    def open_http_server(
        self, server: "MCPServer[Any] | None", host: str | None, port: int | None
    ) -> "AgentHttpServer":
        """Open a listening socket for this MCP server or, without one, for a new server with all declared functions.

        If the public host is not a loopback address, it listens on all addresses. Raises McpLibraryMissing, OSError
        if the port is in use, and DecoratorOrderError.
        """
        try:
            from mcp_mesh_client.agent.http_server import AgentHttpServer, new_mcp_server  # noqa: PLC0415 - imports the MCP SDK
        except ImportError as error:
            raise mcp_missing_error() from error
        environment = self._agent.environment
        own = server is None
        server = new_mcp_server(self._agent.name) if server is None else server
        self._prepare_server(server)
        host = listening_host(environment.public_host) if host is None else host
        port = environment.choose("port", port) or 0
        return AgentHttpServer(server, host, port, public_host=environment.host, quiet=own)

    def reserve(self) -> None:
        """Prevent the autostart and clear the endpoint, because the application will serve and set the endpoint."""
        self._reserved = True
        self._agent.endpoint = None

    async def autostart(self) -> float | None:
        """Start a server in a thread, unless the application serves or an environment variable disables it.

        Return the seconds until the next check: a program that still imports modules may call `serve` later.
        """
        if self._reserved or self._autostart_tried:
            return None
        if (remaining := self._agent.changed_at + _AUTOSTART_DELAY_S - time.monotonic()) > 0:
            return remaining
        if _main_thread_is_importing():
            return _IMPORT_POLL_S
        self._autostart_tried = True
        await self._start_own_server()
        return None

    async def _start_own_server(self) -> None:
        if not self._agent.environment.auto_run:
            _log.warning('agent_endpoint_missing id=%s hint="call serve() or announce()"', self._agent.id)
            return
        try:
            http_server = await asyncio.to_thread(self.open_http_server, None, None, None)
        except (ClientError, OSError) as error:
            _log.error("agent_server_failed id=%s error=%s", self._agent.id, error)
            return
        if self._is_reserved():
            http_server.close()
            return
        thread = EventLoopThread()
        self._own_server = http_server, thread, thread.submit(http_server.serve())
        _log.info("agent_server_started id=%s endpoint=%s", self._agent.id, http_server.url)
        self._agent.set_endpoint(http_server.url)

    def _is_reserved(self) -> bool:
        return self._reserved

    def close(self) -> None:
        """Close the server that `autostart` started, if it started one."""
        own, self._own_server = self._own_server, None
        if own is not None:
            http_server, thread, ended = own
            http_server.close()
            # Let it shut down gracefully, within limits.
            concurrent.futures.wait([ended], _CLOSE_TIMEOUT_S)
            thread.stop()

    def _prepare_server(self, server: "MCPServer[Any]") -> None:
        """Add `GET /health` to an MCP server, and the functions of the agent that are not yet tools of this server.

        From now on each function has the name of its tool.
        """
        from mcp_mesh_client.agent.http_server import add_health_route, log_one_line_per_record, own_name  # noqa: PLC0415

        log_one_line_per_record()
        with self._lock:
            self._agent.server_name = self._agent.server_name or own_name(server)
            if server not in self._prepared_servers:
                add_health_route(server, self._agent.health)
                self._prepared_servers.add(server)
            # The public method of the SDK lists tools without their functions.
            tools: dict[Any, list[str]] = {}
            for tool in server._tool_manager.list_tools():  # noqa: SLF001
                tools.setdefault(tool.fn, []).append(tool.name)
            for function in tuple(self._agent.functions.values()):
                if function.original in tools and function.original is not function.wrapper:
                    raise DecoratorOrderError(
                        f"{function.qualified_name} is registered as a tool without dependency injection: "
                        f"{DECORATOR_ORDER_HINT}"
                    )
                names = tools.get(function.wrapper, [function.name])
                if function.name not in names:
                    self._agent.rename_function(function, names[0])
                _add_missing_tools(server, function)


def _main_thread_is_importing() -> bool:
    """Return whether the main thread is still importing a module."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - a documented function
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def _add_missing_tools(server: "MCPServer[Any]", function: AgentFunction) -> None:
    """Add a tool for each name of a function that the MCP server lacks, with the input schema of the function."""
    for spec in function.tool_specs():
        name = spec["function_name"]
        if (tool := server._tool_manager.get_tool(name)) is None:  # noqa: SLF001
            server.add_tool(function.wrapper, name=name)
            tool = server._tool_manager.get_tool(name)  # noqa: SLF001
        if tool is not None and name == function.name:
            function.input_schema = tool.parameters
