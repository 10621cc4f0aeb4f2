"""The OpenAPI descriptions of the endpoints for mcp-mesh."""

from typing import Any, Final

from registry.api.openapi import operation
from registry.compat.mcpmesh.events import EVENT_PARAMS
from registry.compat.mcpmesh.schema_catalog import SCHEMA_PARAMS

_STRING: Final = {"type": "string"}
_CLAIM_SCHEMA: Final = {
    "type": "object",
    "properties": {"capability": _STRING, "instance_id": _STRING},
    "required": ["capability"],
}
_PROXY_PARAMS: Final = ("host", "port")
_PROXY_SUMMARY: Final = "Forward a call to an agent"

MCPMESH_PATHS: Final[dict[str, Any]] = {
    "/proxy/{host}:{port}/mcp": {
        "get": operation(_PROXY_SUMMARY, path=_PROXY_PARAMS),
        "post": operation(_PROXY_SUMMARY, body={"type": "object"}, path=_PROXY_PARAMS),
    },
    "/events": {"get": operation("Life-cycle events, and resolution events of one agent", query=EVENT_PARAMS)},
    "/schemas": {"get": operation("Schemas of mcp-mesh tools", query=SCHEMA_PARAMS)},
    "/schemas/{hash}": {"get": operation("One schema", path=("hash",))},
    "/admin/drain": {
        "get": operation("Whether job dispatch is paused"),
        "post": operation("Pause job dispatch on all replicas"),
        "delete": operation("Resume job dispatch"),
    },
    "/a2a/agents": {"get": operation("A2A surfaces of all agents")},
    "/jobs": {"get": operation("List jobs; always empty")},
    "/jobs/{job_id}": {"get": operation("One job; always 404", path=("job_id",))},
    "/jobs/claim": {"post": operation("Claim jobs; always empty", body=_CLAIM_SCHEMA)},
}
