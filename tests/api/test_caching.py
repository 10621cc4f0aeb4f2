"""The headers for caches: no cache serves an outdated response, or shows a response to a token to another caller."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from registry.config.value_types import Secret
from tests.support.http_calls import JSON_HEADERS, REQUEST_TIMEOUT_S, a_registration, list_agent_ids, register
from tests.support.in_process_registry import in_process_registry
from tests.support.load_balancers import NGINX_PATH, nginx
from tests.support.served_registry import served_registry

TOKEN = "s3cret"  # noqa: S105 - it opens nothing but these tests
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}
VARY = {"/agents": "accept-encoding", "/metrics": "accept", "/metrics/prometheus": "accept"}
READS = ["/", "/agents", "/agents/a", "/capabilities", "/dependencies", "/health", "/health/a", "/ready", "/metrics"]
READS += ["/metrics/prometheus", "/openapi.json", "/mcp/tools", "/agents/nobody", "/nothing", "/agents?x=1"]
OPEN = {"/", "/health", "/ready"}
# The configuration of a report: responses without Cache-Control are stored.
CACHE = "proxy_cache responses; proxy_cache_valid 200 10m;"


@pytest.fixture
async def client_with_token(redis_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Provide a client of a replica that requires a token; the client does not send it by itself."""
    async with in_process_registry(redis_url, auth_token=Secret(TOKEN)) as client:
        yield client


def cache_headers(response: httpx2.Response) -> tuple[str, str]:
    """Return the headers Cache-Control and Vary, '' for one that is missing."""
    return response.headers.get("cache-control", ""), response.headers.get("vary", "")


async def test_every_response_has_to_be_revalidated(client: httpx2.AsyncClient) -> None:
    """Also errors, responses without a body and responses to writes."""
    await register(client)
    for path in READS:
        expected = "no-cache", VARY.get(path, "")
        assert cache_headers(await client.get(path)) == expected, path
        assert cache_headers(await client.head(path)) == expected, path
    listed = await client.get("/agents")
    unchanged = await client.get("/agents", headers={"if-none-match": listed.headers["etag"]})
    assert (unchanged.status_code, *cache_headers(unchanged)) == (304, "no-cache", "accept-encoding")
    for response in (
        await client.post("/heartbeat", json={"agent_id": "a"}),
        await client.post("/agents", content=b"{", headers=JSON_HEADERS),
        await client.put("/agents"),
        await client.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"}),
        await client.head("/heartbeat/nobody"),
        await client.delete("/agents/a"),
    ):
        assert response.headers["cache-control"] == "no-cache"


async def test_a_response_to_an_accepted_token_is_stored_by_no_shared_cache(
    client_with_token: httpx2.AsyncClient,
) -> None:
    """The client itself may store a list, because the list has an ETag."""
    await client_with_token.post("/agents", json=a_registration(), headers=AUTHORIZED)
    for path in READS:
        control = "private, no-cache" if path == "/agents" else "no-store"
        expected = control, ", ".join([*([VARY[path]] if path in VARY else []), "authorization"])
        assert cache_headers(await client_with_token.get(path, headers=AUTHORIZED)) == expected, path


async def test_a_rejected_token_depends_on_the_header(client_with_token: httpx2.AsyncClient) -> None:
    """A cache must not send the 401, or a response without details, to a caller with the token."""
    for path in READS:
        response = await client_with_token.get(path, headers={"authorization": "Bearer x"})
        status = 200 if path in OPEN else 401
        assert (response.status_code, *cache_headers(response)) == (status, "no-cache", "authorization"), path


async def test_a_stream_depends_on_its_format(redis_url: str) -> None:
    """NDJSON or server-sent events; with a token no cache stores it."""
    for options, expected in (
        ({}, ("no-cache", "accept")),
        ({"auth_token": Secret(TOKEN)}, ("no-store", "accept, authorization")),
    ):
        async with served_registry(redis_url, **options) as served:
            path = f"{served.url}/agents?watch=true&timeout=0.1s"
            assert cache_headers(await served.client.get(path, headers=AUTHORIZED)) == expected


@pytest.mark.skipif(NGINX_PATH is None, reason="nginx is not installed; apt-get install nginx")
async def test_a_caching_nginx_serves_no_outdated_list(redis_url: str, tmp_path: Path) -> None:
    """With `proxy_cache_valid 200 10m` it would serve a list for ten minutes, if the registry allowed it."""
    async with (
        served_registry(redis_url) as served,
        nginx([served.url], tmp_path, CACHE) as url,
        httpx2.AsyncClient(base_url=url, timeout=REQUEST_TIMEOUT_S) as client,
    ):
        for number in range(3):
            assert len(await list_agent_ids(client)) == number
            await register(served.client, f"a{number}")


@pytest.mark.skipif(NGINX_PATH is None, reason="nginx is not installed; apt-get install nginx")
async def test_a_caching_nginx_serves_nothing_without_the_token(redis_url: str, tmp_path: Path) -> None:
    """Not even a list that another caller has just read with the token."""
    async with (
        served_registry(redis_url, auth_token=Secret(TOKEN)) as served,
        nginx([served.url], tmp_path, CACHE) as url,
        httpx2.AsyncClient(base_url=url, timeout=REQUEST_TIMEOUT_S) as client,
    ):
        for path in ("/agents", "/agents?fields=id", "/metrics", "/capabilities"):
            assert (await client.get(path, headers=AUTHORIZED)).status_code == 200
            assert (await client.get(path)).status_code == 401
