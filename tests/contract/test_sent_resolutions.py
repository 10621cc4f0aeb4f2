"""The last resolution sent to each mcp-mesh agent equals that of a newly started replica, after any failures."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx2
import pytest
import redis

from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.in_process_registry import in_process_registry
from tests.support.redis_server import RedisServer

Json = dict[str, Any]
CAPABILITIES = [f"c{number}" for number in range(8)]
TAGS = ["fast", "slow", "eu"]
AGENTS, BURSTS, CHANGES = 16, 10, 12


@dataclass
class Mesh:
    """Agents in mcp-mesh format that use any replica, and the last resolution each of them received."""

    replicas: list[httpx2.AsyncClient]
    random: Random
    agents: dict[str, Json] = field(default_factory=dict)
    received: dict[str, Json] = field(default_factory=dict)
    needless_requests: int = 0

    async def change(self) -> None:
        """Let a random agent register, change, drain or deregister."""
        agent_id = f"a{self.random.randrange(AGENTS)}"
        if agent_id not in self.agents or self.random.random() < 0.6:
            self.agents[agent_id] = self._an_agent(agent_id)
            await self._post(agent_id)
        elif self.random.random() < 0.5:
            action = self.random.choice(["drain", "undrain"])
            assert (await self._any.post(f"/agents/{agent_id}/{action}")).status_code in (200, 404)
        else:
            del self.agents[agent_id]
            assert (await self._any.delete(f"/agents/{agent_id}")).status_code in (204, 200, 404)

    async def send_heartbeats(self) -> None:
        """Send one HEAD heartbeat of each agent, and register it again if the response requests that."""
        for agent_id in list(self.agents):
            status = (await self._any.head(f"/heartbeat/{agent_id}")).status_code
            if status != 200:
                before = self.received[agent_id]
                await self._post(agent_id)
                self.needless_requests += status == 202 and self.received[agent_id] == before

    async def read_all(self) -> None:
        """Read from every replica, so that each has applied all changes."""
        for replica in self.replicas:
            assert (await replica.get("/agents", params={"limit": "1"})).status_code == 200

    async def _post(self, agent_id: str) -> None:
        response = (await self._any.post("/heartbeat", json=self.agents[agent_id])).json()
        if response["status"] == "error":
            assert "required dependency cycle" in response["message"]
            for tool in self.agents[agent_id]["tools"]:
                for dependency in tool["dependencies"]:
                    dependency["required"] = False
            response = (await self._any.post("/heartbeat", json=self.agents[agent_id])).json()
        self.received[agent_id] = response["dependencies_resolved"]

    @property
    def _any(self) -> httpx2.AsyncClient:
        return self.random.choice(self.replicas)

    def _an_agent(self, agent_id: str) -> Json:
        tools = [
            {
                "function_name": f"f{number}",
                "capability": self.random.choice(CAPABILITIES),
                "version": self.random.choice(["1.0.0", "1.10.0", "2.0.0"]),
                "tags": self.random.sample(TAGS, 2),
                "dependencies": [self._a_dependency() for _ in range(self.random.randrange(3))],
            }
            for number in range(self.random.randrange(4))
        ]
        namespace = self.random.choice(["default", "default", "blue"])
        port = self.random.randrange(1, 4)
        return {"agent_id": agent_id, "namespace": namespace, "http_host": "h", "http_port": port, "tools": tools}

    def _a_dependency(self) -> Json:
        dependency: Json = {"capability": self.random.choice(CAPABILITIES), "required": self.random.random() < 0.4}
        if self.random.random() < 0.4:
            dependency["version"] = self.random.choice([">=1.1", "^1.0.0", "<2.0.0"])
        if self.random.random() < 0.4:
            dependency["tags"] = [self.random.choice(["", "+", "-"]) + self.random.choice(TAGS)]
        if self.random.random() < 0.2:
            dependency["namespace"] = self.random.choice(["*", "blue"])
        return dependency


@contextlib.asynccontextmanager
async def three_replicas(url: str) -> AsyncIterator[list[httpx2.AsyncClient]]:
    """Provide clients of three replicas."""
    async with in_process_registry(url) as one, in_process_registry(url) as another, in_process_registry(url) as third:
        yield [one, another, third]


@pytest.mark.parametrize("seed", range(3))
async def test_no_agent_has_an_outdated_resolution(
    dedicated_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Agents change at random while the store loses its scripts, notifications, log or all data.

    Only after a loss of the log or of all data is each agent asked once without a change.
    """
    # A slow store, as on a busy machine, may delay a response until the next heartbeat.
    monkeypatch.setattr("registry.compat.mcpmesh.fast_heartbeat._REDIS_TIMEOUT_S", REQUEST_TIMEOUT_S)
    with redis.Redis.from_url(dedicated_redis.url) as redis_client:
        failures = [
            lambda: None,
            redis_client.script_flush,
            lambda: redis_client.config_set("notify-keyspace-events", ""),
            lambda: redis_client.xtrim("{mesh}:log", maxlen=0),
            redis_client.flushall,
        ]
        async with three_replicas(dedicated_redis.url) as replicas:
            mesh = Mesh(replicas, Random(seed))  # noqa: S311 - chooses what to try, no secret
            for burst in range(BURSTS):
                for _ in range(CHANGES):
                    await mesh.change()
                    if mesh.random.random() < 0.3:
                        await mesh.send_heartbeats()
                failure = burst % len(failures)
                failures[failure]()
                await mesh.read_all()
                await mesh.send_heartbeats()
                await mesh.read_all()
                needless_before = mesh.needless_requests
                await mesh.send_heartbeats()

                assert failure >= 3 or mesh.needless_requests == 0
                assert mesh.needless_requests == needless_before
                await _assert_new_replica_agrees(mesh, dedicated_redis.url)
                mesh.needless_requests = 0


async def _assert_new_replica_agrees(mesh: Mesh, url: str) -> None:
    """Assert that a replica that has just filled its cache resolves the last resolution sent to each agent."""
    async with in_process_registry(url) as new_replica:
        for agent_id, received in mesh.received.items():
            if agent_id in mesh.agents:
                response = await new_replica.get(f"/agents/{agent_id}/dependencies")
                assert response.json()["dependencies_resolved"] == received, agent_id
