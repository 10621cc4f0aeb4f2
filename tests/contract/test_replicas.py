"""Random operations through two replicas on one Redis, compared with the reference model after each step."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from registry.cache.view import View
from registry.config.settings import Settings
from registry.errors import StaleVersion, UnknownAgent
from registry.model.agent import decode_indexed_spec
from registry.model.change import Change
from registry.store.agents import HeartbeatMode, RegistrationWrite
from registry.store.redis.connection import endpoint_from_url
from registry.store.store import Store
from registry.store.sweeps import StaleEpochError
from tests.support.builders import a_spec
from tests.support.consistency import find_inconsistencies
from tests.support.redis_server import RedisServer
from tests.support.reference_registry import Precondition, ReferenceRegistry
from tests.support.reflectors import make_reflector
from tests.support.server_time import clear_outage

T = TypeVar("T")

REQUIRES_Z = {"capability": "z", "required": True}
IDS = st.sampled_from(["a", "b", "c"])
REPLICAS = st.sampled_from([0, 1])
SPECS = st.sampled_from(
    [
        {"capabilities": [{"name": "x"}], "labels": {"k": "1"}},
        {"capabilities": [{"name": "x"}, {"name": "y"}], "namespace": "n"},
        {"labels": {"k": "2"}},
        {"capabilities": [{"name": "x", "dependencies": [{"capability": "y", "required": True}]}]},
        {"capabilities": [{"name": name, "dependencies": []} for name in "xy"], "dependencies": [REQUIRES_Z]},
    ]
)
PRECONDITIONS: st.SearchStrategy[Precondition] = st.sampled_from(
    ["none", "none", "none", "absent", "present", "spec", "current", "older", "newer"]
)
MODES: st.SearchStrategy[HeartbeatMode] = st.sampled_from(["revive", "extend"])


class Replica:
    """The store and the reflector of one process."""

    def __init__(self, url: str) -> None:
        self.store = Store(
            endpoint_from_url(url), Settings(retention=timedelta(hours=1)), lambda _script, _seconds: None
        )
        self.reflector = make_reflector(self.store.change_log)
        self.reflector_task = asyncio.get_event_loop().create_task(self.reflector.run())

    async def close(self) -> None:
        """Stop the reflector and close the connections."""
        self.reflector_task.cancel()
        await asyncio.gather(self.reflector_task, return_exceptions=True)
        await self.store.close()


class TwoReplicas(RuleBasedStateMachine):
    """Both replicas and a newly filled third show the state of the reference model after any operations."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.redis_client = redis.Redis.from_url(self.url)
        self.redis_client.flushall()
        self.reference = ReferenceRegistry()
        self.loop = asyncio.new_event_loop()
        self.replicas = self.run(self._open(2))

    async def _open(self, count: int) -> list[Replica]:
        return [Replica(self.url) for _ in range(count)]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the event loop of the machine."""
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        """Compare a new fill and the replayed log with the reference model, then close everything."""
        try:
            self.replicas += self.run(self._open(1))
            self.compare()
            assert not find_inconsistencies(self.redis_client)
            assert self.run(self._replayed()) == {
                agent_id: (expected.spec, expected.status, expected.draining)
                for agent_id, expected in self.reference.agents.items()
            }
        finally:
            for replica in self.replicas:
                self.run(replica.close())
            self.loop.close()
            self.redis_client.close()

    @rule(at=REPLICAS, agent_id=IDS, fields=SPECS, condition=PRECONDITIONS)
    def register(self, at: int, agent_id: str, fields: dict[str, Any], condition: Precondition) -> None:
        """A registration is accepted or rejected as in the reference model, with its outcome and a higher version."""
        spec = a_spec(agent_id, **fields)
        argument = self.reference.precondition_argument(agent_id, condition)
        edges = frozenset(decode_indexed_spec(spec).required_edges)
        edges_revision = self.run(self.replicas[at].store.agents.edges_revision()) if edges else ""
        write = RegistrationWrite(
            agent_id, spec, 60_000, 120_000, argument, required_edges=edges, edges_revision=edges_revision
        )
        if not self.reference.precondition_met(agent_id, condition):
            with pytest.raises(StaleVersion):
                self.run(self.replicas[at].store.agents.register(write))
            return
        result = self.run(self.replicas[at].store.agents.register(write))
        assert result.outcome == self.reference.register(agent_id, spec, result.version)

    @rule(at=REPLICAS, agent_id=IDS, mode=MODES)
    def heartbeat(self, at: int, agent_id: str, mode: HeartbeatMode) -> None:
        """A heartbeat returns the outcome of the model; only one that changes the status raises the version."""
        before = self.version
        expected, changed = self.reference.heartbeat(agent_id, mode)
        outcome = self.run(self._heartbeat(at, agent_id, mode))
        assert outcome == expected
        assert (self.version > before) == changed
        if changed:
            self.reference.agents[agent_id].version = self.reference.last_version = self.version

    async def _heartbeat(self, at: int, agent_id: str, mode: HeartbeatMode) -> str:
        return (await self.replicas[at].store.agents.heartbeat(agent_id, mode)).outcome

    @rule(at=REPLICAS, agent_id=IDS)
    def unregister(self, at: int, agent_id: str) -> None:
        """Unregistering removes an agent once."""
        if self.reference.unregister(agent_id):
            self.reference.last_version = self.run(self.replicas[at].store.agents.unregister(agent_id))
        else:
            with pytest.raises(UnknownAgent):
                self.run(self.replicas[at].store.agents.unregister(agent_id))

    @rule(at=REPLICAS, agent_ids=st.lists(IDS, min_size=1, max_size=3), draining=st.booleans())
    def drain(self, at: int, agent_ids: list[str], *, draining: bool) -> None:
        """Each agent gets its own outcome and version; a repeated id changes the agent once."""
        drained = self.run(self.replicas[at].store.agents.drain(agent_ids, draining=draining))
        for agent_id, (found, version) in zip(agent_ids, drained, strict=True):
            assert found == self.reference.drain(agent_id, version, draining=draining)

    @rule(agent_id=IDS)
    def let_deadline_pass(self, agent_id: str) -> None:
        """Let the deadline of an agent pass."""
        self.reference.make_overdue(agent_id)
        now: Any = self.redis_client.time()
        self.redis_client.zadd("{mesh}:deadlines", {agent_id: now[0] * 1000 - 1}, xx=True)

    @precondition(lambda self: self.reference.overdue)
    @rule(at=REPLICAS)
    def sweep(self, at: int) -> None:
        """A sweep moves exactly the overdue agents to the next status."""
        sweeps = self.replicas[at].store.sweeps
        clear_outage(self.redis_client)  # a slow machine must not start a grace period
        overdue = self.run(sweeps.find_work()).ids
        assert set(overdue) == self.reference.overdue
        self.run(sweeps.sweep(overdue, 0))
        self.reference.sweep()
        self.reference.last_version = self.version
        for agent_id in overdue:
            if agent_id in self.reference.agents:
                version = self.redis_client.hget(f"{{mesh}}:agent:{agent_id}", "version")
                self.reference.agents[agent_id].version = int(version or 0)

    @rule(at=REPLICAS, agent_id=IDS)
    def sweep_under_an_old_epoch(self, at: int, agent_id: str) -> None:
        """A sweep with another epoch than that of the store changes nothing."""
        before = self.version
        with pytest.raises(StaleEpochError):
            self.run(self.replicas[at].store.sweeps.sweep([agent_id], 7))
        assert self.version == before

    @rule()
    def flush_scripts(self) -> None:
        """SCRIPT FLUSH has no visible effect."""
        self.redis_client.script_flush()

    @property
    def version(self) -> int:
        """Return the version in the store."""
        return int(self.redis_client.get("{mesh}:version") or 0)

    @invariant()
    def compare(self) -> None:
        """The next read of every replica matches the model, and its indexes are consistent."""
        expected = {
            agent_id: (expected.spec, expected.status, expected.version, expected.draining)
            for agent_id, expected in self.reference.agents.items()
        }
        for replica in self.replicas:
            view = self.run(self._fresh(replica))
            shown = {
                i: (r.agent.spec, r.agent.status, r.agent.version, r.agent.draining) for i, r in view.records.items()
            }
            assert shown == expected
            assert view.version == self.version
            assert view.draining.keys() == {i for i, expected in self.reference.agents.items() if expected.draining}
            assert sum(view.count_by_status().values()) == len(expected)

    async def _fresh(self, replica: Replica) -> View:
        return await replica.reflector.wait_fresh()

    async def _replayed(self) -> dict[str, tuple[bytes, str, bool]]:
        """Replay the whole log: its entries are connected without a gap, and their result is the stored state."""
        entries: Any = self.redis_client.xrange("{mesh}:log", count=1)
        first = int(entries[0][0].partition(b"-")[0])
        changes: list[Change] = []
        after = first
        change_log = self.replicas[0].store.change_log
        await change_log.open()
        while (read := await change_log.read_since(after)).changes:
            changes += read.changes
            after = changes[-1].version
        state: dict[str, tuple[bytes, str, bool]] = {}
        for prev, change in zip([first, *(change.version for change in changes)], changes, strict=False):
            assert change.prev == prev
            assert change.agent is not None
            agent = change.agent
            assert agent.version == change.version
            assert (change.kind == "add") == (agent.id not in state)
            if change.kind != "add":
                spec, status, draining = state[agent.id]
                assert draining == (agent.draining if change.draining_before is None else change.draining_before)
                assert spec == (change.spec_before or agent.spec)
                assert status == (change.status_before or agent.status)
            if change.kind == "remove":
                del state[agent.id]
            else:
                state[agent.id] = (agent.spec, agent.status, agent.draining)
        return state


@pytest.mark.fault(39, "Registering, unregistering and sweeping race")
def test_two_replicas_and_the_reference_never_disagree() -> None:
    """No operation in any order makes a replica differ from the reference model."""
    with RedisServer() as server:
        TwoReplicas.url = server.url
        run_state_machine_as_test(
            TwoReplicas,
            settings=settings(
                max_examples=150,
                stateful_step_count=30,
            ),
        )
