"""The backup file: a header line, then one line for each agent."""

from collections.abc import Iterable, Iterator

import msgspec

from registry.model.agent import Agent, Status, StoredAgent, decode_indexed_spec
from registry.model.encoding.agent_json import rfc3339

# Incremented when older releases cannot read the file correctly.
_FORMAT_VERSION = 1


class BackupError(Exception):
    """The backup file is invalid or incomplete; the message names the line."""


class BackupHeader(msgspec.Struct, frozen=True):
    """The first line of a backup: its mesh, timeline and version, and the number of agent lines that follow."""

    backup_of: str
    format: int
    mesh: str
    timeline: str
    version: int
    taken_at: str
    agents: int


class _AgentLine(msgspec.Struct, frozen=True):
    id: str
    status: Status
    draining: bool
    created: int
    updated: int
    timeout: int
    eviction: int
    heartbeat: int | None
    spec: msgspec.Raw


# The fields of an agent that its line has unchanged.
_COPIED_FIELDS = frozenset(_AgentLine.__struct_fields__) - {"heartbeat", "spec"}
_PRODUCT = "mcp-mesh-registry"
_decode_header = msgspec.json.Decoder(BackupHeader).decode
_decode_agent_line = msgspec.json.Decoder(_AgentLine).decode


def make_header(mesh: str, timeline: str, version: int, now_ms: int, agents: int) -> BackupHeader:
    """Return the header of a backup that is taken at `now_ms`, the time of this machine in milliseconds."""
    return BackupHeader(_PRODUCT, _FORMAT_VERSION, mesh, timeline, version, rfc3339(now_ms), agents)


def encode_backup(header: BackupHeader, agents: Iterable[StoredAgent]) -> Iterator[bytes]:
    """Yield the lines of a backup file: the header, then the agents."""
    yield msgspec.json.encode(header) + b"\n"
    for stored in agents:
        fields = {name: getattr(stored.agent, name) for name in _COPIED_FIELDS}
        line = _AgentLine(**fields, heartbeat=stored.heartbeat, spec=msgspec.Raw(stored.agent.spec))
        yield msgspec.json.encode(line) + b"\n"


def decode_backup(lines: Iterable[bytes]) -> tuple[BackupHeader, list[StoredAgent]]:
    """Return the header and the agents of a backup file. Raises BackupError."""
    numbered = enumerate(lines, 1)
    try:
        header = _decode_header(next(numbered, (1, b""))[1])
    except msgspec.DecodeError as error:
        raise BackupError(f"line 1 is not a backup header: {error}") from error
    if header.backup_of != _PRODUCT or header.format != _FORMAT_VERSION:
        raise BackupError(
            f"unsupported backup: product {header.backup_of}, format {header.format}; "
            f"this release reads product {_PRODUCT}, format {_FORMAT_VERSION}"
        )
    agents = []
    for number, line in numbered:
        try:
            agents.append(_stored_agent(_decode_agent_line(line)))
        except msgspec.DecodeError as error:
            raise BackupError(f"line {number} is not an agent: {error}") from error
    if len(agents) != header.agents:
        raise BackupError(f"the file is truncated: header says {header.agents} agents, found {len(agents)}")
    return header, agents


def _stored_agent(line: _AgentLine) -> StoredAgent:
    spec = bytes(line.spec)
    fields = {name: getattr(line, name) for name in _COPIED_FIELDS}
    agent = Agent(**fields, spec=spec, version=0, spec_version=0, indexed=decode_indexed_spec(spec))
    return StoredAgent(agent, line.heartbeat)
