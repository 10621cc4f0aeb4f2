"""Events of a watch stream, as NDJSON or as server-sent events."""

import time
from typing import Literal

import orjson

from registry.model.encoding.agent_json import rfc3339

EventKind = Literal["ADDED", "MODIFIED", "DELETED"]
StreamFormat = Literal["ndjson", "sse"]


def encode_event(kind: EventKind, object_json: bytes, version: int, stream_format: StreamFormat) -> bytes:
    """Return the watch event for one change; `object_json` is the JSON of the agent or the capability."""
    return _frame(_event_json(kind, object_json, version), version, stream_format)


def encode_initial_agent(agent_json: bytes, version: int, stream_format: StreamFormat) -> bytes:
    """Return the event of an initial agent, without an id: a browser that resumed after it would miss the others."""
    return _frame(_event_json("ADDED", agent_json, version), None, stream_format)


def encode_bookmark(version: int, stream_format: StreamFormat) -> bytes:
    """Return a bookmark event: the watcher has received all events up to this version."""
    data = _event_json("BOOKMARK", b'{"resource_version":"%d"}' % version, version)
    return _frame(data, version, stream_format)


def encode_error(error: dict[str, object], version: int, stream_format: StreamFormat) -> bytes:
    """Return the error event that ends a watch stream; `version` is the version of the stream's last event."""
    return _frame(_event_json("ERROR", orjson.dumps(error), version), None, stream_format)


def encode_keep_alive(stream_format: StreamFormat) -> bytes:
    """Return a line of a watch stream without an event, which prevents an idle timeout of the connection."""
    return b": keep-alive\n\n" if stream_format == "sse" else b"\n"


def _event_json(kind: str, object_json: bytes, version: int) -> bytes:
    fields = kind.encode(), object_json, rfc3339(int(time.time() * 1000)).encode(), version
    return b'{"type":"%s","object":%s,"timestamp":"%s","resource_version":"%d"}' % fields


def _frame(data: bytes, version: int | None, stream_format: StreamFormat) -> bytes:
    if stream_format == "ndjson":
        return data + b"\n"
    if version is None:
        return b"data: %s\n\n" % data
    return b"id: %d\ndata: %s\n\n" % (version, data)
