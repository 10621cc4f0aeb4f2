"""Restores agents from a backup, and starts a new timeline after changes that are not in the log."""

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from registry.config.settings import Settings
from registry.model.agent import StoredAgent
from registry.store.keys import Keys, encode
from registry.store.record_codec import encode_edges, encode_log_limits
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import MAX_AGENTS_PER_CALL, chunks
from registry.store.seen_version import SeenVersion


class RestoreResult(NamedTuple):
    """The numbers of agents that were restored, and of those skipped because they already exist."""

    restored: int
    skipped: int


class Restorer:
    """Restores agents from a backup and starts timelines."""

    def __init__(self, keys: Keys, settings: Settings, seen: SeenVersion, pipeline: Pipeline) -> None:
        self._keys = keys
        self._seen = seen
        self._settings = settings
        self._pipeline = pipeline

    async def begin_timeline(self, min_version: int = 0) -> int:
        """Start a timeline, so that caches refill and watches list again; return its first version, above `version`."""
        call = self._pipeline.scripts["new_timeline"].call(
            self._keys.shared,
            {
                "new_timeline_id": secrets.token_hex(8),
                "log_length": self._settings.watch_history,
                "min_version": min_version,
            },
        )
        _, first_version = await self._pipeline.call_script(call)
        return int(first_version)

    async def restore(self, agents: Sequence[StoredAgent]) -> RestoreResult:
        """Add the agents that do not exist; each gets its old status and the full time until its next transition."""
        restored = skipped = 0
        for part in chunks(agents, MAX_AGENTS_PER_CALL):
            call = self._pipeline.scripts["restore"].call(
                {**self._keys.shared, "agent_keys…": [self._keys.agent(stored.agent.id) for stored in part]},
                {
                    "log_limits": encode_log_limits(self._settings.watch_history, self._settings.watch_history_bytes),
                    "seen_version": self._seen.version,
                    "agents…": [field for stored in part for field in self._restore_arguments(stored)],
                },
            )
            _, added, present = await self._pipeline.call_script(call)
            restored, skipped = restored + int(added), skipped + int(present)
        return RestoreResult(restored, skipped)

    def _restore_arguments(self, stored: StoredAgent) -> Sequence[bytes | str | int]:
        agent = stored.agent
        degraded_ms = agent.eviction - agent.timeout
        time_left = {"expired": self._settings.retention // timedelta(milliseconds=1), "degraded": degraded_ms}.get(
            agent.status, agent.timeout
        )
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
            agent.indexed.namespace,
            agent.indexed.endpoint,
        )
