"""What every request passes: its id, the token, the /api/v1 twin, and answers for what is not there."""

import re
from typing import Any

import httpx2
import pytest

from registry.config.types import Secret
from tests.support.http_calls import JSON_HEADERS, a_registration, error_fields, expect_error, expect_success, register
from tests.support.in_process_registry import in_process_registry

TOKEN = "a token with blanks"  # noqa: S105 - it opens nothing but these tests

# Every path and the methods it takes; HEAD wherever there is GET.
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
# `/agents/batch` may be an agent's own path too, so more methods than its own find something there.
ONE_MEANING = {path: methods for path, methods in METHODS.items() if path != "/agents/batch"}


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
@pytest.mark.parametrize(("path", "methods"), ONE_MEANING.items(), ids=ONE_MEANING)
async def test_another_method_is_405_and_told_which_there_are(
    client: httpx2.AsyncClient, prefix: str, path: str, methods: set[str]
) -> None:
    """Never 404: the path is there. The Allow header has them all."""
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} - methods:
        answer = await client.request(method, prefix + path)
        expect_error(answer, 405, "method_not_allowed")
        assert set(answer.headers["allow"].split(", ")) == methods


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/agents/", "/agents/a/b", "/agents/a/status/", "/Agents", "/mcp/tools/", "/mcp/tools/fly"],
)
@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_a_path_that_is_not_there_is_not_an_unknown_agent(
    client: httpx2.AsyncClient, prefix: str, path: str
) -> None:
    """A client that registers anew at each 404 can tell them apart by the code."""
    expect_error(await client.get(prefix + path), 404, "not_found")
    expect_error(await client.get(f"{prefix}/agents/nobody"), 404, "unknown_agent")


@pytest.mark.parametrize("path", ["/api/v1/api/v1/agents", "/api/v2/agents", "/api/v1agents", "/api", "/API/v1/agents"])
async def test_there_is_one_twin(client: httpx2.AsyncClient, path: str) -> None:
    """/api/v1 before a path means the path, once and exactly."""
    expect_error(await client.get(path), 404, "not_found")


@pytest.mark.parametrize("path", [path for path, methods in METHODS.items() if "GET" in methods])
async def test_every_path_has_its_twin(client: httpx2.AsyncClient, path: str) -> None:
    """The same answer under /api/v1, but for what moves from one request to the next."""
    await register(client)

    plain, twin = await client.get(path), await client.get(f"/api/v1{path}")

    assert plain.status_code == twin.status_code == 200
    assert plain.headers["content-type"] == twin.headers["content-type"]
    if path != "/metrics/prometheus":
        assert plain.json().keys() == twin.json().keys()


async def test_the_twin_takes_writes(client: httpx2.AsyncClient) -> None:
    """Register, beat, discover and unregister under /api/v1."""
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
async def test_a_request_id_that_is_given_is_given_back(client: httpx2.AsyncClient, given: str) -> None:
    """On success as a header, on errors in the body too."""
    headers = {"x-request-id": given}

    assert (await client.get("/agents", headers=headers)).headers["x-request-id"] == given
    assert expect_error(await client.get("/agents/b", headers=headers), 404, "unknown_agent")["request_id"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"\xff", "ü".encode(), b"a\tb"])
async def test_a_request_id_that_cannot_be_kept_is_replaced(client: httpx2.AsyncClient, given: bytes) -> None:
    """What would spoil a log line is not repeated."""
    answer = await client.get("/agents/b", headers=[(b"x-request-id", given)])

    made = expect_error(answer, 404, "unknown_agent")["request_id"]

    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", made)


async def test_every_request_has_an_id_of_its_own(client: httpx2.AsyncClient) -> None:
    """Made here when none is given."""
    ids = [(await client.get("/ready")).headers["x-request-id"] for _ in range(10)]

    assert len(set(ids)) == 10


CALLS: list[tuple[str, str]] = [(method, path) for path, methods in METHODS.items() for method in sorted(methods)]


@pytest.fixture
async def guarded(redis_url: str) -> Any:
    """Provide a client of a replica that wants a token."""
    async with in_process_registry(redis_url, auth_token=Secret(TOKEN)) as client:
        yield client


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_a_token_guards_every_call_but_three(guarded: httpx2.AsyncClient, prefix: str) -> None:
    """`/`, `/health` and `/ready` are open with their twins; nothing else is, known or not."""
    unknown = [("GET", "/nothing"), ("GET", "/health/"), ("GET", "/ready/"), ("PUT", "/agents"), ("GET", "/api/v1/x")]
    for method, path in [*CALLS, *unknown]:
        answer = await guarded.request(method, prefix + path)
        if path in OPEN:
            assert answer.status_code == 200, path
        else:
            assert answer.status_code == 401, path


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
async def test_a_wrong_token_is_401_in_the_same_words(guarded: httpx2.AsyncClient, given: str | None) -> None:
    """The answer says what to send and never how near it was; neither token is in it."""
    headers = {} if given is None else {"authorization": given}

    answer = await guarded.get("/agents", headers=headers)

    body = expect_error(answer, 401, "unauthorized")
    assert body["message"] == "This registry requires a token; send it as Authorization: Bearer <token>"
    assert body["details"] == []
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text
    assert "another" not in answer.text


async def test_bytes_that_are_no_text_are_401(guarded: httpx2.AsyncClient) -> None:
    """A header of any bytes is compared, not decoded."""
    answer = await guarded.get("/agents", headers=[(b"authorization", b"Bearer \xff\xfe")])

    expect_error(answer, 401, "unauthorized")


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER", "Bearer "])
async def test_the_right_token_opens_every_call(guarded: httpx2.AsyncClient, kind: str) -> None:
    """The kind is read in any case, as RFC 9110 has it."""
    headers = {"authorization": f"{kind} {TOKEN}"}

    for method, path in CALLS:
        assert (await guarded.request(method, path, headers=headers)).status_code not in (401, 403, 405, 500), path


async def test_who_has_no_token_learns_nothing_of_the_body(guarded: httpx2.AsyncClient) -> None:
    """The token comes before everything: a bad body, a wrong type, a body over the limit."""
    for path in ("/agents", "/heartbeat", "/agents/batch"):
        expect_error(await guarded.post(path, content=b"{", headers=JSON_HEADERS), 401, "unauthorized")
        expect_error(await guarded.post(path, content=b"x" * 2_000_000), 401, "unauthorized")


async def test_the_token_is_shown_nowhere(guarded: httpx2.AsyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Not in any answer, not in the log."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    for path in METHODS:
        assert TOKEN not in (await guarded.get(path, headers=headers)).text

    assert TOKEN not in "".join(capsys.readouterr())


async def test_without_a_token_nothing_is_asked(client: httpx2.AsyncClient) -> None:
    """A token that is sent all the same is left alone."""
    assert (await client.get("/agents", headers={"authorization": "Bearer x"})).status_code == 200


async def test_a_bug_is_500_without_its_text(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answer has the request id under which the log holds the trace."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret details")

    monkeypatch.setattr("registry.api.endpoints.list_agents.parse_list_agents", broken)

    answer = await client.get("/agents", headers={"x-request-id": "the-one"})

    body = expect_error(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert error_fields(body) == []
    log = "".join(capsys.readouterr())
    assert "secret details" in log
    assert "the-one" in log
