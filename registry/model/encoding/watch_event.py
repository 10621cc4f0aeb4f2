"""A change as a watcher sees it: one event of a stream, as NDJSON or as a server-sent event."""

import time
from typing import Literal

import orjson

from registry.model.encoding.agent_json import rfc3339

EventKind = Literal["ADDED", "MODIFIED", "DELETED"]
Form = Literal["ndjson", "sse"]


def event_line(kind: EventKind, shown: bytes, version: int, form: Form) -> bytes:
    """Return one event; `shown` is the JSON of the object it is about."""
    return _framed(_event(kind, shown, version), version, form)


def state_line(shown: bytes, version: int, form: Form) -> bytes:
    """Return one agent of the state a stream begins with.

    It has no id: a browser that went on after it would miss the rest of the state.
    """
    return _framed(_event("ADDED", shown, version), None, form)


def bookmark_line(version: int, form: Form) -> bytes:
    """Return a bookmark: everything up to this version that the watcher wants was written before it."""
    data = b'{"type":"BOOKMARK","object":{"resource_version":"%d"},"timestamp":"%s","resource_version":"%d"}' % (
        version,
        _now(),
        version,
    )
    return _framed(data, version, form)


def error_line(error: dict[str, object], version: int, form: Form) -> bytes:
    """Return the last event of a stream that cannot go on; `version` is the one that was reached."""
    data = b'{"type":"ERROR","object":%s,"timestamp":"%s","resource_version":"%d"}' % (
        orjson.dumps(error),
        _now(),
        version,
    )
    return _framed(data, None, form)


def keep_alive(form: Form) -> bytes:
    """Return what says that the stream lives, and nothing else."""
    return b": keep-alive\n\n" if form == "sse" else b"\n"


def _event(kind: EventKind, shown: bytes, version: int) -> bytes:
    return b'{"type":"%s","object":%s,"timestamp":"%s","resource_version":"%d"}' % (
        kind.encode(),
        shown,
        _now(),
        version,
    )


def _now() -> bytes:
    return rfc3339(int(time.time() * 1000)).encode()


def _framed(data: bytes, version: int | None, form: Form) -> bytes:
    if form == "ndjson":
        return data + b"\n"
    if version is None:
        return b"data: %s\n\n" % data
    return b"id: %d\ndata: %s\n\n" % (version, data)
