"""Restore of agents from a backup, and new timelines after changes that are not in the log."""

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from registry.model.agent import StoredAgent
from registry.store.chunks import chunks
from registry.store.codec import encode_edges
from registry.store.keys import Keys, encode
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import MAX_AGENTS_PER_CALL, load_scripts


class RestoreResult(NamedTuple):
    """Numbers of agents that were restored, and that were skipped because they exist."""

    restored: int
    skipped: int


class Restorer:
    """Restores agents and starts timelines. `log_length` is in entries, `retention` in milliseconds."""

    def __init__(
        self, keys: Keys, log_length: int, retention: int, pipeline: Pipeline, *, shebang: bool = True
    ) -> None:
        scripts = load_scripts(shebang=shebang)
        self._restore, self._new_timeline = scripts["restore"], scripts["new_timeline"]
        self._keys = keys
        self._log_length = log_length
        self._retention = retention
        self._pipeline = pipeline

    async def begin_timeline(self, min_version: int = 0) -> int:
        """Start a timeline above a version and return its first version. Caches refill, and watches list again."""
        call = self._new_timeline.call(
            self._keys.shared,
            {"new_timeline_id": secrets.token_hex(8), "log_length": self._log_length, "min_version": min_version},
        )
        _, first_version = raise_for_error((await self._pipeline.call_scripts([call]))[0])
        return int(first_version)

    async def restore(self, agents: Sequence[StoredAgent]) -> RestoreResult:
        """Add the agents that do not exist, with the status and remaining times of the backup."""
        restored = skipped = 0
        for part in chunks(agents, MAX_AGENTS_PER_CALL):
            call = self._restore.call(
                {**self._keys.shared, "agent_keys…": [self._keys.agent(stored.agent.id) for stored in part]},
                {
                    "log_length": self._log_length,
                    "agents…": [field for stored in part for field in self._restore_arguments(stored)],
                },
            )
            _, added, present = raise_for_error((await self._pipeline.call_scripts([call]))[0])
            restored, skipped = restored + int(added), skipped + int(present)
        return RestoreResult(restored, skipped)

    def _restore_arguments(self, stored: StoredAgent) -> Sequence[bytes | str | int]:
        agent = stored.agent
        degraded_ms = agent.eviction - agent.timeout
        time_left = {"expired": self._retention, "degraded": degraded_ms}.get(agent.status, agent.timeout)
        return (
            encode(agent.id),
            agent.spec,
            agent.status,
            "1" if agent.draining else "0",
            agent.created,
            agent.updated,
            agent.timeout,
            agent.eviction,
            "" if stored.heartbeat is None else stored.heartbeat,
            time_left,
            encode_edges(set(agent.indexed.required_edges)),
        )
