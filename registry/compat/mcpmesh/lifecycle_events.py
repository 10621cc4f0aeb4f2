"""Life-cycle events of agents in the form of mcp-mesh, read from the change log."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import orjson

from registry.compat.mcpmesh.registration_response import mcpmesh_status
from registry.concurrency.cooperative_iteration import cooperative
from registry.model.encoding.agent_json import rfc3339
from registry.store.keys import Keys, decode
from registry.store.record_codec import entry_version, to_mapping
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline

Json = dict[str, Any]

LIFECYCLE_EVENT_TYPES: Final = frozenset(
    {"register", "heartbeat", "expire", "update", "unregister", "unhealthy", "rotate"}
)
"""The types of mcp-mesh. `heartbeat` and `rotate` never occur, because the change log has no such entries."""
# With specs of 1.5 KB one read is about 300 KB.
_ENTRIES_PER_READ: Final = 200
# Older entries are ignored; a search for a rare event reads no more.
_MAX_ENTRIES_READ: Final = 10_000
_TYPES_BY_KIND: Final[Mapping[bytes, str]] = {b"add": "register", b"modify": "update", b"remove": "unregister"}
# The types of changes of the status.
_TYPES_BY_STATUS: Final[Mapping[bytes, str]] = {b"healthy": "register", b"degraded": "unhealthy", b"expired": "expire"}


class LifecycleEvents:
    """Reads the events of one mesh."""

    def __init__(self, keys: Keys, pipeline: Pipeline) -> None:
        self._log_key = keys.log
        self._pipeline = pipeline

    async def newest(self, types: Collection[str], agent_id: str | None, limit: int) -> list[Json]:
        """Return at most `limit` events of these types, of one agent or of all, the newest first."""
        found: list[Json] = []
        end: bytes = b"+"
        for _ in range(0, _MAX_ENTRIES_READ, _ENTRIES_PER_READ):
            command = ("XREVRANGE", self._log_key, end, "-", "COUNT", _ENTRIES_PER_READ)
            entries: Sequence[Any] = raise_for_error((await self._pipeline.execute([command]))[0])
            async for entry_id, names_and_values in cooperative(entries):
                fields = to_mapping(names_and_values)
                event_type = _event_type(fields)
                if event_type in types and agent_id in (None, decode(fields[b"id"])):
                    found.append(_event(event_type, entry_version(entry_id), fields))
                    if len(found) == limit:
                        return found
            if len(entries) < _ENTRIES_PER_READ:
                break
            end = b"(" + entries[-1][0]
        return found


def _event_type(fields: Mapping[bytes, bytes]) -> str:
    """Return the type of a log entry, '' for the first entry of a timeline."""
    if fields.get(b"kind") == b"modify" and b"status_before" in fields:
        return _TYPES_BY_STATUS.get(fields.get(b"status", b""), "update")
    return _TYPES_BY_KIND.get(fields.get(b"kind", b""), "")


def _event(event_type: str, version: int, fields: Mapping[bytes, bytes]) -> Json:
    spec = orjson.loads(fields[b"spec"])
    agent_id = decode(fields[b"id"])
    name = spec.get("name", agent_id)
    data: Json = {"reason": fields[b"reason"].decode(), "name": name}
    data |= {field: spec[field] for field in ("agent_type", "version") if field in spec}
    if b"status_before" in fields:
        data["old_status"] = mcpmesh_status(fields[b"status_before"].decode())
        data["new_status"] = mcpmesh_status(fields[b"status"].decode())
    # A version is the time of its change in milliseconds; after a burst or a loss of data it is ahead of the clock.
    return {
        "event_type": event_type,
        "agent_id": agent_id,
        "agent_name": name,
        "timestamp": rfc3339(version),
        "data": data,
    }
