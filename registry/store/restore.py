"""Putting agents back, and beginning a new history when what is stored was changed behind the log's back."""

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
    """How many agents were put back, and how many were there already and stayed."""

    restored: int
    skipped: int


class Restorer:
    """The calls of a restore over a link of its own. `log_length` is what the log keeps, `retention` is ms."""

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
        """Begin a new history above a version; return the first of it. Replicas fill anew, watches list again."""
        call = self._new_timeline.call(
            self._keys.shared,
            {"new_timeline_id": secrets.token_hex(8), "log_length": self._log_length, "min_version": min_version},
        )
        _, begun = raise_for_error((await self._pipeline.call_scripts([call]))[0])
        return int(begun)

    async def restore(self, agents: Sequence[StoredAgent]) -> RestoreResult:
        """Put agents back that are not there. They keep their status as if Redis had been away all the time."""
        restored = kept = 0
        for part in chunks(agents, MAX_AGENTS_PER_CALL):
            call = self._restore.call(
                {**self._keys.shared, "agent_keys…": [self._keys.agent(held.agent.id) for held in part]},
                {
                    "log_length": self._log_length,
                    "agents…": [field for held in part for field in self._restore_arguments(held)],
                },
            )
            _, added, present = raise_for_error((await self._pipeline.call_scripts([call]))[0])
            restored, kept = restored + int(added), kept + int(present)
        return RestoreResult(restored, kept)

    def _restore_arguments(self, stored: StoredAgent) -> Sequence[bytes | str | int]:
        agent = stored.agent
        rest = {"expired": self._retention, "degraded": agent.eviction - agent.timeout}.get(agent.status, agent.timeout)
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
            rest,
            encode_edges(agent.indexed.required_edges),
        )
