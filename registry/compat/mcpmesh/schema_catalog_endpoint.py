"""The schemas of what tools take and give, for `meshctl list --schemas` and `meshctl schema diff`."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.query_params import parameters, whole
from registry.api.response.responses import answer
from registry.compat.mcpmesh.errors import refusal
from registry.compat.mcpmesh.schema_catalog import Canonical, Canonicals
from registry.model.encoding.agent_json import rfc3339

PARAMETERS = ("limit",)
_USUAL, _MOST = 100, 1000


class SchemaRoutes:
    """Serves schemas in canonical form."""

    def __init__(self, canonicals: Canonicals) -> None:
        self._canonicals = canonicals
        self.routes = [
            Route("/schemas", self.schemas, methods=["GET"]),
            Route("/schemas/{hash}", self.schema, methods=["GET"]),
        ]

    async def schemas(self, request: Request) -> Response:
        """GET /schemas: those that came last first."""
        given = parameters(request.scope["query_string"], PARAMETERS)
        found = [_shown(each) for each in await self._canonicals.newest(whole(given, "limit", 1, _MOST) or _USUAL)]
        return answer(orjson.dumps({"count": len(found), "schemas": found}))

    async def schema(self, request: Request) -> Response:
        """GET /schemas/{hash}."""
        parameters(request.scope["query_string"], ())
        asked: str = request.path_params["hash"]
        found = await self._canonicals.get(asked)
        if found is None:
            return answer(refusal(f"schema not found: {asked}"), status=404)
        return answer(orjson.dumps(_shown(found)))


def _shown(canonical: Canonical) -> dict[str, Any]:
    return {
        "hash": canonical.hash,
        "canonical": canonical.schema,
        "runtime_origin": canonical.runtime,
        "created_at": rfc3339(canonical.created),
    }
