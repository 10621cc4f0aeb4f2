"""The application that a replica serves until its store is open."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import httpx2
import pytest

from registry.api.startup_app import build_startup_app
from registry.config.settings import Settings
from registry.config.value_types import Secret
from registry.service.health_report import starting_health
from registry.telemetry.metrics import Metrics

HEALTH = starting_health("me", ["a warning"], leader_election=True)
TOKEN = "s3cret"  # noqa: S105 - it opens nothing


async def health_of(
    token: str | None, headers: Mapping[str, str] = MappingProxyType({}), *, public: bool = False
) -> dict[str, Any]:
    """Return the response to GET /health."""
    settings = Settings(auth_token=None if token is None else Secret(token))
    app = build_startup_app(HEALTH, Metrics(), settings, public=public)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        body: dict[str, Any] = (await client.get("/health", headers=headers)).json()
        return body


async def test_health_has_all_details_where_no_token_is_required() -> None:
    """It has the same fields as that of an open store."""
    health = await health_of(None)

    assert (health["status"], health["instance"], health["warnings"]) == ("starting", "me", ["a warning"])


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer x"}], ids=["none", "wrong"])
async def test_t21_a_stranger_reads_no_details_during_the_start(headers: dict[str, str]) -> None:
    """On the metrics port no caller does."""
    public = {"status": "starting", "ready": False}

    assert await health_of(TOKEN, headers) == public
    assert "warnings" in await health_of(TOKEN, {"authorization": f"Bearer {TOKEN}"})
    assert await health_of(None, public=True) == public
