"""Whether jobs are handed out, in the whole fleet; nobody gets one here."""

import httpx2
import redis

from tests.support.http_calls import expect_error
from tests.support.in_process_registry import in_process_registry

GOING, STOPPED = {"draining": False, "live_claims": 0}, {"draining": True, "live_claims": 0}


async def test_a_drain_holds_on_every_replica_and_over_restarts(redis_url: str) -> None:
    """Elsewhere it is lost with the process that was asked, and the others never knew."""
    async with (
        in_process_registry(redis_url, instance_id="one") as one,
        in_process_registry(redis_url, instance_id="two") as two,
    ):
        assert [(await each.get("/admin/drain")).json() for each in (one, two)] == [GOING, GOING]

        assert (await one.post("/admin/drain")).json() == STOPPED
        assert (await two.get("/admin/drain")).json() == STOPPED
        assert (await two.post("/admin/drain")).json() == STOPPED

    async with in_process_registry(redis_url, instance_id="three") as three:
        assert (await three.get("/admin/drain")).json() == STOPPED
        assert (await three.delete("/admin/drain")).json() == GOING
        assert (await three.delete("/admin/drain")).json() == GOING


async def test_one_mesh_does_not_stop_another(redis_url: str, raw: redis.Redis) -> None:
    """The state lies under the mesh's own name."""
    async with in_process_registry(redis_url) as client:
        await client.post("/admin/drain")

        assert raw.keys("*paused*") == ["{mesh}:jobs_paused"]
        await client.delete("/admin/drain")
        assert raw.keys("*paused*") == []


async def test_a_drain_that_too_few_redis_replicas_have_is_an_unknown_outcome(redis_url: str) -> None:
    """It is written, but a failover may lose it, as with any other write."""
    async with in_process_registry(redis_url, write_acks=1) as client:
        body = expect_error(await client.post("/admin/drain"), 503, "store_unavailable")

        assert (body["outcome"], body["reason"]) == ("unknown", "too_few_acks")
        assert (await client.get("/admin/drain")).json() == STOPPED


async def test_a_drain_takes_nothing_that_it_does_not_know(client: httpx2.AsyncClient) -> None:
    """As everywhere: what would not be honoured is refused."""
    expect_error(await client.post("/admin/drain", json={"namespace": "default"}), 400, "malformed_request")
    expect_error(await client.post("/admin/drain?namespace=default"), 400, "malformed_request")

    assert (await client.get("/admin/drain")).json() == GOING


async def test_who_looks_for_jobs_finds_none(client: httpx2.AsyncClient) -> None:
    """Agents with tasks ask every few seconds; they are not told that there is no such path."""
    claim = {"capability": "report", "instance_id": "agent-1", "limit": 5}

    assert (await client.post("/jobs/claim", json=claim)).json() == {"claimed": []}
    answer = await client.post("/jobs/claim", json={"instance_id": "agent-1"})
    assert (answer.status_code, answer.json()["error"]) == (400, "capability is required")
