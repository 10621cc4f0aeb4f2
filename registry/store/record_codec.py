"""Encodes and decodes agents, log entries and dependencies as the Lua scripts store them in Redis."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast, get_args
from urllib.parse import quote

import msgspec

from registry.model.agent import STATUSES, Agent, Status, decode_indexed_spec
from registry.model.change import Change, ChangeKind

Fields = Mapping[bytes, bytes]

_STATUS_BY_BYTES: Mapping[bytes, Status] = {status.encode(): status for status in STATUSES}
_KIND_BY_BYTES: Mapping[bytes, ChangeKind] = {kind.encode(): kind for kind in get_args(ChangeKind)}
_DECODE_ERRORS = (KeyError, ValueError, msgspec.DecodeError)


class BadRecordError(Exception):
    """A hash or log entry that this release cannot read: damaged, or written by other software."""


def to_mapping(names_and_values: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return a dict for a Redis reply in which names and values alternate."""
    return dict(zip(names_and_values[::2], names_and_values[1::2], strict=True))


def decode_agent(agent_id: str, fields: Fields) -> Agent:
    """Decode the hash of one agent. Raises BadRecordError that names the agent."""
    try:
        spec = fields[b"spec"]
        return Agent(
            id=agent_id,
            spec=spec,
            status=_STATUS_BY_BYTES[fields[b"status"]],
            draining=fields[b"draining"] == b"1",
            version=int(fields[b"version"]),
            spec_version=int(fields[b"spec_version"]),
            created=int(fields[b"created"]),
            updated=int(fields[b"updated"]),
            timeout=int(fields[b"timeout"]),
            eviction=int(fields[b"eviction"]),
            indexed=decode_indexed_spec(spec),
        )
    except _DECODE_ERRORS as error:
        raise BadRecordError(f"agent {agent_id!r}: {type(error).__name__}: {error}") from error


def encode_edges(edges: Iterable[tuple[str, str]]) -> str:
    """Encode required edges as the scripts expect them: a line for each, both nodes quoted as in a URL."""
    return "\n".join(sorted(f"{quote(name)} {quote(required, safe='/*')}" for name, required in edges))


def encode_log_limits(max_entries: int, max_bytes: int) -> bytes:
    """Encode the limits of the change log as the scripts expect them."""
    return b"%d %d" % (max_entries, max_bytes)


def entry_version(entry_id: bytes) -> int:
    """Return the resource version in the id of a log entry, `<version>-0`."""
    return int(entry_id.partition(b"-")[0])


def server_time_ms(reply: Sequence[bytes]) -> int:
    """Convert the reply to the command TIME to milliseconds."""
    seconds, microseconds = reply
    return int(seconds) * 1000 + int(microseconds) // 1000


def decode_change(entry: Sequence[Any]) -> Change:
    """Decode one log entry as XRANGE returns it. Raises BadRecordError that names the entry."""
    entry_id, names_and_values = entry
    try:
        fields = to_mapping(names_and_values)
        kind = _KIND_BY_BYTES[fields[b"kind"]]
        version = entry_version(entry_id)
        heartbeat = fields.get(b"heartbeat")
        draining_before = fields.get(b"draining_before")
        updated_before = fields.get(b"updated_before")
        return Change(
            version=version,
            prev=int(fields[b"prev"]),
            kind=kind,
            reason=fields[b"reason"].decode(),
            agent=None if kind == "new_timeline" else decode_agent(fields[b"id"].decode(), fields),
            heartbeat=int(heartbeat) if heartbeat else None,
            status_before=_STATUS_BY_BYTES.get(fields.get(b"status_before", b"")),
            draining_before=None if draining_before is None else draining_before == b"1",
            spec_before=fields.get(b"spec_before"),
            updated_before=None if updated_before is None else int(updated_before),
        )
    except (*_DECODE_ERRORS, BadRecordError) as error:
        name = cast(bytes, entry_id).decode(errors="replace")
        raise BadRecordError(f"log entry {name}: {error}") from error
