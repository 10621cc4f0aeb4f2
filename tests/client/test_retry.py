"""Calls are retried until they succeed, but an unsafe call is never sent twice."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import pytest
from mcp_mesh_client import (
    ClientClosed,
    InvalidResponse,
    RegistryClient,
    RegistryTimeout,
    RegistryUnavailable,
)
from mcp_mesh_client.retry import Backoff

from registry.config.value_types import Secret
from tests.client.client_setup import (
    REGISTRATION,
    agent_ids,
    client_state,
    expect_error,
    expect_success,
    http_url,
    prefer_replica,
)
from tests.support.canned_server import CannedServer, http_response, json_response
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.served_registry import served_registry

NOT_READY = {"status": "error", "error": "not_ready", "message": "still filling", "details": []}
AWAY = NOT_READY | {"error": "store_unavailable", "reason": "timeout"}
RECORDED = json_response(status="success", timestamp="now", message="Heartbeat recorded")


async def test_a_call_fails_over_to_the_next_replica_and_stays_there(redis_url: str) -> None:
    """The caller sees no error, and the next call starts with the working replica."""
    closed_url = f"http://127.0.0.1:{free_port()}"
    async with served_registry(redis_url) as served, RegistryClient([closed_url, served.url]) as client:
        await prefer_replica(client, closed_url)

        expect_success(await client.register_agent(REGISTRATION))

        assert (await client._session._endpoints.order())[0].url == served.url
        assert client_state(client) == "online"


async def test_a_replica_that_does_not_respond_is_given_up_after_attempt_timeout() -> None:
    """A safe call is retried on the next replica, which is then the preferred one."""
    async with (
        CannedServer() as hanging,
        CannedServer(RECORDED) as other,
        RegistryClient(f"{hanging.url},{other.url}", attempt_timeout=0.2) as client,
    ):
        await prefer_replica(client, hanging.url)

        expect_success(await client.heartbeat("a"))
        expect_success(await client.heartbeat("a"))

    assert (len(hanging.requests), len(other.requests)) == (1, 2)


async def test_a_call_ends_at_its_timeout_with_an_unknown_outcome() -> None:
    """The error is a TimeoutError, although the server accepts connections."""
    async with CannedServer() as hanging, RegistryClient(hanging.url, timeout=0.5, attempt_timeout=0.2) as client:
        with pytest.raises(TimeoutError) as error:
            await client.heartbeat("a")

        assert client_state(client) == "offline"
    assert isinstance(error.value, RegistryTimeout)
    assert error.value.outcome == "unknown"


async def test_a_slow_response_is_bounded_by_the_timeout() -> None:
    """Single bytes that keep coming do not extend a call."""
    async with CannedServer(RECORDED) as server, FaultyTcpProxy(server.url) as proxy:
        proxy.delay_s = 5
        async with RegistryClient(http_url(proxy), timeout=0.3) as client:
            with pytest.raises(TimeoutError):
                await client.heartbeat("a")


Write = Callable[[RegistryClient], Awaitable[object]]
UNSAFE: dict[str, Write] = {
    "unregister": lambda client: client.unregister_agent("a"),
    "conditional": lambda client: client.register_agent(REGISTRATION | {"resource_version": "0"}),
    "one conditional of many": lambda client: client.register_many(
        [REGISTRATION, REGISTRATION | {"id": "b", "resource_version": "0"}]
    ),
}
SAFE: dict[str, Write] = {
    "heartbeat": lambda client: client.heartbeat("a"),
    "heartbeats": lambda client: client.heartbeats(["a"]),
    "unconditional": lambda client: client.register_agent(REGISTRATION),
    "unconditional many": lambda client: client.register_many([REGISTRATION]),
    "read": lambda client: client.agents(),
    "tool": lambda client: client.get_agent_status("a"),
}


@pytest.mark.parametrize("call", UNSAFE.values(), ids=UNSAFE)
async def test_an_unsafe_call_is_not_retried_after_a_lost_response(call: Write) -> None:
    """The error reports that the outcome is unknown."""
    async with (
        CannedServer(RECORDED) as server,
        FaultyTcpProxy(server.url) as proxy,
        CannedServer(RECORDED) as other,
        RegistryClient([http_url(proxy), other.url]) as client,
    ):
        await prefer_replica(client, http_url(proxy))
        proxy.cut_replies = 1
        with pytest.raises(RegistryUnavailable) as lost:
            await call(client)

        assert lost.value.outcome == "unknown"
        assert (len(server.requests), len(other.requests)) == (1, 0)


@pytest.mark.parametrize("call", SAFE.values(), ids=SAFE)
async def test_a_safe_call_is_retried_after_a_lost_response(call: Write) -> None:
    """The caller sees no error."""
    async with (
        CannedServer(RECORDED) as server,
        FaultyTcpProxy(server.url) as proxy,
        CannedServer(RECORDED) as other,
        RegistryClient([http_url(proxy), other.url]) as client,
    ):
        await prefer_replica(client, http_url(proxy))
        proxy.cut_replies = 1
        await call(client)

        assert (len(server.requests), len(other.requests)) == (1, 1)


@pytest.mark.parametrize("call", UNSAFE.values(), ids=UNSAFE)
async def test_an_unsafe_call_that_was_not_sent_is_retried(call: Write) -> None:
    """The connection was refused, or the replica reported `not_sent`."""
    closed_url = f"http://127.0.0.1:{free_port()}"
    async with (
        CannedServer(http_response(503, AWAY | {"outcome": "not_sent"})) as unavailable,
        CannedServer(RECORDED) as other,
        RegistryClient([closed_url, unavailable.url, other.url]) as client,
    ):
        await prefer_replica(client, unavailable.url)
        await prefer_replica(client, closed_url)
        await call(client)

        assert len(other.requests) == 1


@pytest.mark.parametrize("call", UNSAFE.values(), ids=UNSAFE)
async def test_an_unsafe_call_with_an_unknown_outcome_is_not_retried(call: Write) -> None:
    """A 503 with `outcome` unknown, or an error page of a load balancer."""
    for response in (
        http_response(503, AWAY | {"outcome": "unknown"}),
        http_response(502, b"<html>"),
        http_response(504, b"<html>"),
    ):
        async with (
            CannedServer(response) as unavailable,
            CannedServer(RECORDED) as other,
            RegistryClient([unavailable.url, other.url]) as client,
        ):
            await prefer_replica(client, unavailable.url)
            with pytest.raises(ConnectionError) as failed:
                await call(client)

            assert isinstance(failed.value, RegistryUnavailable)
            assert failed.value.outcome == "unknown"
            assert not other.requests


async def test_a_503_is_retried_after_its_retry_after() -> None:
    """The pause is Retry-After plus jitter."""
    async with (
        CannedServer(http_response(503, NOT_READY, {"Retry-After": "1"}), RECORDED) as server,
        RegistryClient(server.url) as client,
    ):
        began = time.monotonic()
        expect_success(await client.heartbeat("a"))

        assert time.monotonic() - began >= 1
        assert len(server.requests) == 2


async def test_a_call_fails_at_once_if_retry_after_exceeds_its_timeout() -> None:
    """The error has the response."""
    async with (
        CannedServer(http_response(503, NOT_READY, {"Retry-After": "60"})) as server,
        RegistryClient(server.url, timeout=5) as client,
    ):
        with pytest.raises(ConnectionError, match="503: still filling") as failed:
            await client.heartbeat("a")

        assert len(server.requests) == 1
        assert isinstance(failed.value, RegistryUnavailable)
        assert failed.value.response == NOT_READY
        assert failed.value.retry_after == 60
        assert client_state(client) == "degraded"


async def test_without_a_registry_a_call_fails_and_logs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A ConnectionError, one warning for all calls, and one line when the registry is back."""
    port = free_port()
    async with RegistryClient(f"http://127.0.0.1:{port}") as client:
        assert client_state(client) == "unknown"
        with caplog.at_level(logging.INFO, "mcp_mesh_client"):
            for _ in range(3):
                with pytest.raises(ConnectionError):
                    await client.heartbeat("a")
            assert client_state(client) == "offline"
            async with CannedServer(RECORDED, port=port):
                expect_success(await client.heartbeat("a"))
            assert client_state(client) == "online"

    logged = [(record.levelname, record.message) for record in caplog.records if record.name == "mcp_mesh_client"]
    assert [level for level, _ in logged] == ["WARNING", "INFO"]
    assert f"127.0.0.1:{port}" in logged[0][1]
    assert logged[1][1] == "registry_reachable"


async def test_an_error_response_is_returned_and_not_retried() -> None:
    """This includes 4xx and an internal error of the registry."""
    body = {"status": "error", "error": "x", "message": "no", "details": []}
    for status in (400, 401, 404, 409, 422, 429, 500):
        async with CannedServer(http_response(status, body)) as server, RegistryClient(server.url) as client:
            assert dict(expect_error(await client.heartbeat("a"))) == body
            assert len(server.requests) == 1
            assert client_state(client) == "online"


@pytest.mark.parametrize(
    "response",
    [
        http_response(200, b"<html>Log in</html>"),
        http_response(200, [1]),
        http_response(404, b"nginx"),
        http_response(404, {"detail": "Not Found"}),
        http_response(301, b"", {"Location": "https://elsewhere.test/"}),
    ],
    ids=["page", "list", "text", "another service", "redirect"],
)
async def test_a_response_of_another_server_is_an_error(response: bytes) -> None:
    """It is a ConnectionError, because the URL is not a registry; redirects are not followed, to protect the token."""
    async with CannedServer(response) as server, RegistryClient(server.url, token="t") as client:  # noqa: S106
        with pytest.raises(InvalidResponse) as failed:
            await client.agent("a")

        assert isinstance(failed.value, ConnectionError)


async def test_a_response_of_another_protocol_is_an_error() -> None:
    """The HTTP library cannot parse it."""
    async with CannedServer(b"SSH-2.0-OpenSSH\r\n\r\n") as server, RegistryClient(server.url) as client:
        with pytest.raises(RegistryUnavailable):
            await client.agent("a")


async def test_closing_ends_the_calls_under_way() -> None:
    """They are not retried on connections that are never closed."""
    async with CannedServer() as hanging:
        client = RegistryClient(hanging.url)
        call = asyncio.create_task(client.heartbeat("a"))
        await async_wait_until(lambda: hanging.requests, description="the call is under way")
        await client.close()

        with pytest.raises(ClientClosed):
            await call


async def test_closing_at_any_moment_leaves_no_open_connection() -> None:
    """The HTTP library does not close a connection that is still being opened; the client must."""
    async with CannedServer(json_response(status="success")) as server:
        for steps in range(60):
            client = RegistryClient(server.url)
            calls = [asyncio.create_task(client.heartbeat("a")) for _ in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)
            await client.close()

            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(end, ClientClosed) or end == {"status": "success"} for end in ends)
            await async_wait_until(lambda: not server._open_writers, description="every connection is closed")


async def test_a_response_above_the_size_limit_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server cannot fill the memory of the client."""
    monkeypatch.setattr("mcp_mesh_client.transport._MAX_BODY_BYTES", 1000)
    async with CannedServer(http_response(200, {"x": "x" * 2000})) as server, RegistryClient(server.url) as client:
        with pytest.raises(InvalidResponse, match="the response exceeds"):
            await client.describe()


async def test_the_token_is_sent_with_every_call(redis_url: str) -> None:
    """It is a bearer token; a wrong or missing one gives an error response."""
    async with served_registry(redis_url, auth_token=Secret("sesame")) as served:
        for token in (None, "open"):
            async with RegistryClient(served.url, token=token) as client:
                assert expect_error(await client.agents())["error"] == "unauthorized"
                assert expect_error(await client.register_agent(REGISTRATION))["error"] == "unauthorized"
                assert (await client.ready())["status"] == "ready"
        async with RegistryClient(served.url, token="sesame") as client:  # noqa: S106
            expect_success(await client.register_agent(REGISTRATION))
            assert agent_ids(await client.agents()) == ["a"]


async def test_one_client_makes_many_calls_at_once(redis_url: str) -> None:
    """There are more calls than connections in a usual pool."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        agents = [REGISTRATION | {"id": f"a{number}"} for number in range(150)]
        responses = await asyncio.gather(*(client.register_agent(agent) for agent in agents))

        assert all(response["status"] == "success" for response in responses)
        assert len(agent_ids(await client.agents())) == 150


async def test_the_path_of_a_url_is_a_prefix_of_every_call(redis_url: str) -> None:
    """A gateway may serve the registry below a path; `/api/v1` stands for one."""
    async with served_registry(redis_url) as served, RegistryClient(f"{served.url}/api/v1/") as client:
        expect_success(await client.register_agent(REGISTRATION))
        assert agent_ids(await client.agents()) == ["a"]


def test_a_client_works_in_one_event_loop_after_another() -> None:
    """Connections of a closed loop are not reused."""

    async def call_once(client: RegistryClient, port: int) -> object:
        async with CannedServer(http_response(200, {"status": "success"}, {"Connection": "close"}), port=port):
            return await client.heartbeat("a")

    port = free_port()
    client = RegistryClient(f"http://127.0.0.1:{port}")

    for _ in range(2):
        expect_success(asyncio.run(call_once(client, port)))


async def test_a_closed_client_raises_client_closed() -> None:
    """This includes calls and watches; closing twice is allowed."""
    client = RegistryClient("http://127.0.0.1:9")
    await client.close()
    await client.close()

    with pytest.raises(ClientClosed):
        await client.agents()
    with pytest.raises(ClientClosed):
        await client.heartbeat("a")
    with pytest.raises(RuntimeError):
        client.watch()


def test_the_upper_bound_of_a_pause_doubles_up_to_a_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause is random between 0 and the bound; a success resets the bound."""
    bounds: list[tuple[float, float]] = []

    def upper_bound(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", upper_bound)
    backoff = Backoff(0.1, 300)

    for _ in range(14):
        backoff.next_pause()
    backoff.reset()
    backoff.next_pause()

    assert bounds[:4] == [(0, 0.1), (0, 0.2), (0, 0.4), (0, 0.8)]
    assert bounds[12:14] == [(0, 300), (0, 300)]
    assert bounds[14] == (0, 0.1)
