"""Endpoints for the dependencies of an agent, its dependents, the whole graph, and the selection of an agent."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.query_params import boolean, parse_query, single_text
from registry.api.request.query_parsers import VERSION_PARAM, freshness
from registry.api.request.select_arguments import parse_select_query
from registry.api.response.json_responses import json_response, selection_response
from registry.errors import MalformedRequest, UnprocessableRequest
from registry.service.resolution.explain import ExplainResult, ResolutionExplainer
from registry.service.resolution.provider_selection import Selector


class DependencyRoutes:
    """The HTTP routes for dependencies and for GET /select."""

    def __init__(self, explainer: ResolutionExplainer, selector: Selector) -> None:
        self._explainer = explainer
        self._selector = selector
        self.routes = [
            Route("/agents/{agent_id}/dependencies", self.dependencies, methods=["GET"]),
            Route("/agents/{agent_id}/dependents", self.dependents, methods=["GET"]),
            Route("/dependencies", self.graph, methods=["GET"]),
            Route("/select", self.select, methods=["GET"]),
        ]

    async def dependencies(self, request: Request) -> Response:
        """GET /agents/{id}/dependencies: the provider of each dependency, with `explain` also the reasons."""
        params = parse_query(request.scope["query_string"], ("explain", *VERSION_PARAM))
        agent_id, explain = request.path_params["agent_id"], boolean(params, "explain")
        return _explanation_response(await self._explainer.dependencies(agent_id, freshness(params), explain=explain))

    async def dependents(self, request: Request) -> Response:
        """GET /agents/{id}/dependents: the agents whose dependencies this agent provides."""
        params = parse_query(request.scope["query_string"], VERSION_PARAM)
        return _explanation_response(
            await self._explainer.dependents(request.path_params["agent_id"], freshness(params))
        )

    async def graph(self, request: Request) -> Response:
        """GET /dependencies: every dependency, the unresolved ones, and the cycles."""
        params = parse_query(request.scope["query_string"], ("namespace", *VERSION_PARAM))
        return _explanation_response(await self._explainer.graph(single_text(params, "namespace"), freshness(params)))

    async def select(self, request: Request) -> Response:
        """GET /select: one agent to call for a capability."""
        try:
            selected = parse_select_query(request.scope["query_string"])
            selection = await self._selector.select(
                selected.dependency, selected.zone, selected.freshness, selected.exclude
            )
        except UnprocessableRequest as error:
            # An invalid query string gets 400, because 422 is for bodies.
            raise MalformedRequest(str(error), error.details) from error
        return selection_response(selection, selected.dependency.capability)


def _explanation_response(explained: ExplainResult) -> Response:
    body = {**explained.fields, "resource_version": str(explained.version)}
    return json_response(body, version=explained.version, staleness=explained.staleness)
