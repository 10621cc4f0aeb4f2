"""The change log in Redis: where it stands, what came since, and the whole state it leads to."""

import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.exceptions import ResponseError

from registry.model.agent import StoredAgent
from registry.model.change import Change, LogPosition, LogRead
from registry.store.chunks import chunks
from registry.store.codec import BadRecordError, decode_agent, decode_change, entry_version, to_mapping
from registry.store.keys import Keys, decode
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import load_scripts
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# Entries a pull takes at once: with specs of 1.5 KB about 3 MB.
_MAX_ENTRIES_PER_READ = 1000
_SCAN_COUNT = 500


class ChangeLog:
    """Reads the log of one mesh over a link of its own. `history` is how many entries the log keeps."""

    def __init__(self, keys: Keys, log_length: int, pipeline: Pipeline, *, shebang: bool = True) -> None:
        self._keys = keys
        self._log_length = log_length
        self._pipeline = pipeline
        self._opened_on_connection = 0
        scripts = load_scripts(shebang=shebang)
        self._init_log, self._invalidate_timeline = scripts["init_log"], scripts["invalidate_timeline"]

    async def open(self) -> LogPosition:
        """Return where the mesh stands; begin a history where version, history or log is missing."""
        call = self._init_log.call(
            self._keys.shared, {"new_timeline_id": secrets.token_hex(8), "log_length": self._log_length}
        )
        word, version, timeline = raise_for_error((await self._pipeline.call_scripts([call]))[0])
        self._opened_on_connection = self._pipeline.connections_opened
        if word == b"created":
            log.info("timeline_created", version=int(version), timeline=timeline.decode())
        return LogPosition(int(version), timeline.decode())

    async def read_since(self, after: int, last_entry: object = None) -> LogRead:
        """Ask the one question all reads share: the version and history now, and the log from entry `after` on.

        `last_entry` is how that entry read the last time, None if it was not read yet.
        """
        version, timeline, entries = await self._pipeline.execute(
            [
                ("GET", self._keys.version),
                ("GET", self._keys.timeline),
                ("XRANGE", self._keys.log, f"{after}-0", "+", "COUNT", _MAX_ENTRIES_PER_READ),
            ]
        )
        found = raise_for_error(entries)
        # Behind a new connection may stand another server, with another past under the same numbers.
        same = self._pipeline.connections_opened == self._opened_on_connection
        holds = same and bool(found) and entry_version(found[0][0]) == after and last_entry in (None, found[0])
        changes = _decode_until_damaged(found[1:]) if holds else ()
        return LogRead(
            version=int(raise_for_error(version) or 0),
            timeline=(raise_for_error(timeline) or b"").decode(),
            contiguous=holds,
            changes=changes,
            last_entry=found[len(changes)] if holds else None,
        )

    async def entry(self, version: int) -> Change | None:
        """Return one entry of the log; None when it is not there, or cannot be read."""
        (found,) = await self._pipeline.execute([("XRANGE", self._keys.log, f"{version}-0", f"{version}-0")])
        return next(iter(_decode_until_damaged(raise_for_error(found))), None)

    async def invalidate(self, timeline: str, last_seen: int) -> bool:
        """Replace a timeline whose log lost entry `last_seen`; return False where the entry was only trimmed."""
        call = self._invalidate_timeline.call(
            self._keys.shared, {"expected_timeline": timeline, "lost_version": last_seen}
        )
        (word,) = raise_for_error((await self._pipeline.call_scripts([call]))[0])
        return bool(word == b"invalidated")

    async def scan(self) -> AsyncIterator[list[StoredAgent]]:
        """Read every agent, a slice at a time. Those that change meanwhile may come old or new, or twice."""
        cursor = b"0"
        while True:
            (reply,) = await self._pipeline.execute([("ZSCAN", self._keys.deadlines, cursor, "COUNT", _SCAN_COUNT)])
            cursor, flat = raise_for_error(reply)
            ids = flat[::2]
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
        held = []
        for agent_id, score, flat in zip(ids, raise_for_error(scores), hashes, strict=True):
            try:
                fields = to_mapping(raise_for_error(flat))
                if fields:
                    held.append(
                        StoredAgent(decode_agent(agent_id.decode(), fields), None if score is None else int(score))
                    )
            except (BadRecordError, ResponseError, ValueError) as error:
                # One bad record must never hide the others.
                log.warning(
                    "agent left out: its record is damaged; register it anew", agent_id=repr(agent_id), error=str(error)
                )
        return held


def _decode_until_damaged(entries: list[Any]) -> tuple[Change, ...]:
    """Read entries up to the first that cannot be read; the gap it leaves makes the feed fill anew."""
    changes = []
    for entry in entries:
        try:
            changes.append(decode_change(entry))
        except BadRecordError as error:
            log.warning("log entry cannot be read; the cache will be filled anew", error=str(error))
            break
    return tuple(changes)
