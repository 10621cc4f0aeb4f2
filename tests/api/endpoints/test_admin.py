"""Ending a hold: for all replicas, with the token where one is asked for, and told."""

import asyncio
from datetime import timedelta

import httpx2
import pytest
import redis

from registry.config.types import Secret
from tests.support.http_calls import a_registration, expect_error, expect_success, send_heartbeat
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.server_time import clear_outage

OFTEN = timedelta(milliseconds=50)
ACTIVE = "mcp_registry_self_preservation_active"
SUSPENDED = "mcp_registry_self_preservation_suspended_agents"


async def _hold(client: httpx2.AsyncClient) -> dict[str, object]:
    hold: dict[str, object] = (await client.get("/health")).json()["self_preservation"]
    return hold


async def _is_held(client: httpx2.AsyncClient) -> bool:
    return bool((await _hold(client))["active"])


async def _counts(client: httpx2.AsyncClient) -> dict[str, int]:
    await client.get("/agents")
    found = (await client.get("/metrics")).json()
    return {status: found[f"{status}_agents"] for status in ("healthy", "degraded", "expired")}


async def _metric(client: httpx2.AsyncClient, name: str) -> float:
    text = (await client.get("/metrics/prometheus")).text
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def _fall_silent(client: httpx2.AsyncClient, count: int) -> None:
    """Let so many agents beat once, and say that they may be silent for a moment only."""
    agents = [a_registration(f"n{n}", timeout_threshold=0.3, eviction_threshold=600) for n in range(count)]
    await asyncio.gather(*(client.post("/agents", json=agent) for agent in agents))
    await asyncio.gather(*(send_heartbeat(client, agent["id"]) for agent in agents))


async def test_without_a_hold_there_is_nothing_to_release(client: httpx2.AsyncClient) -> None:
    """That is an answer, not an error."""
    answer = expect_success(await client.post("/admin/self-preservation/end"))

    assert (answer["ended"], answer["message"]) == (False, "Self-preservation is not active")
    assert await _hold(client) == {
        "active": False,
        "since": None,
        "until": None,
        "healthy": 0,
        "overdue_at_start": 0,
        "suspended": 0,
        "activations": 0,
    }


async def test_a_hold_is_shown_and_ends_by_a_call_to_any_replica(redis_url: str, redis_client: redis.Redis) -> None:
    """Both say so with counts, since when and until when; released, all overdue agents go."""
    clear_outage(redis_client)
    async with (
        in_process_registry(redis_url, instance_id="one", health_check_interval=OFTEN) as one,
        in_process_registry(redis_url, instance_id="two", health_check_interval=OFTEN) as two,
    ):
        await _fall_silent(one, 30)
        for client in (one, two):
            await async_wait_until(lambda client=client: _is_held(client), description="the hold is shown")  # type: ignore[misc]
            hold = await _hold(client)
            assert (hold["healthy"], hold["activations"]) == (30, 1)
            assert isinstance(hold["overdue_at_start"], int)
            assert 15 < hold["overdue_at_start"] <= 30
            assert isinstance(hold["since"], str)
            assert isinstance(hold["until"], str)
            assert hold["since"] < hold["until"]
            assert await _metric(client, ACTIVE) == 1
            assert await _metric(client, "mcp_registry_self_preservation_activations_total") == 1
        counts = await _counts(one)
        assert counts["healthy"] >= 15
        await async_wait_until(
            lambda: _is(two, SUSPENDED, counts["healthy"]),
            description="those held are counted",
        )

        answer = expect_success(await two.post("/admin/self-preservation/end"))
        assert answer["ended"] is True
        assert not await _is_held(two)
        await async_wait_until(lambda: _all_went(one, 30), description="all overdue agents went")
        await async_wait_until(lambda: _is(one, ACTIVE, 0), description="the other shows the end")

        assert expect_success(await one.post("/admin/self-preservation/end"))["ended"] is False


async def _is(client: httpx2.AsyncClient, name: str, value: float) -> bool:
    return await _metric(client, name) == value


async def _all_went(client: httpx2.AsyncClient, count: int) -> bool:
    return await _counts(client) == {"healthy": 0, "degraded": count, "expired": 0}


async def test_a_hold_ends_by_time(redis_url: str, redis_client: redis.Redis) -> None:
    """By itself, after its duration; none begins anew from those who go then."""
    clear_outage(redis_client)
    short = timedelta(seconds=1)
    async with in_process_registry(redis_url, health_check_interval=OFTEN, self_preservation_duration=short) as client:
        await _fall_silent(client, 30)
        await async_wait_until(lambda: _is_held(client), description="the hold is shown")

        await async_wait_until(lambda: _all_went(client, 30), description="all overdue agents went")
        await async_wait_until(lambda: _is(client, ACTIVE, 0), description="the end is shown")
        assert await _metric(client, "mcp_registry_self_preservation_activations_total") == 1


async def test_a_real_scale_down_is_not_held(redis_url: str, redis_client: redis.Redis) -> None:
    """Of fifty thirty unregister and eight die: on time, without a hold."""
    clear_outage(redis_client)
    async with in_process_registry(redis_url, health_check_interval=OFTEN) as client:
        await _fall_silent(client, 8)
        agents = [a_registration(f"m{n}", timeout_threshold=600) for n in range(42)]
        await asyncio.gather(*(client.post("/agents", json=agent) for agent in agents))
        await asyncio.gather(*(send_heartbeat(client, agent["id"]) for agent in agents))
        await asyncio.gather(*(client.delete(f"/agents/m{n}") for n in range(30)))

        await async_wait_until(lambda: _went(client, healthy=12, degraded=8), description="the dead are degraded")

        assert not await _is_held(client)


async def _went(client: httpx2.AsyncClient, *, healthy: int, degraded: int) -> bool:
    return await _counts(client) == {"healthy": healthy, "degraded": degraded, "expired": 0}


async def test_the_token_is_asked_for(redis_url: str) -> None:
    """As by every call that changes something."""
    async with in_process_registry(redis_url, auth_token=Secret("s3cret")) as client:
        expect_error(await client.post("/admin/self-preservation/end"), 401, "unauthorized")
        headers = {"authorization": "Bearer s3cret"}
        assert (await client.post("/admin/self-preservation/end", headers=headers)).status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_only_a_post_releases(client: httpx2.AsyncClient, method: str) -> None:
    """Nothing that a crawler would do."""
    expect_error(await client.request(method, "/admin/self-preservation/end"), 405, "method_not_allowed")
