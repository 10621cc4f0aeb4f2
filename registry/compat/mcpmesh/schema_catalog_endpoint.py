"""The schemas of what tools take and give, for `meshctl list --schemas` and `meshctl schema diff`."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.query_params import integer, parse_query
from registry.api.response.responses import json_response
from registry.compat.mcpmesh.errors import error_body
from registry.compat.mcpmesh.schema_catalog import CanonicalSchema, SchemaCatalog
from registry.model.encoding.agent_json import rfc3339

SCHEMA_PARAMS = ("limit",)
_DEFAULT_SCHEMAS, _MAX_SCHEMAS = 100, 1000


class SchemaCatalogRoutes:
    """Serves schemas in canonical form."""

    def __init__(self, catalog: SchemaCatalog) -> None:
        self._catalog = catalog
        self.routes = [
            Route("/schemas", self.schemas, methods=["GET"]),
            Route("/schemas/{hash}", self.schema, methods=["GET"]),
        ]

    async def schemas(self, request: Request) -> Response:
        """GET /schemas: those that came last first."""
        given = parse_query(request.scope["query_string"], SCHEMA_PARAMS)
        found = [
            _schema_fields(each)
            for each in await self._catalog.newest(integer(given, "limit", 1, _MAX_SCHEMAS) or _DEFAULT_SCHEMAS)
        ]
        return json_response(orjson.dumps({"count": len(found), "schemas": found}))

    async def schema(self, request: Request) -> Response:
        """GET /schemas/{hash}."""
        parse_query(request.scope["query_string"], ())
        asked: str = request.path_params["hash"]
        found = await self._catalog.get(asked)
        if found is None:
            return json_response(error_body(f"schema not found: {asked}"), status=404)
        return json_response(orjson.dumps(_schema_fields(found)))


def _schema_fields(canonical: CanonicalSchema) -> dict[str, Any]:
    return {
        "hash": canonical.hash,
        "canonical": canonical.schema,
        "runtime_origin": canonical.runtime,
        "created_at": rfc3339(canonical.created_ms),
    }
