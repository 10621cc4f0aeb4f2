"""The catalog of input and output schemas of mcp-mesh tools, and its routes; equal schemas are listed once."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.query_params import integer, parse_query
from registry.api.response.json_responses import json_response
from registry.cache.view import View
from registry.compat.mcpmesh.errors import error_body, with_mcpmesh_errors
from registry.concurrency.cooperative_iteration import cooperative
from registry.model.agent import Agent
from registry.model.encoding.agent_json import rfc3339
from registry.service.discovery.discovery_service import LATEST, Discovery

SCHEMA_PARAMS: Final = {"limit": "how many, most recent first"}
_DEFAULT_SCHEMAS: Final = 100
_MAX_SCHEMAS: Final = 1000
# Every spec with a canonical schema contains these bytes.
_SCHEMA_MARKER: Final = b'SchemaCanonical"'
_SCHEMA_FIELDS: Final = (("inputSchemaHash", "inputSchemaCanonical"), ("outputSchemaHash", "outputSchemaCanonical"))


@dataclass(frozen=True, slots=True)
class CanonicalSchema:
    """A tool schema in canonical form, with the runtime and registration time of the oldest agent that has it."""

    hash: str
    schema: Any
    runtime: str
    created_ms: int


class SchemaCatalog:
    """Collects the tool schemas of all registered agents, once per version of the view."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._lock = asyncio.Lock()
        self._view: View | None = None
        self._version = -1
        self._schemas: dict[str, CanonicalSchema] = {}

    async def newest(self, limit: int) -> Sequence[CanonicalSchema]:
        """Return at most `limit` tool schemas, newest first."""
        schemas = await self._all_schemas()
        return sorted(schemas.values(), key=lambda each: (-each.created_ms, each.hash))[:limit]

    async def get(self, schema_hash: str) -> CanonicalSchema | None:
        """Return the tool schema with a hash; None if no agent has it."""
        return (await self._all_schemas()).get(schema_hash)

    async def _all_schemas(self) -> dict[str, CanonicalSchema]:
        view, _ = await self._discovery.view(LATEST)
        async with self._lock:
            if self._view is not view or self._version < view.version:
                version = view.version
                self._schemas = await _collect_schemas(view)
                self._view, self._version = view, version
            return self._schemas


async def _collect_schemas(view: View) -> dict[str, CanonicalSchema]:
    schemas: dict[str, CanonicalSchema] = {}
    agents = [record.agent for record in view.records.values() if record.agent.indexed.format is not None]
    async for agent in cooperative(sorted(agents, key=lambda each: (each.created, each.id))):
        for canonical in _schemas_of(agent) if _SCHEMA_MARKER in agent.spec else ():
            schemas.setdefault(canonical.hash, canonical)
    return schemas


def _schemas_of(agent: Agent) -> Iterator[CanonicalSchema]:
    spec = orjson.loads(agent.spec)
    for tool in chain(spec["capabilities"], spec["registration_format"].get("routes", ())):
        for hash_field, schema_field in _SCHEMA_FIELDS:
            # These fields are stored as sent and were not validated.
            if isinstance(tool.get(hash_field), str) and tool[hash_field] and isinstance(tool.get(schema_field), dict):
                runtime = spec.get("runtime", "python")
                yield CanonicalSchema(tool[hash_field], tool[schema_field], runtime, agent.created)


class SchemaCatalogRoutes:
    """The HTTP routes for `meshctl list --schemas` and `meshctl schema diff`."""

    def __init__(self, catalog: SchemaCatalog) -> None:
        self._catalog = catalog
        self.routes = [
            Route("/schemas", with_mcpmesh_errors(self.schemas), methods=["GET"]),
            Route("/schemas/{hash}", with_mcpmesh_errors(self.schema), methods=["GET"]),
        ]

    async def schemas(self, request: Request) -> Response:
        """GET /schemas: list the tool schemas, newest first."""
        params = parse_query(request.scope["query_string"], SCHEMA_PARAMS)
        schemas = [
            _schema_fields(each)
            for each in await self._catalog.newest(integer(params, "limit", 1, _MAX_SCHEMAS) or _DEFAULT_SCHEMAS)
        ]
        return json_response({"count": len(schemas), "schemas": schemas})

    async def schema(self, request: Request) -> Response:
        """GET /schemas/{hash}: show one tool schema."""
        parse_query(request.scope["query_string"], ())
        schema_hash: str = request.path_params["hash"]
        schema = await self._catalog.get(schema_hash)
        if schema is None:
            return json_response(error_body(f"schema not found: {schema_hash}"), status=404)
        return json_response(_schema_fields(schema))


def _schema_fields(canonical: CanonicalSchema) -> dict[str, Any]:
    return {
        "hash": canonical.hash,
        "canonical": canonical.schema,
        "runtime_origin": canonical.runtime,
        "created_at": rfc3339(canonical.created_ms),
    }
