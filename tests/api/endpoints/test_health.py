"""Health, readiness and metrics of the registry, and the health of one agent."""

import asyncio
import contextlib
import re
from datetime import datetime, timedelta

import httpx2
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from registry import __version__
from registry.model.agent import STATUSES
from tests.support.http_calls import (
    JSON_HEADERS,
    a_registration,
    expect_error,
    expect_success,
    list_agent_ids,
    register,
    send_heartbeat,
)
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until

OFTEN = timedelta(milliseconds=50)


async def prometheus_samples(client: httpx2.AsyncClient) -> dict[str, float]:
    """Return every sample of the Prometheus text by its name with labels."""
    text = (await client.get("/metrics/prometheus")).text
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[:1] != "#"}


async def test_health_is_200_and_describes_the_registry(redis_url: str) -> None:
    """Replica, cache, change notifications, leader and warnings."""
    async with in_process_registry(redis_url, instance_id="me") as client:
        await async_wait_until(lambda: _leads(client), description="the only replica leads")
        version = await register(client)
        await list_agent_ids(client)

        response = await client.get("/health")

    health = response.json()
    assert response.status_code == 200
    assert health["status"] == "healthy"
    assert (health["service"], health["version"]) == ("mcp-mesh-registry", __version__)
    assert health["ready"] is True
    assert health["resource_version"] == version
    assert re.fullmatch(r"[0-9a-f]{16}", health["timeline"])
    assert health["change_notifications"] in ("keyspace", "disconnected")
    assert isinstance(health["uptime_seconds"], int)
    assert health["staleness_seconds"] == 0
    assert health["leader"].keys() == {"leading", "election", "instance", "host", "pid", "epoch", "since"}
    assert (health["leader"]["leading"], health["leader"]["election"], health["leader"]["instance"]) == (
        True,
        True,
        "me",
    )
    assert health["leader"]["epoch"] == _seconds(health["leader"]["since"]) * 1000
    assert isinstance(health["warnings"], list)


async def _leads(client: httpx2.AsyncClient) -> bool:
    return bool((await client.get("/health")).json()["leader"]["leading"])


async def test_one_of_two_replicas_leads_and_resigns_when_it_stops(redis_url: str) -> None:
    """Both report the leader; when it stops, the other leads at its next attempt, long before the lease ends."""
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            in_process_registry(redis_url, instance_id="first", health_check_interval=OFTEN)
        )
        await async_wait_until(lambda: _leads(first), description="the first replica leads")
        async with in_process_registry(redis_url, instance_id="second", health_check_interval=OFTEN) as second:
            await async_wait_until(
                lambda: _leader_is(second, "first"), description="the second replica reports the leader"
            )
            assert not await _leads(second)
            before = (await second.get("/health")).json()["leader"]

            await stack.aclose()
            await async_wait_until(lambda: _leads(second), description="the second replica leads")
            leader = (await second.get("/health")).json()["leader"]

    assert leader["instance"] == "second"
    assert leader["epoch"] > before["epoch"]


async def test_the_metrics_describe_the_leader_and_suspended_agents(redis_url: str) -> None:
    """Leader with epoch and start, rejected sweeps, overdue and suspended agents, grace, outage, self-preservation."""
    async with in_process_registry(redis_url, instance_id="me") as client:
        await async_wait_until(lambda: _leads(client), description="the only replica leads")
        leader = (await client.get("/health")).json()["leader"]
        found = await prometheus_samples(client)

    assert found[f'mcp_registry_leader_info{{host="{leader["host"]}",instance="me"}}'] == 1
    assert found["mcp_registry_is_leader"] == 1
    assert found["mcp_registry_leader_epoch"] == leader["epoch"]
    assert found["mcp_registry_leader_since_timestamp_seconds"] == pytest.approx(_seconds(leader["since"]))
    for zero in (
        "sweeps_rejected_total",
        "outage_end_timestamp_seconds",
        "outage_grace_granted_total",
        "overdue_agents",
        "self_preservation_active",
        "self_preservation_activations_total",
        "self_preservation_suspended_agents",
        "self_preservation_since_timestamp_seconds",
        "self_preservation_until_timestamp_seconds",
    ):
        assert found[f"mcp_registry_{zero}"] == 0


@pytest.mark.parametrize(("seconds", "cause"), [(20, None), (40, "no_probe")])
async def test_a_restart_is_an_outage_if_it_took_longer_than_a_timeout(
    redis_url: str, redis_client: redis.Redis, seconds: int, cause: str | None
) -> None:
    """The first start of a mesh is none either."""
    async with in_process_registry(redis_url) as client:
        assert (await client.get("/health")).json()["outage"]["cause"] is None
        await register(client, "short", timeout_threshold=30)
        await register(client, "long", timeout_threshold=300)
    now_s, _ = redis_client.time()
    redis_client.set("{mesh}:last_probe", (now_s - seconds) * 1000)

    async with in_process_registry(redis_url) as client:
        redis_outage = str(redis_client.get("{mesh}:outage"))
        await async_wait_until(lambda: _last_outage_is(client, cause), description="the outage is judged")

    assert int(redis_outage.split()[1]) == (now_s - seconds) * 1000


async def _last_outage_is(client: httpx2.AsyncClient, cause: str | None) -> bool:
    return bool((await client.get("/health")).json()["outage"]["cause"] == cause)


async def test_without_election_a_replica_sweeps_and_reports_it(redis_url: str) -> None:
    """It reports no leader."""
    async with in_process_registry(redis_url, leader_election=False) as client:
        leader = (await client.get("/health")).json()["leader"]
        found = await prometheus_samples(client)

    assert (leader["leading"], leader["election"], leader["instance"]) == (False, False, None)
    assert found["mcp_registry_is_leader"] == 1
    assert found["mcp_registry_leader_epoch"] == 0


async def _leader_is(client: httpx2.AsyncClient, instance: str) -> bool:
    return bool((await client.get("/health")).json()["leader"]["instance"] == instance)


async def test_ready_reports_whether_the_replica_can_serve_requests(client: httpx2.AsyncClient) -> None:
    """200 once the cache is filled and follows the change log."""
    response = await client.get("/ready")

    assert (response.status_code, response.json()) == (200, {"status": "ready"})


async def test_the_health_of_an_agent_before_its_first_heartbeat(client: httpx2.AsyncClient) -> None:
    """Pending, without times, and with a message that a heartbeat is expected."""
    await register(client, health_interval=10)
    created = (await client.get("/agents/a")).json()["created_at"]

    health = (await client.get("/health/a")).json()

    expected = health.pop("next_heartbeat_expected")
    assert health == {
        "agent_id": "a",
        "status": "pending",
        "last_heartbeat": None,
        "time_since_heartbeat": None,
        "is_expired": False,
        "timeout_threshold": 60,
        "eviction_threshold": 120,
        "message": "Registered; no heartbeat received yet",
    }
    assert _seconds(expected) == pytest.approx(_seconds(created) + 10)


async def test_the_health_of_an_agent_with_heartbeats(client: httpx2.AsyncClient) -> None:
    """Healthy, with the time since the last one and until the next; without an interval, half the timeout."""
    await register(client, timeout_threshold=30)
    at = await send_heartbeat(client)

    health = (await client.get("/health/a")).json()

    assert (health["status"], health["is_expired"]) == ("healthy", False)
    assert health["last_heartbeat"] == at
    assert health["time_since_heartbeat"] >= 0
    assert _seconds(health["next_heartbeat_expected"]) == pytest.approx(_seconds(at) + 15)
    assert (health["timeout_threshold"], health["eviction_threshold"]) == (30, 60)


async def test_the_health_of_an_expired_agent(redis_url: str) -> None:
    """Expired in status, flag and message, until it is removed."""
    async with in_process_registry(redis_url) as client:
        await register(client, timeout_threshold=0.05, eviction_threshold=0.1)
        await send_heartbeat(client)

        async def is_expired() -> bool:
            return bool((await client.get("/health/a")).json()["is_expired"])

        await async_wait_until(is_expired, description="the agent is expired")
        health = (await client.get("/health/a")).json()

    assert health["status"] == "expired"
    assert health["time_since_heartbeat"] >= 0.1
    assert "removed" in health["message"]


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


async def test_the_health_of_an_unknown_agent_is_404(client: httpx2.AsyncClient) -> None:
    """An unregistered agent has no health."""
    expect_error(await client.get("/health/nobody"), 404, "unknown_agent")


async def test_metrics_count_the_mesh(client: httpx2.AsyncClient) -> None:
    """JSON with the names of the seeds; counters cover the whole mesh and are equal on every replica."""
    await register(client, "a", capabilities=["x", "y"])
    await register(client, "b", capabilities=["x"])
    await send_heartbeat(client, "a")
    await send_heartbeat(client, "a")
    await list_agent_ids(client)

    response = await client.get("/metrics")

    found = response.json()
    assert response.headers["content-type"] == "application/json"
    assert found.pop("uptime_seconds") > 0
    del found["timestamp"]
    assert found == {
        "total_agents": 2,
        "healthy_agents": 1,
        "degraded_agents": 0,
        "expired_agents": 0,
        "pending_agents": 1,
        "draining_agents": 0,
        "total_capabilities": 3,
        "unique_capability_types": 2,
        "heartbeats_processed": 2,
        "registrations_processed": 2,
    }


ACCEPTS: list[tuple[str | None, bool]] = [
    (None, False),
    ("", False),
    ("*/*", False),
    ("application/json", False),
    ("text/html,application/xhtml+xml,*/*;q=0.8", False),
    ("text/plain", True),
    ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
    ("application/openmetrics-text;version=1.0.0,application/json;q=0.5", True),
    ("text/plain;q=0.5,application/json", False),
    ("application/json,text/plain", False),
    ("TEXT/PLAIN", True),
    ("text/plain;q=0", False),
    ("text/plain;q=x", False),
    ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", True),
]


@pytest.mark.parametrize(("accept", "text"), ACCEPTS, ids=[str(accept) for accept, _ in ACCEPTS])
async def test_metrics_are_text_if_the_client_prefers_text(
    client: httpx2.AsyncClient, accept: str | None, *, text: bool
) -> None:
    """Browsers, curl and clients get JSON, every scraper gets text."""
    request = client.build_request("GET", "/metrics")
    del request.headers["accept"]
    if accept is not None:
        request.headers["accept"] = accept

    response = await client.send(request)

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4" if text else "application/json")


async def test_prometheus_can_parse_the_text(client: httpx2.AsyncClient) -> None:
    """Each family has a help and a type, and no sample occurs twice."""
    await register(client)
    await client.get("/agents/nobody")
    text = (await client.get("/metrics/prometheus")).text

    names = [family.name for family in text_string_to_metric_families(text)]
    helped = re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE)
    typed = re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE)

    assert len(names) == len(set(names))
    assert helped == [name for name, _ in typed]
    assert text.endswith("\n")
    assert all(name.startswith("mcp_registry_") for name in helped)


async def test_the_metrics_of_the_seeds_exist_before_any_event(client: httpx2.AsyncClient) -> None:
    """Before any event every status is listed; uptime is a counter without the suffix `_total`."""
    text = (await client.get("/metrics/prometheus")).text
    found = await prometheus_samples(client)

    assert found["mcp_registry_agents_total"] == 0
    assert found["mcp_registry_capabilities_total"] == 0
    assert {f'mcp_registry_agents_by_status{{status="{status}"}}' for status in STATUSES} <= found.keys()
    assert found["mcp_registry_uptime_seconds"] > 0
    assert "mcp_registry_uptime_seconds_total" not in text
    for line in (
        "# TYPE mcp_registry_agents_total gauge",
        "# TYPE mcp_registry_agents_by_status gauge",
        "# TYPE mcp_registry_capabilities_total gauge",
        "# TYPE mcp_registry_uptime_seconds counter",
        "# TYPE mcp_registry_requests_total counter",
        "# TYPE mcp_registry_errors_total counter",
        "# TYPE mcp_registry_request_duration_seconds histogram",
        "# TYPE mcp_registry_script_duration_seconds histogram",
    ):
        assert line in text.splitlines()
    assert "equal on every replica" in text


async def test_requests_and_errors_are_counted_by_route(client: httpx2.AsyncClient) -> None:
    """By the pattern of the path, so that ids and unknown paths or methods add no series."""
    await register(client, "a")
    for agent_id in "abc":
        await client.get(f"/agents/{agent_id}")
        await client.get(f"/api/v1/agents/{agent_id}")
        await client.post("/heartbeat", json={"agent_id": agent_id})
        await client.get(f"/made/up/{agent_id}")
        await client.request(f"BREW{agent_id}", "/agents")
    await client.post("/agents", content=b"{", headers=JSON_HEADERS)

    found = await prometheus_samples(client)

    counted = {
        ("GET", "/agents/{agent_id}", "200"): 2,
        ("GET", "/agents/{agent_id}", "404"): 4,
        ("POST", "/heartbeat", "200"): 1,
        ("POST", "/heartbeat", "404"): 2,
        ("POST", "/agents", "200"): 1,
        ("POST", "/agents", "400"): 1,
        ("GET", "unknown", "404"): 3,
    }
    for (method, route, status), count in counted.items():
        labels = f'{{method="{method}",route="{route}",status="{status}"}}'
        assert found[f"mcp_registry_requests_total{labels}"] == count
    assert found['mcp_registry_errors_total{route="/agents/{agent_id}",status="404"}'] == 4
    assert not [name for name in found if "errors_total" in name and 'status="200"' in name]
    assert not [name for name in found if "BREW" in name or "/made" in name]
    assert found['mcp_registry_request_duration_seconds_count{route="/heartbeat"}'] == 3
    assert found['mcp_registry_script_duration_seconds_count{script="register"}'] == 1
    assert found['mcp_registry_script_duration_seconds_count{script="heartbeat"}'] >= 1


async def test_metrics_of_the_mesh_are_equal_on_each_replica(client: httpx2.AsyncClient, redis_url: str) -> None:
    """Gauges and JSON totals are equal; requests are counted per replica."""
    async with in_process_registry(redis_url) as other:
        await register(client, "a", capabilities=["x"])
        await send_heartbeat(client, "a")
        await asyncio.gather(list_agent_ids(client), list_agent_ids(other))

        mine, others = (await client.get("/metrics")).json(), (await other.get("/metrics")).json()
        for moving in ("uptime_seconds", "timestamp"):
            del mine[moving], others[moving]
        texts = [await prometheus_samples(each) for each in (client, other)]

    assert mine == others
    assert texts[0]["mcp_registry_agents_total"] == texts[1]["mcp_registry_agents_total"] == 1
    assert 'mcp_registry_requests_total{method="POST",route="/agents",status="200"}' not in texts[1]


async def test_each_agent_of_a_batch_call_is_counted(client: httpx2.AsyncClient) -> None:
    """Counters of processed heartbeats and registrations count agents, not requests."""
    agents = [a_registration(agent_id) for agent_id in "abc"]
    expect_success(await client.post("/agents/batch", json={"agents": agents}))
    expect_success(await client.post("/heartbeats", json={"agent_ids": ["a", "b", "nobody"]}))

    found = (await client.get("/metrics")).json()

    assert (found["registrations_processed"], found["heartbeats_processed"]) == (3, 2)
