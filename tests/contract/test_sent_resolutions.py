"""What mesh agents were told last is what a replica would tell them that has just read the store, whatever happened."""

import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import redis

from tests.support.in_process_registry import in_process_registry
from tests.support.redis_server import RedisServer

Json = dict[str, Any]
CAPABILITIES = [f"c{number}" for number in range(8)]
TAGS = ["fast", "slow", "eu"]
AGENTS, BURSTS, CHANGES = 16, 10, 12


@dataclass
class Mesh:
    """Agents in flat form, each of which speaks to any replica, and what each was told last."""

    replicas: list[httpx2.AsyncClient]
    dice: random.Random
    agents: dict[str, Json] = field(default_factory=dict)
    told: dict[str, Json] = field(default_factory=dict)
    in_vain: int = 0

    async def change(self) -> None:
        """Let one agent join, change in place, drain or leave."""
        agent_id = f"a{self.dice.randrange(AGENTS)}"
        if agent_id not in self.agents or self.dice.random() < 0.6:
            self.agents[agent_id] = self._an_agent(agent_id)
            await self._post(agent_id)
        elif self.dice.random() < 0.5:
            verb = self.dice.choice(["drain", "undrain"])
            assert (await self._any.post(f"/agents/{agent_id}/{verb}")).status_code in (200, 404)
        else:
            del self.agents[agent_id]
            assert (await self._any.delete(f"/agents/{agent_id}")).status_code in (204, 200, 404)

    async def beat(self) -> None:
        """Let each agent give one sign of life, and ask anew where it is sent to."""
        for agent_id in list(self.agents):
            status = (await self._any.head(f"/heartbeat/{agent_id}")).status_code
            if status != 200:
                before = self.told[agent_id]
                await self._post(agent_id)
                self.in_vain += status == 202 and self.told[agent_id] == before

    async def hear(self) -> None:
        """Let every replica hear of all there was."""
        for replica in self.replicas:
            assert (await replica.get("/agents", params={"limit": "1"})).status_code == 200

    async def _post(self, agent_id: str) -> None:
        answer = (await self._any.post("/heartbeat", json=self.agents[agent_id])).json()
        if answer["status"] == "error":
            assert "required dependency cycle" in answer["message"]
            for tool in self.agents[agent_id]["tools"]:
                for need in tool["dependencies"]:
                    need["required"] = False
            answer = (await self._any.post("/heartbeat", json=self.agents[agent_id])).json()
        self.told[agent_id] = answer["dependencies_resolved"]

    @property
    def _any(self) -> httpx2.AsyncClient:
        return self.dice.choice(self.replicas)

    def _an_agent(self, agent_id: str) -> Json:
        tools = [
            {
                "function_name": f"f{number}",
                "capability": self.dice.choice(CAPABILITIES),
                "version": self.dice.choice(["1.0.0", "1.10.0", "2.0.0"]),
                "tags": self.dice.sample(TAGS, 2),
                "dependencies": [self._a_need() for _ in range(self.dice.randrange(3))],
            }
            for number in range(self.dice.randrange(4))
        ]
        namespace = self.dice.choice(["default", "default", "blue"])
        port = self.dice.randrange(1, 4)
        return {"agent_id": agent_id, "namespace": namespace, "http_host": "h", "http_port": port, "tools": tools}

    def _a_need(self) -> Json:
        need: Json = {"capability": self.dice.choice(CAPABILITIES), "required": self.dice.random() < 0.4}
        if self.dice.random() < 0.4:
            need["version"] = self.dice.choice([">=1.1", "^1.0.0", "<2.0.0"])
        if self.dice.random() < 0.4:
            need["tags"] = [self.dice.choice(["", "+", "-"]) + self.dice.choice(TAGS)]
        if self.dice.random() < 0.2:
            need["namespace"] = self.dice.choice(["*", "blue"])
        return need


@contextlib.asynccontextmanager
async def three(url: str) -> AsyncIterator[list[httpx2.AsyncClient]]:
    """Provide clients of three replicas."""
    async with in_process_registry(url) as one, in_process_registry(url) as another, in_process_registry(url) as third:
        yield [one, another, third]


@pytest.mark.parametrize("seed", range(3))
async def test_nobody_is_left_with_an_answer_that_is_not_so_any_more(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Under random changes with the store losing scripts, bell, log and everything; and nobody asks in vain.

    Only where the log went, or all, is each agent asked once whatever it would hear.
    """
    # A store that is slow, as on a busy machine, may leave an answer for the next sign of life.
    monkeypatch.setattr("registry.compat.mcpmesh.fast_heartbeat._REDIS_TIMEOUT_S", 5.0)
    with redis.Redis.from_url(own_server.url) as raw:
        harms = [
            lambda: None,
            raw.script_flush,
            lambda: raw.config_set("notify-keyspace-events", ""),
            lambda: raw.xtrim("{mesh}:log", maxlen=0),
            raw.flushall,
        ]
        async with three(own_server.url) as replicas:
            mesh = Mesh(replicas, random.Random(seed))  # noqa: S311 - chooses what to try, no secret
            for burst in range(BURSTS):
                for _ in range(CHANGES):
                    await mesh.change()
                    if mesh.dice.random() < 0.3:
                        await mesh.beat()
                harm = burst % len(harms)
                harms[harm]()
                await mesh.hear()
                await mesh.beat()
                await mesh.hear()
                vain = mesh.in_vain
                await mesh.beat()

                assert harm >= 3 or mesh.in_vain == 0
                assert mesh.in_vain == vain
                await _agrees_with_newcomer(mesh, own_server.url)
                mesh.in_vain = 0


async def _agrees_with_newcomer(mesh: Mesh, url: str) -> None:
    """Assert that a replica that has just filled its memory tells each agent what it was told."""
    async with in_process_registry(url) as newcomer:
        for agent_id, told in mesh.told.items():
            if agent_id in mesh.agents:
                answer = await newcomer.get(f"/agents/{agent_id}/dependencies")
                assert answer.json()["dependencies_resolved"] == told, agent_id
