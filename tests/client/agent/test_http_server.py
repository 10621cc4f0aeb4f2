"""The server that a process runs where it has none of its own."""

import logging

import httpx2
from mcp.server import MCPServer
from mcp_mesh_client.agent.http_server import AgentHttpServer, new_mcp_server
from mcp_mesh_client.event_loop_thread import EventLoopThread


def test_a_server_made_here_leaves_logging_as_it_was() -> None:
    """The SDK's servers set it up for the whole process; an application's own `basicConfig` would then do nothing."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        assert new_mcp_server("x").name == "x"
        assert (root.handlers, root.level) == ([], before[1])
    finally:
        root.handlers[:] = before[0]


def test_a_call_needs_no_session() -> None:
    """Agents of the mesh SDK and `meshctl` call a tool without a greeting before it.

    They found our agents and could call none of them: each call was 400 `Missing session ID`.
    """
    server: MCPServer[None] = MCPServer("date", log_level="ERROR")
    server.add_tool(lambda: "monday", name="get_date")
    site, thread = AgentHttpServer(server, "127.0.0.1", 0, quiet=True), EventLoopThread()
    ended = thread.submit(site.serve())
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "get_date", "arguments": {}}}

    answer = httpx2.post(f"{site.url}/mcp", json=call, headers={"accept": "application/json, text/event-stream"})

    site.should_exit = True
    ended.result(10)
    thread.stop()
    assert answer.status_code == 200
    assert "monday" in answer.text
