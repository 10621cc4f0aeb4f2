"""The HTTP client of an MCP session: a failed request ends one call, not the session, and its outcome is known."""

from collections.abc import Callable
from typing import Any

import httpx2
import mcp_types

from mcp_mesh_client.agent.request_log import agent_request
from mcp_mesh_client.errors import Outcome
from mcp_mesh_client.network_environment import Proxy, client_options

# Shorter than the 5 s after which uvicorn closes a connection.
_KEEPALIVE_EXPIRY_S = 3.0
# The JSON-RPC error codes of requests that failed without a response; no server sends the first two.
_NOT_SENT, _LOST = -1_000_001, -1_000_002
OUTCOMES: dict[int, Outcome] = {_NOT_SENT: "not_sent", _LOST: "unknown", mcp_types.CONNECTION_CLOSED: "unknown"}
"""The outcome of a call by the code of its JSON-RPC error."""


class ProviderHttpClient(httpx2.AsyncClient):
    """HTTP client for one URL that returns a JSON-RPC error as the response to a request that failed.

    It does so after `session_is_open` was set. Until then it raises, which ends the opening of the session.
    `connect_timeout` returns the seconds that a request may take to connect. `has_connected` is whether any has.
    """

    def __init__(self, url: str, proxy: Proxy | None, connect_timeout: Callable[[], float]) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=_KEEPALIVE_EXPIRY_S)
        # Each call has its own timeout.
        super().__init__(limits=limits, timeout=None, **client_options(url, proxy, may_redirect=True))
        self.session_is_open = self.has_connected = False
        self._connect_timeout = connect_timeout

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request and return its response, or a JSON-RPC error that contains whether it was sent."""
        was_sent = False

        async def trace(event: str, _info: dict[str, Any]) -> None:
            nonlocal was_sent
            was_sent = was_sent or event.endswith(".send_request_body.complete")
            self.has_connected = self.has_connected or event.endswith(".send_request_headers.started")

        timeout = {**request.extensions.get("timeout", {}), "connect": self._connect_timeout()}
        request.extensions = {**request.extensions, "trace": trace, "timeout": timeout}
        try:
            with agent_request():
                response = await super().send(request, **options)
            if response.headers.get("content-type", "").startswith("application/json"):
                await response.aread()
        except httpx2.TransportError as error:
            if not self.session_is_open:
                raise
            code = _LOST if was_sent else _NOT_SENT
            content = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": str(error) or repr(error)}}
            return httpx2.Response(httpx2.codes.SERVICE_UNAVAILABLE, json=content, request=request)
        return response
