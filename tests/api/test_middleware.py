"""The steps of every request: request id, token, the `/api/v1` prefix, and errors for unknown paths."""

import re
from typing import Any

import httpx2
import pytest

from registry.config.value_types import Secret
from tests.support.http_calls import JSON_HEADERS, a_registration, error_fields, expect_error, expect_success, register
from tests.support.in_process_registry import in_process_registry

TOKEN = "a token with blanks"  # noqa: S105 - it opens nothing but these tests

# Every path with its methods; HEAD is available where GET is.
METHODS = {
    "/": {"GET", "HEAD"},
    "/agents": {"GET", "HEAD", "POST"},
    "/agents/batch": {"POST"},
    "/agents/a": {"GET", "HEAD", "DELETE"},
    "/agents/a/status": {"GET", "HEAD"},
    "/capabilities": {"GET", "HEAD"},
    "/heartbeat": {"POST"},
    "/heartbeats": {"POST"},
    "/health": {"GET", "HEAD"},
    "/health/a": {"GET", "HEAD"},
    "/ready": {"GET", "HEAD"},
    "/metrics": {"GET", "HEAD"},
    "/metrics/prometheus": {"GET", "HEAD"},
    "/openapi.json": {"GET", "HEAD"},
    "/mcp": {"POST"},
    "/mcp/tools": {"GET", "HEAD"},
    "/mcp/tools/register_agent": {"POST"},
    "/mcp/tools/unregister_agent": {"POST"},
    "/mcp/tools/discover_services": {"POST"},
    "/mcp/tools/heartbeat": {"POST"},
    "/mcp/tools/get_agent_status": {"POST"},
}
OPEN = {"/", "/health", "/ready"}
# `/agents/batch` is also the path of an agent called batch, so the methods of an agent are available there.
ONE_MEANING = {path: methods for path, methods in METHODS.items() if path != "/agents/batch"}


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
@pytest.mark.parametrize(("path", "methods"), ONE_MEANING.items(), ids=ONE_MEANING)
async def test_another_method_is_405_with_the_allowed_methods(
    client: httpx2.AsyncClient, prefix: str, path: str, methods: set[str]
) -> None:
    """Not 404, since the path exists. The Allow header has all methods."""
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} - methods:
        response = await client.request(method, prefix + path)
        message = expect_error(response, 405, "method_not_allowed")["message"]
        assert set(response.headers["allow"].split(", ")) == methods
        assert message == f"{method} is not allowed for this path; allowed: {response.headers['allow']}"


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/agents/a/b", "/agents//status", "/Agents", "/mcp/tools/fly"],
)
@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_an_unknown_path_is_not_an_unknown_agent(client: httpx2.AsyncClient, prefix: str, path: str) -> None:
    """A client that registers again after a 404 distinguishes them by the error code."""
    expect_error(await client.get(prefix + path), 404, "not_found")
    expect_error(await client.get(f"{prefix}/agents/nobody"), 404, "unknown_agent")


@pytest.mark.parametrize(
    ("path", "nearest"),
    {
        "/agent": "/agents (GET, POST)",
        "/agent/x": "/agents/{agent_id} (DELETE, GET)",
        "/Agents": "/agents (GET, POST)",
        "/v1/agents": "/agents (GET, POST)",
        "/agents/a/heartbeat": "/heartbeat (POST)",
        "/agents/a/statuss": "/agents/{agent_id}/status (GET)",
        "/agnts/a/drain": "/agents/{agent_id}/drain (POST)",
        "/capabilites": "/capabilities (GET)",
        "/docs": "/openapi.json (GET)",
        "/mcp/tools/list_agents": "/mcp/tools/discover_services (POST)",
        "/proxy": "/proxy/{target} (GET, POST)",
        "/nothing": None,
        f"/{'x' * 10_000}": None,
    }.items(),
)
async def test_a_nearly_right_path_is_404_with_the_nearest(
    client: httpx2.AsyncClient, path: str, nearest: str | None
) -> None:
    """A path like no other gets none."""
    for prefix in ("", "/api/v1"):
        message = expect_error(await client.get(prefix + path), 404, "not_found")["message"]

        hint = "" if nearest is None else f"the nearest one is {nearest}; "
        assert message == f"Path not found; {hint}GET / lists the endpoints"


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
@pytest.mark.parametrize("variant", ["{}/", "{}//"])
async def test_slashes_after_a_path_do_not_matter(client: httpx2.AsyncClient, prefix: str, variant: str) -> None:
    """Clients are often configured with a trailing slash. A redirect would lose the body of a POST."""
    await register(client)
    for path, methods in METHODS.items():
        for method in methods - {"DELETE"}:
            plain = await client.request(method, prefix + path)
            other = await client.request(method, f"http://localhost{variant.format(prefix + path)}")
            assert (other.status_code, other.headers["content-type"]) == (
                plain.status_code,
                plain.headers["content-type"],
            ), path
    expect_success(await client.delete(f"http://localhost{variant.format(f'{prefix}/agents/a')}"))


@pytest.mark.parametrize("path", ["/api/v1/api/v1/agents", "/api/v2/agents", "/api/v1agents", "/api", "/API/v1/agents"])
async def test_the_prefix_is_accepted_once(client: httpx2.AsyncClient, path: str) -> None:
    """The prefix is removed once, and only if it matches exactly."""
    expect_error(await client.get(path), 404, "not_found")


@pytest.mark.parametrize("path", [path for path, methods in METHODS.items() if "GET" in methods])
async def test_every_path_is_available_with_the_prefix(client: httpx2.AsyncClient, path: str) -> None:
    """The same response with the prefix, except for values that change with each request."""
    await register(client)

    plain, twin = await client.get(path), await client.get(f"/api/v1{path}")

    assert plain.status_code == twin.status_code == 200
    assert plain.headers["content-type"] == twin.headers["content-type"]
    if path != "/metrics/prometheus":
        assert plain.json().keys() == twin.json().keys()


async def test_writes_are_available_with_the_prefix(client: httpx2.AsyncClient) -> None:
    """Register, heartbeat, discover and unregister under /api/v1."""
    expect_success(await client.post("/api/v1/agents", json=a_registration()))
    expect_success(await client.post("/api/v1/heartbeat", json={"agent_id": "a"}))
    found = expect_success(await client.post("/api/v1/mcp/tools/discover_services", json={}))
    expect_success(await client.delete("/api/v1/agents/a"))

    assert [agent["id"] for agent in found["agents"]] == ["a"]
    assert (
        (await client.get("/api/v1")).json() == (await client.get("/api/v1/")).json() == (await client.get("/")).json()
    )


@pytest.mark.parametrize(
    "given", ["order-4711", "x" * 128, "with blanks, and: signs!", "0"], ids=["short", "long", "signs", "zero"]
)
async def test_the_request_id_of_the_caller_is_returned(client: httpx2.AsyncClient, given: str) -> None:
    """On success in the header, on errors in the body too."""
    headers = {"x-request-id": given}

    assert (await client.get("/agents", headers=headers)).headers["x-request-id"] == given
    assert expect_error(await client.get("/agents/b", headers=headers), 404, "unknown_agent")["request_id"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"\xff", "ü".encode(), b"a\tb"])
async def test_an_invalid_request_id_is_replaced(client: httpx2.AsyncClient, given: bytes) -> None:
    """An id that would damage a log line is not repeated."""
    response = await client.get("/agents/b", headers=[(b"x-request-id", given)])

    made = expect_error(response, 404, "unknown_agent")["request_id"]

    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", made)


async def test_every_request_has_its_own_id(client: httpx2.AsyncClient) -> None:
    """The registry creates one if the request has none."""
    ids = [(await client.get("/ready")).headers["x-request-id"] for _ in range(10)]

    assert len(set(ids)) == 10


CALLS: list[tuple[str, str]] = [(method, path) for path, methods in METHODS.items() for method in sorted(methods)]


@pytest.fixture
async def client_with_token(redis_url: str) -> Any:
    """Provide a client of a replica that requires a token."""
    async with in_process_registry(redis_url, auth_token=Secret(TOKEN)) as client:
        yield client


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_a_token_is_required_by_every_call_except_three(
    client_with_token: httpx2.AsyncClient, prefix: str
) -> None:
    """`/`, `/health` and `/ready` are open, also under /api/v1; no other path is, known or unknown."""
    unknown = [("GET", "/nothing"), ("GET", "/health/x"), ("GET", "/agents/"), ("PUT", "/agents"), ("GET", "/api/v1/x")]
    for method, path in [*CALLS, *unknown]:
        response = await client_with_token.request(method, prefix + path)
        if path in OPEN:
            assert response.status_code == 200, path
        else:
            assert response.status_code == 401, path


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer x"}], ids=["none", "wrong"])
async def test_t21_a_stranger_reads_no_details(
    client_with_token: httpx2.AsyncClient, prefix: str, headers: dict[str, str]
) -> None:
    """Version, instance, host name, process id, epoch, warnings and resource version need the token."""
    health, root = f"{prefix}/health", prefix or "/"
    assert (await client_with_token.get(health, headers=headers)).json() == {"status": "healthy", "ready": True}
    assert (await client_with_token.get(root, headers=headers)).json() == {"service": "mcp-mesh-registry"}

    token = {"authorization": f"Bearer {TOKEN}"}
    whole = (await client_with_token.get(health, headers=token)).json()
    assert {"version", "instance", "leader", "warnings", "resource_version"} <= whole.keys()
    assert {"version", "endpoints"} <= (await client_with_token.get(root, headers=token)).json().keys()


WRONG = {
    "none": None,
    "another": "Bearer another",
    "longer": f"Bearer {TOKEN}x",
    "shorter": f"Bearer {TOKEN[:-1]}",
    "other case": f"Bearer {TOKEN.upper()}",
    "no kind": TOKEN,
    "basic": f"Basic {TOKEN}",
    "empty": "",
    "bearer alone": "Bearer",
    "bearer nothing": "Bearer ",
    "two": f"Bearer Bearer {TOKEN}",
}


@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG)
async def test_every_wrong_token_gets_the_same_401(client_with_token: httpx2.AsyncClient, given: str | None) -> None:
    """The message describes the required header; it contains neither token and no hint how close it was."""
    headers = {} if given is None else {"authorization": given}

    response = await client_with_token.get("/agents", headers=headers)

    body = expect_error(response, 401, "unauthorized")
    assert body["message"] == "This registry requires a token; send it as Authorization: Bearer <token>"
    assert body["details"] == []
    assert response.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in response.text
    assert "another" not in response.text


async def test_a_token_that_is_not_text_is_401(client_with_token: httpx2.AsyncClient) -> None:
    """The bytes of the header are compared without decoding."""
    response = await client_with_token.get("/agents", headers=[(b"authorization", b"Bearer \xff\xfe")])

    expect_error(response, 401, "unauthorized")


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER", "Bearer "])
async def test_the_correct_token_is_accepted_by_every_call(client_with_token: httpx2.AsyncClient, kind: str) -> None:
    """The scheme is case-insensitive, as RFC 9110 requires."""
    headers = {"authorization": f"{kind} {TOKEN}"}

    for method, path in CALLS:
        assert (await client_with_token.request(method, path, headers=headers)).status_code not in (
            401,
            403,
            405,
            500,
        ), path


async def test_the_token_is_checked_before_the_body(client_with_token: httpx2.AsyncClient) -> None:
    """The token is checked before an invalid body, a wrong type and a body over the limit."""
    for path in ("/agents", "/heartbeat", "/agents/batch"):
        expect_error(await client_with_token.post(path, content=b"{", headers=JSON_HEADERS), 401, "unauthorized")
        expect_error(await client_with_token.post(path, content=b"x" * 2_000_000), 401, "unauthorized")


async def test_the_token_is_shown_nowhere(
    client_with_token: httpx2.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """In no response and not in the log."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    for path in METHODS:
        assert TOKEN not in (await client_with_token.get(path, headers=headers)).text

    assert TOKEN not in "".join(capsys.readouterr())


async def test_without_the_setting_no_token_is_required(client: httpx2.AsyncClient) -> None:
    """A token in the request is ignored."""
    assert (await client.get("/agents", headers={"authorization": "Bearer x"})).status_code == 200


async def test_a_bug_is_500_without_its_text(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The response has the request id under which the log has the traceback."""

    def raise_error(*_: object) -> None:
        raise ZeroDivisionError("secret details")

    monkeypatch.setattr("registry.api.endpoints.list_agents.parse_list_agents", raise_error)

    response = await client.get("/agents", headers={"x-request-id": "the-one"})

    body = expect_error(response, 500, "internal_error")
    assert "secret" not in response.text
    assert error_fields(body) == []
    log = "".join(capsys.readouterr())
    assert "secret details" in log
    assert "the-one" in log
