"""A backup as a file: one line about the mesh, then one for each agent."""

from collections.abc import Iterable, Iterator

import msgspec

from registry.model.agent import Agent, Status, StoredAgent, decode_indexed_spec
from registry.model.encoding.agent_json import rfc3339

# Raised when an older release could not read the file, or would read something else from it.
_FORMAT_VERSION = 1


class BackupError(Exception):
    """The file is no backup, or not a whole one; the message names the line."""


class BackupHeader(msgspec.Struct, frozen=True):
    """What a backup is of: the mesh at a version of a history. `agents` is how many lines follow."""

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


_PRODUCT = "mcp-mesh-registry"
_decode_header = msgspec.json.Decoder(BackupHeader).decode
_decode_agent_line = msgspec.json.Decoder(_AgentLine).decode


def make_header(mesh: str, timeline: str, version: int, now_ms: int, agents: int) -> BackupHeader:
    """Return the heading of a backup that is taken at a moment of this machine's clock, in milliseconds."""
    return BackupHeader(_PRODUCT, _FORMAT_VERSION, mesh, timeline, version, rfc3339(now_ms), agents)


def encode_backup(header: BackupHeader, agents: Iterable[StoredAgent]) -> Iterator[bytes]:
    """Give the lines of a backup."""
    yield msgspec.json.encode(header) + b"\n"
    for held in agents:
        agent = held.agent
        line = _AgentLine(
            id=agent.id,
            status=agent.status,
            draining=agent.draining,
            created=agent.created,
            updated=agent.updated,
            timeout=agent.timeout,
            eviction=agent.eviction,
            heartbeat=held.heartbeat,
            spec=msgspec.Raw(agent.spec),
        )
        yield msgspec.json.encode(line) + b"\n"


def decode_backup(lines: Iterable[bytes]) -> tuple[BackupHeader, list[StoredAgent]]:
    """Read a whole backup. Raises ArchiveError before anything of it is given."""
    numbered = enumerate(lines, 1)
    try:
        top = _decode_header(next(numbered, (1, b""))[1])
    except msgspec.DecodeError as error:
        raise BackupError(f"line 1 is no heading of a backup: {error}") from error
    if top.backup_of != _PRODUCT or top.format != _FORMAT_VERSION:
        raise BackupError(
            f"a backup of {top.backup_of} in format {top.format}; this release reads {_PRODUCT}, {_FORMAT_VERSION}"
        )
    agents = []
    for number, line in numbered:
        try:
            agents.append(_stored_agent(_decode_agent_line(line)))
        except msgspec.DecodeError as error:
            raise BackupError(f"line {number} is no agent: {error}") from error
    if len(agents) != top.agents:
        raise BackupError(f"the file was cut short: it names {top.agents} agents and holds {len(agents)}")
    return top, agents


def _stored_agent(line: _AgentLine) -> StoredAgent:
    spec = bytes(line.spec)
    agent = Agent(
        id=line.id,
        spec=spec,
        status=line.status,
        draining=line.draining,
        version=0,
        spec_version=0,
        created=line.created,
        updated=line.updated,
        timeout=line.timeout,
        eviction=line.eviction,
        indexed=decode_indexed_spec(spec),
    )
    return StoredAgent(agent, line.heartbeat)
