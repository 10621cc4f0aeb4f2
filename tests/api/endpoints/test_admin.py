"""Ending self-preservation by a call: on every replica, with the token if one is set."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import httpx2
import pytest
import redis

from registry.config.value_types import Secret
from tests.support.http_calls import a_registration, expect_error, expect_success, get_agent, send_heartbeat
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.server_time import clear_outage, make_overdue

SWEEP_INTERVAL = timedelta(milliseconds=50)
ACTIVE = "mcp_registry_self_preservation_active"
SUSPENDED = "mcp_registry_self_preservation_suspended_agents"


async def _get_self_preservation(client: httpx2.AsyncClient) -> dict[str, object]:
    state: dict[str, object] = (await client.get("/health")).json()["self_preservation"]
    return state


async def _is_active(client: httpx2.AsyncClient) -> bool:
    return bool((await _get_self_preservation(client))["active"])


async def _count_by_status(client: httpx2.AsyncClient) -> dict[str, int]:
    await client.get("/agents")
    found = (await client.get("/metrics")).json()
    return {status: found[f"{status}_agents"] for status in ("healthy", "degraded", "expired")}


async def _read_metric(client: httpx2.AsyncClient, name: str) -> float:
    text = (await client.get("/metrics/prometheus")).text
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def register_with_one_heartbeat(client: httpx2.AsyncClient, count: int, namespace: str = "default") -> list[str]:
    """Register agents, each of which sends one heartbeat; return their ids."""
    prefix = "n" if namespace == "default" else namespace
    agents = [
        a_registration(f"{prefix}{n}", namespace=namespace, timeout_threshold=300, eviction_threshold=600)
        for n in range(count)
    ]
    await asyncio.gather(*(client.post("/agents", json=agent) for agent in agents))
    await asyncio.gather(*(send_heartbeat(client, agent["id"]) for agent in agents))
    return [agent["id"] for agent in agents]


async def test_ending_inactive_self_preservation_has_no_effect(client: httpx2.AsyncClient) -> None:
    """The call succeeds, and reports that it ended nothing."""
    response = expect_success(await client.post("/admin/self-preservation/end"))

    assert (response["ended"], response["message"]) == (False, "Self-preservation is not active")
    assert await _get_self_preservation(client) == {
        "active": False,
        "mesh_wide": False,
        "since": None,
        "until": None,
        "healthy": 0,
        "overdue_at_start": 0,
        "suspended": 0,
        "activations": 0,
        "protected_namespaces": 0,
        "namespaces": [],
    }


async def test_self_preservation_is_reported_and_ended_by_a_call_to_any_replica(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """Both replicas report counts, start and end; after the call, all overdue agents are degraded."""
    clear_outage(redis_client)
    async with (
        in_process_registry(redis_url, instance_id="one", health_check_interval=SWEEP_INTERVAL) as one,
        in_process_registry(redis_url, instance_id="two", health_check_interval=SWEEP_INTERVAL) as two,
    ):
        make_overdue(redis_client, *await register_with_one_heartbeat(one, 30))
        for client in (one, two):
            await async_wait_until(partial(_is_active, client), description="self-preservation is reported")
            state = await _get_self_preservation(client)
            assert (state["healthy"], state["activations"]) == (30, 1)
            assert isinstance(state["overdue_at_start"], int)
            assert 15 < state["overdue_at_start"] <= 30
            assert isinstance(state["since"], str)
            assert isinstance(state["until"], str)
            assert state["since"] < state["until"]
            assert await _read_metric(client, ACTIVE) == 1
            assert await _read_metric(client, "mcp_registry_self_preservation_activations_total") == 1
        counts = await _count_by_status(one)
        assert counts["healthy"] >= 15
        await async_wait_until(
            lambda: _metric_equals(two, SUSPENDED, counts["healthy"]),
            description="suspended agents are counted",
        )

        response = expect_success(await two.post("/admin/self-preservation/end"))
        assert response["ended"] is True
        assert not await _is_active(two)
        await async_wait_until(lambda: _all_degraded(one, 30), description="all overdue agents are degraded")
        await async_wait_until(lambda: _metric_equals(one, ACTIVE, 0), description="the other replica reports the end")

        assert expect_success(await one.post("/admin/self-preservation/end"))["ended"] is False


async def test_self_preservation_is_reported_and_ended_by_namespace(redis_url: str, redis_client: redis.Redis) -> None:
    """The health and the metrics have both namespaces; the end of one does not change the other."""
    clear_outage(redis_client)
    async with in_process_registry(redis_url, health_check_interval=SWEEP_INTERVAL) as client:
        for namespace in ("dev", "hr"):
            make_overdue(redis_client, *await register_with_one_heartbeat(client, 20, namespace))

        async def shown() -> list[Any]:
            state: Any = await _get_self_preservation(client)
            return [each["namespace"] for each in state["namespaces"]]

        await async_wait_until(lambda: _is_in(shown, {"dev", "hr"}), description="both are reported")
        labelled = 'mcp_registry_self_preservation_suspended_by_namespace{agent_namespace="hr"}'
        assert await _read_metric(client, labelled) > 0
        assert await _read_metric(client, "mcp_registry_self_preservation_namespaces") == 2
        assert await _read_metric(client, "mcp_registry_self_preservation_mesh_wide") == 0
        overdue = (await client.get("/agents", params={"namespace": "hr", "status": "healthy"})).json()["agents"]
        assert all("overdue_since" in agent for agent in overdue)

        response = expect_success(await client.post("/admin/self-preservation/end?namespace=dev"))

        assert (response["ended"], response["message"][:30]) == (True, "Self-preservation of dev ended")
        await async_wait_until(lambda: _is_in(shown, {"hr"}), description="one is reported")
        response = expect_success(await client.post("/admin/self-preservation/end?namespace=dev"))
        assert (response["ended"], response["message"]) == (False, "Self-preservation of dev is not active")
        assert (await client.post("/admin/self-preservation/end?namespace=")).status_code == 400
        assert (await client.post("/admin/self-preservation/end?nmespace=dev")).status_code == 400


async def _is_in(shown: Callable[[], Awaitable[list[Any]]], namespaces: set[str]) -> bool:
    return {*await shown()} == namespaces


async def test_the_whole_mesh_stays_suspended_when_that_of_a_namespace_ends(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """Three namespaces of three are in self-preservation; the message says that the mesh continues."""
    clear_outage(redis_client)
    async with in_process_registry(redis_url, health_check_interval=SWEEP_INTERVAL) as client:
        for namespace in ("a", "b", "c"):
            make_overdue(redis_client, *await register_with_one_heartbeat(client, 20, namespace))

        async def is_mesh_wide() -> bool:
            return bool((await _get_self_preservation(client))["mesh_wide"])

        await async_wait_until(is_mesh_wide, description="the whole mesh is in self-preservation")
        response = expect_success(await client.post("/admin/self-preservation/end?namespace=a"))
        assert response["message"].endswith("the whole mesh is in self-preservation, which continues")
        response = expect_success(await client.post("/admin/self-preservation/end?namespace=*"))
        assert response["message"].startswith("Self-preservation of * ended")
        assert not await is_mesh_wide()


async def _metric_equals(client: httpx2.AsyncClient, name: str, value: float) -> bool:
    return await _read_metric(client, name) == value


async def _all_degraded(client: httpx2.AsyncClient, count: int) -> bool:
    return await _count_by_status(client) == {"healthy": 0, "degraded": count, "expired": 0}


async def test_self_preservation_ends_after_its_duration(redis_url: str, redis_client: redis.Redis) -> None:
    """The agents that are degraded at its end do not start it again."""
    clear_outage(redis_client)
    short = timedelta(seconds=1)
    async with in_process_registry(
        redis_url, health_check_interval=SWEEP_INTERVAL, self_preservation_duration=short
    ) as client:
        make_overdue(redis_client, *await register_with_one_heartbeat(client, 30))
        await async_wait_until(lambda: _is_active(client), description="self-preservation is reported")

        await async_wait_until(lambda: _all_degraded(client, 30), description="all overdue agents are degraded")
        await async_wait_until(lambda: _metric_equals(client, ACTIVE, 0), description="the end is reported")
        assert await _read_metric(client, "mcp_registry_self_preservation_activations_total") == 1


async def test_self_preservation_ends_with_its_cause(redis_url: str, redis_client: redis.Redis) -> None:
    """Lists show the overdue agents; when they have unregistered or returned for a window, others are degraded again.

    After the agents had unregistered, one that died later stayed healthy for the rest of ten minutes.
    """
    clear_outage(redis_client)
    fields: dict[str, Any] = {"agent_timeout": timedelta(seconds=3), "self_preservation_min_agents": 2}
    async with in_process_registry(redis_url, health_check_interval=SWEEP_INTERVAL, **fields) as client:
        make_overdue(redis_client, *await register_with_one_heartbeat(client, 4))
        await async_wait_until(lambda: _is_active(client), description="self-preservation is reported")
        await async_wait_until(lambda: _overdue_agents_are_shown(client), description="shown in lists")
        last = [agent for agent in (await client.get("/agents")).json()["agents"] if agent["status"] == "healthy"][-1]
        assert (await get_agent(client, last["id"]))["overdue_since"] == last["overdue_since"]

        await asyncio.gather(*(client.delete(f"/agents/n{n}") for n in range(4) if f"n{n}" != last["id"]))

        await async_wait_until(lambda: _metric_equals(client, ACTIVE, 0), description="it has ended")
        await async_wait_until(lambda: _all_degraded(client, 1), description="the last is degraded")
        assert "overdue_since" not in await get_agent(client, last["id"])


async def _overdue_agents_are_shown(client: httpx2.AsyncClient) -> bool:
    agents = (await client.get("/agents", params={"status": "healthy"})).json()["agents"]
    return bool(agents) and all("overdue_since" in agent for agent in agents)


async def test_a_scale_down_does_not_start_self_preservation(redis_url: str, redis_client: redis.Redis) -> None:
    """Of fifty agents, thirty unregister and eight die, which are degraded."""
    clear_outage(redis_client)
    async with in_process_registry(redis_url, health_check_interval=SWEEP_INTERVAL) as client:
        dead = await register_with_one_heartbeat(client, 8)
        agents = [a_registration(f"m{n}", timeout_threshold=600) for n in range(42)]
        await asyncio.gather(*(client.post("/agents", json=agent) for agent in agents))
        await asyncio.gather(*(send_heartbeat(client, agent["id"]) for agent in agents))
        await asyncio.gather(*(client.delete(f"/agents/m{n}") for n in range(30)))
        make_overdue(redis_client, *dead)

        await async_wait_until(
            lambda: _counts_equal(client, healthy=12, degraded=8), description="the dead agents are degraded"
        )

        assert not await _is_active(client)


async def _counts_equal(client: httpx2.AsyncClient, *, healthy: int, degraded: int) -> bool:
    return await _count_by_status(client) == {"healthy": healthy, "degraded": degraded, "expired": 0}


async def test_the_token_is_required(redis_url: str) -> None:
    """As in every call that changes state."""
    async with in_process_registry(redis_url, auth_token=Secret("s3cret")) as client:
        expect_error(await client.post("/admin/self-preservation/end"), 401, "unauthorized")
        headers = {"authorization": "Bearer s3cret"}
        assert (await client.post("/admin/self-preservation/end", headers=headers)).status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_only_a_post_ends_self_preservation(client: httpx2.AsyncClient, method: str) -> None:
    """A crawler cannot end it."""
    expect_error(await client.request(method, "/admin/self-preservation/end"), 405, "method_not_allowed")
