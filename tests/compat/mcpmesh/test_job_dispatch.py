"""The switch for the distribution of jobs in the whole fleet; this registry has no jobs."""

import httpx2
import redis

from tests.support.http_calls import expect_error
from tests.support.in_process_registry import in_process_registry

RUNNING, PAUSED = {"draining": False, "live_claims": 0}, {"draining": True, "live_claims": 0}


async def test_a_pause_applies_to_every_replica_and_survives_restarts(redis_url: str) -> None:
    """Upstream stores it in one process only."""
    async with (
        in_process_registry(redis_url, instance_id="one") as one,
        in_process_registry(redis_url, instance_id="two") as two,
    ):
        assert [(await each.get("/admin/drain")).json() for each in (one, two)] == [RUNNING, RUNNING]

        assert (await one.post("/admin/drain")).json() == PAUSED
        assert (await two.get("/admin/drain")).json() == PAUSED
        assert (await two.post("/admin/drain")).json() == PAUSED

    async with in_process_registry(redis_url, instance_id="three") as three:
        assert (await three.get("/admin/drain")).json() == PAUSED
        assert (await three.delete("/admin/drain")).json() == RUNNING
        assert (await three.delete("/admin/drain")).json() == RUNNING


async def test_one_mesh_does_not_pause_another(redis_url: str, redis_client: redis.Redis) -> None:
    """The state has a key of the mesh."""
    async with in_process_registry(redis_url) as client:
        await client.post("/admin/drain")

        assert redis_client.keys("*paused*") == ["{mesh}:jobs_paused"]
        await client.delete("/admin/drain")
        assert redis_client.keys("*paused*") == []


async def test_a_pause_with_too_few_acks_has_an_unknown_outcome(redis_url: str) -> None:
    """It is written, but a failover may lose it, as with any other write."""
    async with in_process_registry(redis_url, write_acks=1) as client:
        body = expect_error(await client.post("/admin/drain"), 503, "store_unavailable")

        assert (body["outcome"], body["reason"]) == ("unknown", "too_few_acks")
        assert (await client.get("/admin/drain")).json() == PAUSED


async def test_a_pause_rejects_unknown_parameters(client: httpx2.AsyncClient) -> None:
    """A parameter without an effect is an error, as in all endpoints; meshctl reads the message from `error`."""
    for response in (
        await client.post("/admin/drain", json={"namespace": "default"}),
        await client.post("/admin/drain?namespace=default"),
    ):
        assert (response.status_code, response.json().keys()) == (400, {"error", "timestamp"})
        assert "namespace" in response.json()["error"]

    assert (await client.get("/admin/drain")).json() == RUNNING


async def test_a_claim_of_jobs_returns_none(client: httpx2.AsyncClient) -> None:
    """Agents with tasks call it every few seconds; a 404 would be an error to them."""
    claim = {"capability": "report", "instance_id": "agent-1", "limit": 5}

    assert (await client.post("/jobs/claim", json=claim)).json() == {"claimed": []}
    response = await client.post("/jobs/claim", json={"instance_id": "agent-1"})
    assert (response.status_code, response.json()["error"]) == (400, "capability is required")


async def test_there_are_no_jobs(client: httpx2.AsyncClient) -> None:
    """Meshui lists them with filters, and shows "Unable to connect" for any other status than 200."""
    for query in ("", "?status=working&limit=20&cursor=x"):
        response = await client.get(f"/jobs{query}")
        assert (response.status_code, response.json()) == (200, {"jobs": [], "next_cursor": None})

    response = await client.get("/jobs/job-1")
    assert (response.status_code, response.json()["error"]) == (404, "job not found: job-1")
    assert response.json().keys() == {"error", "timestamp"}
