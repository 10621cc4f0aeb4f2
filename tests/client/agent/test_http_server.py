"""The HTTP server that an agent starts if the application has none."""

import logging

import httpx2
from mcp.server import MCPServer
from mcp_mesh_client.agent.http_server import AgentHttpServer, new_mcp_server
from mcp_mesh_client.event_loop_thread import EventLoopThread

from tests.support.http_calls import REQUEST_TIMEOUT_S


def test_a_new_server_leaves_logging_unchanged() -> None:
    """The MCP SDK's servers configure logging, so that `basicConfig` of the application would have no effect."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        assert new_mcp_server("x").name == "x"
        assert (root.handlers, root.level) == ([], before[1])
    finally:
        root.handlers[:] = before[0]


def test_a_call_needs_no_session() -> None:
    """Agents of the mesh SDK and `meshctl` call a tool without initializing a session.

    A server with sessions rejects such a call with 400 `Missing session ID`.
    """
    server: MCPServer[None] = MCPServer("date", log_level="ERROR")
    server.add_tool(lambda: "monday", name="get_date")
    http_server, thread = AgentHttpServer(server, "127.0.0.1", 0, quiet=True), EventLoopThread()
    ended = thread.submit(http_server.serve())
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "get_date", "arguments": {}}}

    response = httpx2.post(
        f"{http_server.url}/mcp",
        json=call,
        headers={"accept": "application/json, text/event-stream"},
        timeout=REQUEST_TIMEOUT_S,
    )

    http_server.should_exit = True
    ended.result()
    thread.stop()
    assert response.status_code == 200
    assert "monday" in response.text
