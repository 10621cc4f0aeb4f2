"""The application that a replica serves until its store is open."""

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from registry.api.endpoints.health import health_response, readiness_response
from registry.api.middleware import RegistryMiddleware
from registry.config.value_types import Secret
from registry.errors import NotReady
from registry.telemetry.metrics import Metrics


def build_startup_app(health: Mapping[str, Any], metrics: Metrics, token: Secret | None) -> ASGIApp:
    """Return an application that responds to GET /health with `health`, and with 503 to all other requests."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/health":
            await health_response(health, metrics)(scope, receive, send)
        elif scope["path"] == "/ready":
            await readiness_response(ready=False)(scope, receive, send)
        else:
            raise NotReady("This replica is starting and its store is not open yet; try again shortly")

    return RegistryMiddleware(app, metrics, token)
