"""The checks before routing: the origin and the host of a request, and the content type of its body."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from registry.api.request_checks import Rule
from registry.config.value_types import Secret
from tests.support.http_calls import (
    JSON_HEADERS,
    a_registration,
    expect_error,
    expect_success,
    list_agent_ids,
    register,
)
from tests.support.in_process_registry import in_process_registry

TOKEN = "s3cret"  # noqa: S105 - it opens nothing but these tests
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}
EVIL = "http://evil.example"
TOOLS = "https://tools.example"
# Calls that change or forge something, as a page sends them: without Content-Type, or as a simple request.
ATTACKS: list[tuple[str, str, bytes]] = [
    ("POST", "/agents", b'{"id":"x","endpoint":"http://x:1","capabilities":["pay"]}'),
    ("POST", "/mcp/tools/unregister_agent", b'{"agent_id":"a"}'),
    ("POST", "/admin/drain", b""),
    ("POST", "/agents/a/drain", b""),
    ("POST", "/heartbeat", b'{"agent_id":"a"}'),
    ("HEAD", "/heartbeat/a", b""),
    ("DELETE", "/agents/a", b""),
    ("GET", "/agents", b""),
    ("POST", "/proxy/a:1/mcp", b"x"),
    ("OPTIONS", "/agents", b""),
    ("GET", "/health", b""),
    ("GET", "/nothing", b""),
]


@pytest.fixture
async def client_with_origin(redis_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Provide a client of a registry that pages of one other origin may call."""
    async with in_process_registry(redis_url, origins=(TOOLS,)) as client:
        yield client


def expect_refusal(response: httpx2.Response, path: str, method: str = "GET") -> None:
    """Check the response to a request of a page that may not call the registry."""
    assert response.status_code == 403, (path, response.text)
    assert "access-control-allow-origin" not in response.headers
    if method != "HEAD":
        assert (response.json()["error"]) == "origin_refused"


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "https://localhost"},
        {"origin": "http://localhost.evil.example"},
        {"origin": EVIL, "sec-fetch-site": "same-origin"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    ],
    ids=str,
)
async def test_a_page_of_another_origin_changes_and_reads_nothing(
    client: httpx2.AsyncClient, prefix: str, headers: dict[str, str]
) -> None:
    """On no path, with no method: nothing is routed, so an unknown path is no 404."""
    await register(client)
    for method, path, body in ATTACKS:
        response = await client.request(
            method, prefix + path, content=body, headers={**headers, "content-type": "text/plain"}
        )
        expect_refusal(response, path, method)

    assert await list_agent_ids(client) == ["a"]
    assert (await client.get("/agents/a")).json()["status"] == "pending"


@pytest.mark.parametrize("headers", [{}, AUTHORIZED], ids=["without token", "with token"])
async def test_a_page_is_refused_with_and_without_a_token(redis_url: str, headers: dict[str, str]) -> None:
    """Before the token is checked, so that a page cannot guess tokens."""
    async with in_process_registry(redis_url, auth_token=Secret(TOKEN)) as client:
        for method, path, body in ATTACKS:
            expect_refusal(
                await client.request(method, path, content=body, headers={"origin": EVIL, **headers}), path, method
            )


@pytest.mark.parametrize("path", ["/mcp", "/api/v1/mcp", "/mcp/"])
async def test_mcp_refuses_an_origin_with_a_json_rpc_error_without_an_id(client: httpx2.AsyncClient, path: str) -> None:
    """As the specification of Streamable HTTP requires; the body is not read."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    response = await client.post(path, json=message, headers={"origin": EVIL})

    assert response.status_code == 403
    assert response.json().keys() == {"jsonrpc", "error"}
    assert response.json()["error"]["code"] == -32600
    assert response.json()["error"]["data"]["error"] == "origin_refused"
    assert "REGISTRY_ORIGINS" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-mode": "cors"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
        {"sec-fetch-site": "same-origin"},
        {"origin": "http://localhost"},
        {"origin": "http://localhost:8000", "host": "LocalHost:8000"},
        {"origin": "http://127.0.0.1:8000", "host": "127.0.0.1:8000"},
    ],
    ids=str,
)
async def test_programs_and_pages_of_the_registry_itself_pass(
    client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    """Node's fetch sends Sec-Fetch-Mode alone."""
    expect_success(await client.post("/agents", json=a_registration(), headers=headers))
    assert (await client.get("/agents", headers=headers)).status_code == 200
    response = await client.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers=headers)
    assert response.json()["result"] == {}


async def test_the_public_url_is_an_own_origin(redis_url: str) -> None:
    """Its name is a known host, too. On another address than loopback the Host header does not make an origin own."""
    options: Any = {"public_url": "https://registry.example/mesh", "host": "0.0.0.0"}  # noqa: S104 - nothing is bound
    async with in_process_registry(redis_url, **options) as client:
        own = {"origin": "https://registry.example", "host": "registry.example", "sec-fetch-site": "same-origin"}
        assert (await client.get("/agents", headers=own)).status_code == 200
        expect_refusal(await client.get("/agents", headers={"origin": "http://localhost"}), "/agents")


# --- CORS


async def test_an_allowed_origin_may_read_every_response(client_with_origin: httpx2.AsyncClient) -> None:
    """Only this origin, by name and without credentials; errors too."""
    headers = {"origin": TOOLS, "sec-fetch-site": "cross-site"}
    calls = [
        await client_with_origin.post("/agents", json=a_registration(), headers=headers),
        await client_with_origin.get("/agents", headers=headers),
        await client_with_origin.get("/agents/nobody", headers=headers),
        await client_with_origin.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers=headers),
    ]

    assert [response.status_code for response in calls] == [200, 200, 404, 200]
    for response in calls:
        assert response.headers["access-control-allow-origin"] == TOOLS
        assert "access-control-allow-credentials" not in response.headers
        assert "etag" in response.headers["access-control-expose-headers"]
    expect_refusal(await client_with_origin.get("/agents", headers={"origin": EVIL}), "/agents")


async def test_the_preflight_of_an_allowed_origin_is_answered(redis_url: str) -> None:
    """For every path and without the token, which a preflight cannot carry."""
    async with in_process_registry(redis_url, origins=(TOOLS,), auth_token=Secret(TOKEN)) as client:
        asked = {"access-control-request-method": "DELETE", "access-control-request-headers": "authorization,if-match"}
        response = await client.options("/agents/a", headers={"origin": TOOLS, **asked})

        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["access-control-allow-origin"] == TOOLS
        assert response.headers["access-control-allow-methods"] == "GET, HEAD, POST, DELETE"
        assert response.headers["access-control-allow-headers"] == "authorization,if-match"
        assert response.headers["vary"] == "authorization, origin"
        expect_refusal(await client.options("/agents/a", headers={"origin": EVIL, **asked}), "/agents/a")
        expect_error(await client.get("/agents", headers={"origin": TOOLS}), 401, "unauthorized")


async def test_responses_vary_by_origin_only_where_an_origin_is_allowed(
    client: httpx2.AsyncClient, client_with_origin: httpx2.AsyncClient
) -> None:
    """A cache must not send a response for one page to another; also responses to programs vary."""
    for path, vary in (("/agents", "accept-encoding"), ("/health", None), ("/metrics", "accept")):
        assert (await client.get(path)).headers.get("vary") == vary
        with_origin = "origin" if vary is None else f"{vary}, origin"
        assert (await client_with_origin.get(path)).headers["vary"] == with_origin
        assert (await client_with_origin.get(path, headers={"origin": TOOLS})).headers["vary"] == with_origin


# --- Host

KNOWN = [
    "localhost",
    "localhost:9",
    "LOCALHOST.:80",
    "127.0.0.1",
    "127.8.8.8:1",
    "[::1]",
    "[::1]:8000",
    "registry.test",
]
UNKNOWN = ["evil.example", "evil.example:8000", "10.0.0.1", "[fe80::1]", "localhost.evil.example", "x.localhost", ""]
UNKNOWN += ["localhost:x", "[::1", "127.0.0.1.evil.example", "0x7f.1", "2130706433", "mesh.svc", "evilmesh.svc"]
HOSTNAMES = ("registry.test", "*.mesh.svc", "10.1.1.1", "[fd00::1]")
CONFIGURED = ["a.mesh.svc", "a.b.MESH.svc:8080", "10.1.1.1:80", "[fd00::1]:80"]


@pytest.mark.parametrize("host", KNOWN + CONFIGURED)
async def test_a_known_host_passes(redis_url: str, host: str) -> None:
    """With any port: loopback, the configured names, and names below a configured suffix."""
    async with in_process_registry(redis_url, hostnames=HOSTNAMES) as client:
        assert (await client.get("/agents", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", UNKNOWN)
async def test_dns_rebinding_reads_and_changes_nothing(redis_url: str, host: str) -> None:
    """A page on a rebound name sends neither Origin nor Sec-Fetch-Site with a GET over plain HTTP."""
    async with in_process_registry(redis_url, hostnames=HOSTNAMES) as client:
        for headers in ({}, {"authorization": "Bearer of-the-page"}, {"origin": f"http://{host}"}):
            for method, path in (("GET", "/agents"), ("POST", "/agents"), ("GET", "/"), ("POST", "/mcp")):
                response = await client.request(method, path, json=a_registration(), headers={"host": host, **headers})
                assert "REGISTRY_HOSTNAMES" in expect_error(response, 421, "unknown_host")["message"]
        assert await list_agent_ids(client) == []


async def test_a_health_check_passes_under_any_host(client: httpx2.AsyncClient) -> None:
    """Only of the registry: the health of an agent is data."""
    for prefix in ("", "/api/v1"):
        for path in ("/health", "/ready"):
            assert (await client.get(prefix + path, headers={"host": "balancer.example"})).status_code == 200
        response = await client.get(f"{prefix}/health/a", headers={"host": "balancer.example"})
        expect_error(response, 421, "unknown_host")


@pytest.mark.parametrize("path", ["/health", "/health/", "/api/v1/health"])
async def test_dns_rebinding_reads_no_details_of_the_health(client: httpx2.AsyncClient, path: str) -> None:
    """Also as a page of its own origin; under a known name a program of this machine reads them."""
    evil = {"host": "evil.example:8000"}
    for headers in (evil, evil | {"origin": "http://evil.example:8000", "sec-fetch-site": "same-origin"}):
        assert (await client.get(path, headers=headers)).json() == {"status": "healthy", "ready": True}
    assert "instance" in (await client.get(path)).json()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - nothing is bound
async def test_every_address_is_known_where_the_registry_listens_on_all(redis_url: str, host: str) -> None:
    """Rebinding requires a name."""
    async with in_process_registry(redis_url, host=host) as client:
        for known in ("10.0.0.1", "10.0.0.1:8000", "[fe80::1]:1", "localhost"):
            assert (await client.get("/agents", headers={"host": known})).status_code == 200
        for unknown in ("evil.example", "0x7f.1", "10.0.0.1.evil.example"):
            expect_error(await client.get("/agents", headers={"host": unknown}), 421, "unknown_host")


async def test_the_address_it_listens_on_is_known(redis_url: str) -> None:
    """An address, or a name."""
    for host in ("10.0.0.7", "registry.example"):
        async with in_process_registry(redis_url, host=host) as client:
            assert (await client.get("/agents", headers={"host": f"{host}:8000"})).status_code == 200
            expect_error(await client.get("/agents", headers={"host": "10.0.0.8"}), 421, "unknown_host")


async def test_with_an_accepted_token_any_host_passes_unless_names_are_configured(redis_url: str) -> None:
    """Without the token it is 401 under every name."""
    evil = {"host": "evil.example"}
    async with in_process_registry(redis_url, auth_token=Secret(TOKEN)) as client:
        assert (await client.get("/agents", headers=evil | AUTHORIZED)).status_code == 200
        expect_error(await client.get("/agents", headers=evil), 401, "unauthorized")
    async with in_process_registry(redis_url, auth_token=Secret(TOKEN), hostnames=("registry.test",)) as client:
        expect_error(await client.get("/agents", headers=evil | AUTHORIZED), 421, "unknown_host")
        assert (await client.get("/agents", headers={"host": "registry.test"} | AUTHORIZED)).status_code == 200


async def test_the_remembered_hosts_are_bounded(client: httpx2.AsyncClient) -> None:
    """A client that counts up its port gets its responses, and fills no memory."""
    for port in range(300):
        assert (await client.get("/health", headers={"host": f"localhost:{port}"})).status_code == 200


# --- Content-Type


@pytest.mark.parametrize("path", ["/agents", "/heartbeat", "/mcp", "/proxy/a:1/mcp", "/agents/a/drain", "/nothing"])
async def test_a_body_without_content_type_is_415(client: httpx2.AsyncClient, path: str) -> None:
    """A page can send a Blob without a type; it needs no preflight for it."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"{}"

    for body in (b"{}", chunks()):
        response = await client.post(path, content=body)
        assert "Content-Type" in expect_error(response, 415, "unsupported_media_type")["message"]


async def test_a_post_without_a_body_requires_no_content_type(client: httpx2.AsyncClient) -> None:
    """As meshctl sends it."""
    await register(client)
    assert (await client.post("/agents/a/drain")).status_code == 200
    assert (await client.post("/admin/drain")).status_code == 200
    assert (await client.post("/admin/drain", headers={"content-length": "0"})).status_code == 200


async def test_an_exempt_path_takes_json_without_content_type_from_programs(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a browser it does not: each of these headers is the mark of one."""
    monkeypatch.setattr(
        "registry.api.request_checks.EXEMPT_PATHS", {Rule.HOST: frozenset(), Rule.CONTENT_TYPE: frozenset({"/agents"})}
    )
    body = b'{"id":"a","endpoint":"http://a:1"}'
    expect_success(await client.post("/agents", content=body))
    for headers in ({"referer": "http://localhost/"}, {"sec-fetch-mode": "cors"}, {"origin": "http://localhost"}):
        expect_error(await client.post("/agents", content=body, headers=headers), 415, "unsupported_media_type")


# --- Headers of every response


async def test_every_response_has_the_security_headers(redis_url: str) -> None:
    """Success and error, with and without a body, refused before routing or not."""
    async with in_process_registry(redis_url, auth_token=Secret(TOKEN)) as client:
        responses = [
            await client.get("/"),
            await client.get("/agents"),
            await client.get("/agents", headers=AUTHORIZED),
            await client.post("/agents", content=b"{", headers=JSON_HEADERS | AUTHORIZED),
            await client.put("/agents", headers=AUTHORIZED),
            await client.get("/agents", headers={"origin": EVIL}),
            await client.head("/ready"),
            await client.get("/metrics", headers=AUTHORIZED),
        ]
    assert [response.status_code for response in responses] == [200, 401, 200, 400, 405, 403, 200, 200]
    for response in responses:
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert response.headers["referrer-policy"] == "no-referrer"
