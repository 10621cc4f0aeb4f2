"""A call is carried through where it can be, and never carried out twice where it must not be."""

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

from registry.config.types import Secret
from tests.client.client_setup import (
    REGISTRATION,
    agent_ids,
    client_state,
    expect_refusal,
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
BEAT = json_response(status="success", timestamp="now", message="Heartbeat recorded")


async def test_a_replica_that_is_gone_is_not_asked_again_and_nobody_notices(redis_url: str) -> None:
    """The next one answers in its place, and stays the first."""
    gone = f"http://127.0.0.1:{free_port()}"
    async with served_registry(redis_url) as served, RegistryClient([gone, served.url]) as client:
        await prefer_replica(client, gone)

        expect_success(await client.register_agent(REGISTRATION))

        assert (await client._session._endpoints.order())[0].url == served.url
        assert client_state(client) == "online"


async def test_a_replica_that_is_silent_is_left_after_a_while() -> None:
    """What may be done twice goes to the next one; then that one is first."""
    async with (
        CannedServer() as silent,
        CannedServer(BEAT) as other,
        RegistryClient(f"{silent.url},{other.url}", attempt_timeout=0.2) as client,
    ):
        await prefer_replica(client, silent.url)

        expect_success(await client.heartbeat("a"))
        expect_success(await client.heartbeat("a"))

    assert (len(silent.requests), len(other.requests)) == (1, 2)


async def test_a_call_ends_in_time_and_says_that_it_may_have_been_carried_out() -> None:
    """With a TimeoutError, whatever is listening."""
    began = time.monotonic()
    async with CannedServer() as silent, RegistryClient(silent.url, timeout=0.5, attempt_timeout=0.2) as client:
        with pytest.raises(TimeoutError) as late:
            await client.heartbeat("a")

        assert client_state(client) == "offline"
    assert time.monotonic() - began < 4
    assert isinstance(late.value, RegistryTimeout)
    assert late.value.outcome == "unknown"


async def test_an_answer_that_drips_ends_in_time_too() -> None:
    """Bytes that keep coming do not make a call last for ever."""
    async with CannedServer(BEAT) as server, FaultyTcpProxy(server.url) as proxy:
        proxy.delay_s = 5
        async with RegistryClient(http_url(proxy), timeout=0.3) as client:
            with pytest.raises(TimeoutError):
                await client.heartbeat("a")


Write = Callable[[RegistryClient], Awaitable[object]]
ONCE: dict[str, Write] = {
    "unregister": lambda client: client.unregister_agent("a"),
    "conditional": lambda client: client.register_agent(REGISTRATION | {"resource_version": "0"}),
    "one conditional of many": lambda client: client.register_many(
        [REGISTRATION, REGISTRATION | {"id": "b", "resource_version": "0"}]
    ),
}
REPEATED: dict[str, Write] = {
    "heartbeat": lambda client: client.heartbeat("a"),
    "heartbeats": lambda client: client.heartbeats(["a"]),
    "unconditional": lambda client: client.register_agent(REGISTRATION),
    "unconditional many": lambda client: client.register_many([REGISTRATION]),
    "read": lambda client: client.agents(),
    "tool": lambda client: client.get_agent_status("a"),
}


@pytest.mark.parametrize("call", ONCE.values(), ids=ONCE)
async def test_what_must_not_be_done_twice_is_not_repeated_when_its_answer_is_lost(call: Write) -> None:
    """The caller is told that it may have happened."""
    async with (
        CannedServer(BEAT) as server,
        FaultyTcpProxy(server.url) as proxy,
        CannedServer(BEAT) as other,
        RegistryClient([http_url(proxy), other.url]) as client,
    ):
        await prefer_replica(client, http_url(proxy))
        proxy.cut_replies = 1
        with pytest.raises(RegistryUnavailable) as lost:
            await call(client)

        assert lost.value.outcome == "unknown"
        assert (len(server.requests), len(other.requests)) == (1, 0)


@pytest.mark.parametrize("call", REPEATED.values(), ids=REPEATED)
async def test_what_may_be_done_twice_is_repeated_when_its_answer_is_lost(call: Write) -> None:
    """Nobody notices."""
    async with (
        CannedServer(BEAT) as server,
        FaultyTcpProxy(server.url) as proxy,
        CannedServer(BEAT) as other,
        RegistryClient([http_url(proxy), other.url]) as client,
    ):
        await prefer_replica(client, http_url(proxy))
        proxy.cut_replies = 1
        await call(client)

        assert (len(server.requests), len(other.requests)) == (1, 1)


@pytest.mark.parametrize("call", ONCE.values(), ids=ONCE)
async def test_what_was_surely_not_done_is_sent_again(call: Write) -> None:
    """To where nobody listened, and where a replica says so, nothing was sent."""
    gone = f"http://127.0.0.1:{free_port()}"
    async with (
        CannedServer(http_response(503, AWAY | {"outcome": "not_sent"})) as away,
        CannedServer(BEAT) as other,
        RegistryClient([gone, away.url, other.url]) as client,
    ):
        await prefer_replica(client, away.url)
        await prefer_replica(client, gone)
        await call(client)

        assert len(other.requests) == 1


@pytest.mark.parametrize("call", ONCE.values(), ids=ONCE)
async def test_what_may_have_been_done_by_the_registrys_own_word_is_not_sent_again(call: Write) -> None:
    """`outcome` unknown of a 503, or a balancer that does not know what became of it."""
    for answer in (
        http_response(503, AWAY | {"outcome": "unknown"}),
        http_response(502, b"<html>"),
        http_response(504, b"<html>"),
    ):
        async with (
            CannedServer(answer) as away,
            CannedServer(BEAT) as other,
            RegistryClient([away.url, other.url]) as client,
        ):
            await prefer_replica(client, away.url)
            with pytest.raises(ConnectionError) as failed:
                await call(client)

            assert isinstance(failed.value, RegistryUnavailable)
            assert failed.value.outcome == "unknown"
            assert not other.requests


async def test_a_503_is_tried_again_after_the_time_it_asks_for() -> None:
    """Retry-After is honoured, with jitter on top."""
    async with (
        CannedServer(http_response(503, NOT_READY, {"Retry-After": "1"}), BEAT) as server,
        RegistryClient(server.url) as client,
    ):
        began = time.monotonic()
        expect_success(await client.heartbeat("a"))

        assert 1 <= time.monotonic() - began < 4
        assert len(server.requests) == 2


async def test_no_call_waits_longer_than_it_has_time() -> None:
    """Where Retry-After is beyond the deadline the failure comes at once, with the answer."""
    async with (
        CannedServer(http_response(503, NOT_READY, {"Retry-After": "60"})) as server,
        RegistryClient(server.url, timeout=5) as client,
    ):
        began = time.monotonic()
        with pytest.raises(ConnectionError, match="503: still filling") as failed:
            await client.heartbeat("a")

        assert time.monotonic() - began < 4
        assert isinstance(failed.value, RegistryUnavailable)
        assert failed.value.response == NOT_READY
        assert failed.value.retry_after == 60
        assert client_state(client) == "degraded"


async def test_without_a_registry_it_is_said_soon_and_once(caplog: pytest.LogCaptureFixture) -> None:
    """A ConnectionError within a moment; one warning, and one line when it is back."""
    port = free_port()
    async with RegistryClient(f"http://127.0.0.1:{port}") as client:
        assert client_state(client) == "unknown"
        with caplog.at_level(logging.INFO, "mcp_mesh_client"):
            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(ConnectionError):
                    await client.heartbeat("a")
                assert time.monotonic() - began < 5
            assert client_state(client) == "offline"
            async with CannedServer(BEAT, port=port):
                expect_success(await client.heartbeat("a"))
            assert client_state(client) == "online"

    told = [(record.levelname, record.message) for record in caplog.records if record.name == "mcp_mesh_client"]
    assert [level for level, _ in told] == ["WARNING", "INFO"]
    assert f"127.0.0.1:{port}" in told[0][1]
    assert told[1][1] == "registry_reachable"


async def test_a_refusal_is_an_answer_and_is_not_repeated() -> None:
    """4xx, and a bug of the registry, say what they say."""
    body = {"status": "error", "error": "x", "message": "no", "details": []}
    for status in (400, 401, 404, 409, 422, 429, 500):
        async with CannedServer(http_response(status, body)) as server, RegistryClient(server.url) as client:
            assert dict(expect_refusal(await client.heartbeat("a"))) == body
            assert len(server.requests) == 1
            assert client_state(client) == "online"


@pytest.mark.parametrize(
    "answer",
    [
        http_response(200, b"<html>Log in</html>"),
        http_response(200, [1]),
        http_response(404, b"nginx"),
        http_response(404, {"detail": "Not Found"}),
        http_response(301, b"", {"Location": "https://elsewhere.test/"}),
    ],
    ids=["page", "list", "text", "another service", "redirect"],
)
async def test_what_is_no_registry_is_found_out(answer: bytes) -> None:
    """A ConnectionError, for there is no registry at this URL; a token follows no redirect."""
    async with CannedServer(answer) as server, RegistryClient(server.url, token="t") as client:  # noqa: S106
        with pytest.raises(InvalidResponse) as failed:
            await client.agent("a")

        assert isinstance(failed.value, ConnectionError)


async def test_another_protocol_is_no_registry_either() -> None:
    """The HTTP library cannot read a word of it."""
    async with CannedServer(b"SSH-2.0-OpenSSH\r\n\r\n") as server, RegistryClient(server.url) as client:
        with pytest.raises(RegistryUnavailable):
            await client.agent("a")


async def test_closing_ends_the_calls_under_way() -> None:
    """They are not begun anew on connections that nobody would close."""
    async with CannedServer() as silent:
        client = RegistryClient(silent.url)
        call = asyncio.create_task(client.heartbeat("a"))
        await async_wait_until(lambda: silent.requests, description="the call is under way")
        await client.close()

        with pytest.raises(ClientClosed):
            await call


async def test_closing_leaves_no_connection_at_whatever_moment_it_comes() -> None:
    """One that was just being made was forgotten by the HTTP library, and closed by nobody."""
    async with CannedServer(json_response(status="success")) as server:
        for turns in range(60):
            client = RegistryClient(server.url)
            calls = [asyncio.create_task(client.heartbeat("a")) for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await client.close()

            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(end, ClientClosed) or end == {"status": "success"} for end in ends)
            await async_wait_until(lambda: not server._open_writers, description="every connection is closed")


async def test_an_answer_beyond_all_bounds_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is listening there does not fill the memory."""
    monkeypatch.setattr("mcp_mesh_client.transport._MAX_BODY_BYTES", 1000)
    async with CannedServer(http_response(200, {"x": "x" * 2000})) as server, RegistryClient(server.url) as client:
        with pytest.raises(InvalidResponse, match="the response exceeds"):
            await client.describe()


async def test_a_wrong_token_is_a_refusal_and_the_right_one_goes_along(redis_url: str) -> None:
    """As bearer, on every call."""
    async with served_registry(redis_url, auth_token=Secret("sesame")) as served:
        for token in (None, "open"):
            async with RegistryClient(served.url, token=token) as client:
                assert expect_refusal(await client.agents())["error"] == "unauthorized"
                assert expect_refusal(await client.register_agent(REGISTRATION))["error"] == "unauthorized"
                assert (await client.ready())["status"] == "ready"
        async with RegistryClient(served.url, token="sesame") as client:  # noqa: S106
            expect_success(await client.register_agent(REGISTRATION))
            assert agent_ids(await client.agents()) == ["a"]


async def test_one_client_serves_many_at_once(redis_url: str) -> None:
    """More than any pool of connections keeps."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        agents = [REGISTRATION | {"id": f"a{number}"} for number in range(150)]
        answers = await asyncio.gather(*(client.register_agent(agent) for agent in agents))

        assert all(answer["status"] == "success" for answer in answers)
        assert len(agent_ids(await client.agents())) == 150


async def test_the_path_of_a_url_stands_before_every_call(redis_url: str) -> None:
    """As behind a gateway; the registry's own twin stands for one."""
    async with served_registry(redis_url) as served, RegistryClient(f"{served.url}/api/v1/") as client:
        expect_success(await client.register_agent(REGISTRATION))
        assert agent_ids(await client.agents()) == ["a"]


def test_a_client_may_be_used_in_one_loop_after_another() -> None:
    """Connections of a loop that ended are not used again."""

    async def beat(client: RegistryClient, port: int) -> object:
        async with CannedServer(http_response(200, {"status": "success"}, {"Connection": "close"}), port=port):
            return await client.heartbeat("a")

    port = free_port()
    client = RegistryClient(f"http://127.0.0.1:{port}")

    for _ in range(2):
        expect_success(asyncio.run(beat(client, port)))


async def test_a_closed_client_says_so() -> None:
    """Every call, and a watch, too; closing twice is closing once."""
    client = RegistryClient("http://127.0.0.1:9")
    await client.close()
    await client.close()

    with pytest.raises(ClientClosed):
        await client.agents()
    with pytest.raises(ClientClosed):
        await client.heartbeat("a")
    with pytest.raises(RuntimeError):
        client.watch()


def test_the_bound_doubles_to_its_most_and_the_pause_is_anywhere_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full jitter: from 0 to the bound; a success begins anew."""
    bounds: list[tuple[float, float]] = []

    def widest(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", widest)
    backoff = Backoff(0.1, 300)

    for _ in range(14):
        backoff.next_pause()
    backoff.reset()
    backoff.next_pause()

    assert bounds[:4] == [(0, 0.1), (0, 0.2), (0, 0.4), (0, 0.8)]
    assert bounds[12:14] == [(0, 300), (0, 300)]
    assert bounds[14] == (0, 0.1)
