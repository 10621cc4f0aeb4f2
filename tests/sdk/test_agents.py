"""Two agents of the published SDK on three replicas: calls between them work again after every failure."""

import asyncio
import signal
from pathlib import Path

import httpx2

from tests.sdk.conftest import StartAgent
from tests.support.agent_process import AgentProcess, call_tool, wait_until_registered
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.load_balancers import round_robin_balancer
from tests.support.polling import async_wait_until, wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

WITH_DATE = "hello ann on monday"
WITHOUT = "hello ann"

OUR_PROVIDER = """
from mcp_mesh_client import mesh_agent, serve

@mesh_agent(capability="date_service", version="1.2.0", tags=["system", "utc"])
def get_date() -> str:
    return "monday"

serve()
"""

OUR_CONSUMER = """
from mcp_mesh_client import mesh_agent, serve

@mesh_agent(capability="report", dependencies=[{"capability": "date_service", "tags": ["system"]}])
def report(date_service=None) -> str:
    return f"it is {date_service()}" if date_service else "nobody is_resolved"

serve()
"""


def statuses(replica: Replica) -> dict[str, str]:
    """Return the status of each agent that a replica lists, by name."""
    agents = httpx2.get(f"{replica.url}/agents", timeout=REQUEST_TIMEOUT_S).json()["agents"]
    return {agent["name"]: agent["status"] for agent in agents}


async def test_two_agents_find_each_other_through_a_balancer(
    three_replicas: list[Replica], start_agent: StartAgent, tmp_path: Path
) -> None:
    """The consumer starts first; the HEAD heartbeat reports the new provider, on whichever replica it arrives."""
    async with round_robin_balancer([replica.url for replica in three_replicas], tmp_path) as url:
        consumer = start_agent("consumer", url)
        await asyncio.to_thread(consumer.wait_for_result, WITHOUT, name="ann")
        start_agent("provider", url)
        await asyncio.to_thread(consumer.wait_for_result, WITH_DATE, name="ann")
        await asyncio.to_thread(consumer.wait_for_result, "on monday", "greet_strictly")

    assert all(
        statuses(replica) == {"sdk-consumer": "healthy", "sdk-provider": "healthy"} for replica in three_replicas
    )


async def test_a_stopped_provider_is_dropped_and_a_new_one_is_used(
    three_replicas: list[Replica], start_agent: StartAgent, tmp_path: Path
) -> None:
    """After SIGTERM at once, after SIGKILL at its threshold; the consumer calls a new provider without a restart."""
    async with round_robin_balancer([replica.url for replica in three_replicas], tmp_path) as url:
        consumer, provider = start_agent("consumer", url), start_agent("provider", url)
        await asyncio.to_thread(consumer.wait_for_result, WITH_DATE, name="ann")

        await asyncio.to_thread(provider.wait_for_exit, signal.SIGTERM)
        await asyncio.to_thread(consumer.wait_for_result, WITHOUT, name="ann")
        second = start_agent("provider", url, MESH_TEST_WORD="tuesday")
        await asyncio.to_thread(consumer.wait_for_result, "hello ann on tuesday", name="ann")
        second.kill()
        await asyncio.to_thread(consumer.wait_for_result, WITHOUT, name="ann")
        start_agent("provider", url)
        await asyncio.to_thread(consumer.wait_for_result, WITH_DATE, name="ann")


async def test_agents_survive_the_death_of_a_replica(
    three_replicas: list[Replica], start_agent: StartAgent, tmp_path: Path
) -> None:
    """Single heartbeats fail; resolutions still change and calls still work."""
    async with round_robin_balancer([replica.url for replica in three_replicas], tmp_path) as url:
        consumer, provider = start_agent("consumer", url), start_agent("provider", url)
        await asyncio.to_thread(consumer.wait_for_result, WITH_DATE, name="ann")

        three_replicas[0].kill()
        await asyncio.to_thread(provider.wait_for_exit, signal.SIGTERM)
        await asyncio.to_thread(consumer.wait_for_result, WITHOUT, name="ann")
        start_agent("provider", url)
        await asyncio.to_thread(consumer.wait_for_result, WITH_DATE, name="ann")


async def test_agents_survive_a_restart_of_redis(
    lasting_server: RedisServer, three_replicas: list[Replica], start_agent: StartAgent, tmp_path: Path
) -> None:
    """No dependency is lost, no agent expires, and later changes are reported."""
    async with round_robin_balancer([replica.url for replica in three_replicas], tmp_path) as url:
        consumer, provider = start_agent("consumer", url), start_agent("provider", url)
        await asyncio.to_thread(consumer.wait_for_result, WITH_DATE, name="ann")

        lasting_server.kill()
        assert consumer.call_tool("greet", name="ann") == WITH_DATE
        await asyncio.to_thread(lasting_server.restart)
        await async_wait_until(
            lambda: statuses(three_replicas[1]) == {"sdk-consumer": "healthy", "sdk-provider": "healthy"},
            description="both are still healthy",
        )
        assert consumer.call_tool("greet", name="ann") == WITH_DATE
        await asyncio.to_thread(provider.wait_for_exit, signal.SIGTERM)
        await asyncio.to_thread(consumer.wait_for_result, WITHOUT, name="ann")
        start_agent("provider", url)
        await asyncio.to_thread(consumer.wait_for_result, WITH_DATE, name="ann")


def test_agents_start_before_the_registry(lasting_server: RedisServer, start_agent: StartAgent) -> None:
    """They retry with their own backoff, and then find each other."""
    with Replica(lasting_server.url) as replica:
        replica.stop()
        consumer = start_agent("consumer", replica.url)
        start_agent("provider", replica.url)
        consumer.wait_for_result(WITHOUT, name="ann")

        replica.start()
        consumer.wait_for_result(WITH_DATE, name="ann")


def test_a_stopped_agent_is_gone_at_once(three_replicas: list[Replica], start_agent: StartAgent) -> None:
    """It is gone on every replica."""
    provider = start_agent("provider", three_replicas[0].url)
    wait_until(lambda: "sdk-provider" in statuses(three_replicas[1]), description="it is registered")

    provider.stop()

    wait_until(lambda: not statuses(three_replicas[2]), description="it is gone")


async def test_agents_of_the_sdk_and_of_our_client_call_each_other(
    three_replicas: list[Replica], start_agent: StartAgent
) -> None:
    """The SDK calls tools without a session, so the servers of our agents must not require one."""
    url = three_replicas[0].url
    with AgentProcess(OUR_PROVIDER, url, name="ours") as provider:
        consumer = start_agent("consumer", url)
        await asyncio.to_thread(consumer.wait_for_result, WITH_DATE, name="ann")
        await asyncio.to_thread(provider.wait_for_exit, signal.SIGTERM)
        await asyncio.to_thread(consumer.wait_for_result, WITHOUT, name="ann")

    start_agent("provider", url)
    with AgentProcess(OUR_CONSUMER, url, name="asker"):
        endpoint = wait_until_registered(url, "asker")["endpoint"]

        async def is_resolved() -> bool:
            return bool(await call_tool(endpoint, "report") == "it is monday")

        await async_wait_until(is_resolved, description="our consumer calls the provider of the SDK")
