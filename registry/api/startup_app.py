"""The application that a replica serves until its store is open."""

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from registry.api.endpoints.health import health_response, readiness_response
from registry.api.middleware import RegistryMiddleware
from registry.api.request_checks import RequestChecks
from registry.api.response.json_responses import json_response
from registry.config.settings import Settings
from registry.errors import NotReady
from registry.service.health_report import public_health
from registry.telemetry.metrics import Metrics


def build_startup_app(health: Mapping[str, Any], metrics: Metrics, settings: Settings, *, public: bool) -> ASGIApp:
    """Return an application that responds to GET /health with `health`, and with 503 to all other requests.

    With `public`, or without a token that is required, the response contains no details.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/health":
            with_details = scope["authorized"] and not public
            response = health_response(health, metrics) if with_details else json_response(public_health(health))
            await response(scope, receive, send)
        elif scope["path"] == "/ready":
            await readiness_response(ready=False)(scope, receive, send)
        else:
            raise NotReady("This replica is starting and its store is not open yet; try again shortly")

    return RegistryMiddleware(app, metrics, settings.auth_token, RequestChecks(settings, any_host=public))
