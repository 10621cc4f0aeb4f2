"""Reads the change log in Redis: its current position, its entries since a version, and all agents."""

import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.exceptions import ResponseError

from registry.concurrency.cooperative_iteration import cooperative
from registry.model.agent import StoredAgent
from registry.model.change import Change, LogPosition, LogRead
from registry.store.keys import Keys, decode
from registry.store.record_codec import BadRecordError, decode_agent, decode_change, entry_version, to_mapping
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import chunks
from registry.store.seen_version import SeenVersion
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# With specs of 1.5 KB this is about 3 MB.
_MAX_ENTRIES_PER_READ = 1000
# Decoded before other tasks run; an entry can have 2 MB.
_MAX_ENTRIES_PER_STEP = 8
_SCAN_COUNT = 500


class ChangeLog:
    """Reads the change log of one mesh over its own connection. The log stores about `log_length` entries."""

    def __init__(self, keys: Keys, log_length: int, seen: SeenVersion, pipeline: Pipeline) -> None:
        self._keys = keys
        self._log_length = log_length
        self._seen = seen
        self._pipeline = pipeline
        self._opened_on_connection = 0

    async def open(self) -> LogPosition:
        """Return the current version and timeline; start a timeline if version, timeline or log is missing.

        A timeline also starts if the version is lower than one that this replica has seen; it continues above that one.
        """
        call = self._pipeline.scripts["init_log"].call(
            self._keys.shared,
            {
                "new_timeline_id": secrets.token_hex(8),
                "log_length": self._log_length,
                "seen_version": self._seen.version,
            },
        )
        word, version, timeline = await self._pipeline.call_script(call)
        self._opened_on_connection = self._pipeline.connections_opened
        self._seen.raise_to(int(version))
        if word == b"created":
            log.info("timeline_created", version=int(version), timeline=timeline.decode())
        return LogPosition(int(version), timeline.decode())

    async def read_since(self, after: int, last_entry: object = None) -> LogRead:
        """Return the current version and timeline, and the log entries after version `after`.

        `last_entry` is the entry `after` as it was read before, None if it was not read yet.
        """
        version, timeline, entries = await self._pipeline.execute(
            [
                ("GET", self._keys.version),
                ("GET", self._keys.timeline),
                ("XRANGE", self._keys.log, f"{after}-0", "+", "COUNT", _MAX_ENTRIES_PER_READ),
            ]
        )
        raw_entries = raise_for_error(entries)
        # A new connection may lead to another server, which may have other entries with the same versions.
        is_contiguous = (
            self._pipeline.connections_opened == self._opened_on_connection
            and bool(raw_entries)
            and entry_version(raw_entries[0][0]) == after
            and last_entry in (None, raw_entries[0])
        )
        changes = await _decode_until_damaged(raw_entries[1:]) if is_contiguous else ()
        current = int(raise_for_error(version) or 0)
        self._seen.raise_to(max(current, changes[-1].version if changes else 0))
        return LogRead(
            version=current,
            timeline=(raise_for_error(timeline) or b"").decode(),
            contiguous=is_contiguous,
            changes=changes,
            last_entry=raw_entries[len(changes)] if is_contiguous else None,
        )

    async def entry(self, version: int) -> Change | None:
        """Return one entry of the change log; None if the entry is missing or unreadable."""
        (reply,) = await self._pipeline.execute([("XRANGE", self._keys.log, f"{version}-0", f"{version}-0")])
        return next(iter(await _decode_until_damaged(raise_for_error(reply))), None)

    async def invalidate(self, timeline: str, last_seen: int) -> bool:
        """Invalidate the timeline if the log lost entry `last_seen`; return False if the entry was only trimmed."""
        call = self._pipeline.scripts["invalidate_timeline"].call(
            self._keys.shared, {"expected_timeline": timeline, "lost_version": last_seen}
        )
        (word,) = await self._pipeline.call_script(call)
        return bool(word == b"invalidated")

    async def scan(self) -> AsyncIterator[list[StoredAgent]]:
        """Yield all agents in slices; an agent that changes during the scan may be outdated or yielded twice."""
        cursor = b"0"
        while True:
            (reply,) = await self._pipeline.execute([("ZSCAN", self._keys.deadlines, cursor, "COUNT", _SCAN_COUNT)])
            cursor, pairs = raise_for_error(reply)
            ids = pairs[::2]
            for part in chunks(ids, _SCAN_COUNT):
                yield await self._read_agents(part)
            if cursor == b"0":
                return

    async def _read_agents(self, ids: Sequence[bytes]) -> list[StoredAgent]:
        scores, *hashes = await self._pipeline.execute(
            [
                ("ZMSCORE", self._keys.heartbeats, *ids),
                *(("HGETALL", self._keys.agent(decode(agent_id))) for agent_id in ids),
            ]
        )
        stored = []
        for agent_id, score, pairs in zip(ids, raise_for_error(scores), hashes, strict=True):
            try:
                fields = to_mapping(raise_for_error(pairs))
                if fields:
                    stored.append(
                        StoredAgent(decode_agent(agent_id.decode(), fields), None if score is None else int(score))
                    )
            except (BadRecordError, ResponseError, ValueError) as error:
                # An unreadable record must not hide the other agents.
                log.warning(
                    "agent_record_unreadable", id=repr(agent_id), error=str(error), advice="register the agent again"
                )
        return stored


async def _decode_until_damaged(entries: list[Any]) -> tuple[Change, ...]:
    """Decode entries up to the first unreadable one; the gap behind it makes the cache refill."""
    changes: list[Change] = []
    try:
        async for part in cooperative(chunks(entries, _MAX_ENTRIES_PER_STEP)):
            for entry in part:
                changes.append(decode_change(entry))  # noqa: PERF401  the entries before a damaged one are returned
    except BadRecordError as error:
        log.warning("log_entry_unreadable", error=str(error))
    return tuple(changes)
