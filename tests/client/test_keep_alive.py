"""`keep_alive` registers an agent, sends its heartbeats, and registers it again; `raise_on_error` raises rejections."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from mcp_mesh_client import InvalidData, RegistryClient, RequestRejected, SyncRegistryClient
from mcp_mesh_client.keep_alive import default_thresholds

from tests.client.client_setup import REGISTRATION
from tests.support.canned_server import CannedServer, http_response, json_response
from tests.support.polling import async_wait_until, wait_until
from tests.support.ports import free_port
from tests.support.replica import Replica
from tests.support.served_registry import served_registry

FAST = REGISTRATION | {"health_interval": 0.05}


async def test_an_agent_stays_registered_until_the_end(redis_url: str) -> None:
    """It is healthy, has the default thresholds, registers again after a loss, and is removed at the end."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        async with client.keep_alive(REGISTRATION, load=lambda: 0.5) as registered:
            assert registered.agent_id == "a"
            agent: Any = await client.agent("a")
            assert (agent["health_interval"], agent["timeout_threshold"], agent["eviction_threshold"]) == (5, 15, 30)
            await async_wait_until(
                lambda: async_status(client, "healthy"), description="its first heartbeat is recorded"
            )
        assert "error" in await client.agent("a")

        async with client.keep_alive(FAST):
            await client.unregister_agent("a")
            await async_wait_until(lambda: async_status(client, "healthy"), description="it is registered again")


async def async_status(client: RegistryClient, expected: str) -> bool:
    """Return whether the agent has this status."""
    found = await client.agent_status("a")
    return "error" not in found and found["status"] == expected


async def test_heartbeats_contain_the_load() -> None:
    """A function is called for each heartbeat."""
    loads = iter(range(100))
    recorded = json_response(status="success", agent_id="a", resource_version="1", message="")
    async with (
        CannedServer(recorded) as server,
        RegistryClient(server.url) as client,
        client.keep_alive(FAST, load=lambda: float(next(loads))),
    ):
        await async_wait_until(lambda: len(server.requests) >= 4, description="heartbeats are sent")

    assert [json.loads(body).get("load") for body in server.bodies[:4]] == [None, 0, 1, 2]
    assert server.requests[-1].startswith("DELETE /agents/a ")


async def test_a_wrong_load_is_rejected_at_once() -> None:
    """The registry would reject each heartbeat."""
    async with RegistryClient("http://127.0.0.1:9") as client:
        with pytest.raises(InvalidData, match="load: expected a number from 0"):
            client.keep_alive(FAST, load=-1)


@pytest.mark.parametrize(
    ("load", "error"),
    [
        (lambda: 1 / 0, "division by zero"),
        (lambda: -1, "load: expected a number from 0 to 1000000000, or a function that returns one, not -1"),
    ],
)
async def test_heartbeats_continue_if_the_load_cannot_be_computed(
    load: Callable[[], float], error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They contain no load, and the error is logged once."""
    recorded = json_response(status="success", agent_id="a", resource_version="1", message="")
    async with (
        CannedServer(recorded) as server,
        RegistryClient(server.url) as client,
        client.keep_alive(FAST, load=load),
    ):
        await async_wait_until(lambda: len(server.requests) >= 4, description="heartbeats are sent")

    assert [json.loads(body).get("load") for body in server.bodies[1:4]] == [None] * 3
    assert [record.message for record in caplog.records if "load_failed" in record.message] == [
        f"load_failed id=a error={error}"
    ]


async def test_a_rejected_registration_is_raised() -> None:
    """With its code and its details; invalid data is rejected without a request."""
    details = [{"field": "namespace", "problem": "must be lower case"}]
    rejection = http_response(
        422, {"status": "error", "error": "validation_failed", "message": "namespace: wrong", "details": details}
    )
    async with CannedServer(rejection) as server, RegistryClient(server.url) as client:
        with pytest.raises(RequestRejected, match="namespace: wrong") as rejected:
            async with client.keep_alive(REGISTRATION):
                pass
        assert (rejected.value.code, list(rejected.value.details)) == ("validation_failed", details)
        with pytest.raises(InvalidData):
            client.keep_alive({"id": "a"})
        with pytest.raises(InvalidData, match=r"^health_interval"):
            client.keep_alive(REGISTRATION | {"health_interval": "soon"})
    assert len(server.requests) == 1


async def test_only_the_first_registration_is_conditional() -> None:
    """A later one would fail for the agent's own changes."""
    registered = json_response(status="success", agent_id="a", resource_version="1", message="")
    unknown = http_response(404, {"status": "error", "error": "unknown_agent", "message": "who?", "details": []})
    async with (
        CannedServer(registered, unknown, registered) as server,
        RegistryClient(server.url) as client,
        client.keep_alive(FAST | {"resource_version": "0"}),
    ):
        await async_wait_until(lambda: len(server.requests) >= 3, description="it is registered again")

    assert [json.loads(body).get("resource_version") for body in server.bodies[:3]] == ["0", None, None]


def test_a_sync_client_keeps_agents_alive(redis_url: str) -> None:
    """Entering waits for a registry that starts later; closing the client removes the agent."""
    port = free_port()
    with SyncRegistryClient(f"http://127.0.0.1:{port}") as client, ThreadPoolExecutor() as pool:
        entered = pool.submit(client.keep_alive(REGISTRATION).__enter__)
        wait_until(lambda: client.state == "offline", description="no registry responds")
        replica = Replica(redis_url, REGISTRY_PORT=str(port))
        replica.start()
        assert entered.result(60).agent_id == "a"
        wait_until(
            lambda: httpx2.get(f"{replica.url}/agents/a/status").json()["status"] == "healthy",
            description="it is healthy",
        )
        client.close()
        assert httpx2.get(f"{replica.url}/agents/a").status_code == 404
        replica.kill()


async def test_entering_can_be_cancelled_while_no_registry_responds() -> None:
    """No task is left."""
    async with RegistryClient(f"http://127.0.0.1:{free_port()}", max_rounds=1) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), client.keep_alive(REGISTRATION):
                pass


def test_the_default_thresholds_follow_the_interval() -> None:
    """An eviction threshold alone also limits the timeout."""
    assert default_thresholds(None, None, None) == (5, 15, 30)
    assert default_thresholds("500ms", None, None) == (0.5, 1.5, 3)
    assert default_thresholds(5, "1m", None) == (5, 60, 120)
    assert default_thresholds(5, None, 10) == (5, 5, 10)


async def test_raise_on_error_raises_each_rejection(redis_url: str) -> None:
    """Of reads, writes and texts; a batch reports the results of its parts."""
    async with served_registry(redis_url) as served, RegistryClient(served.url, raise_on_error=True) as client:
        with pytest.raises(RequestRejected) as unknown:
            await client.agent("nobody")
        assert unknown.value.code == "unknown_agent"
        with pytest.raises(RequestRejected) as invalid:
            await client.register_with_fallback(REGISTRATION | {"namespace": "My Team"})
        assert [detail["field"] for detail in invalid.value.details] == ["namespace"]
        with pytest.raises(RequestRejected, match="known"):
            await client.agents(capabillity="x")  # type: ignore[call-arg]
        with pytest.raises(RequestRejected):
            await client.select_agent("nothing")
        results: Any = await client.register_many([REGISTRATION, REGISTRATION | {"id": "b", "namespace": "B"}])
        assert [each["status"] for each in results["results"]] == ["success", "error"]
