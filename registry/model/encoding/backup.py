"""A backup as a file: one line about the mesh, then one for each agent."""

from collections.abc import Iterable, Iterator

import msgspec

from registry.model.agent import Agent, Held, Status, read_profile
from registry.model.encoding.agent_json import rfc3339

# Raised when an older release could not read the file, or would read something else from it.
_FORMAT = 1


class ArchiveError(Exception):
    """The file is no backup, or not a whole one; the message names the line."""


class Heading(msgspec.Struct, frozen=True):
    """What a backup is of: the mesh at a version of a history. `agents` is how many lines follow."""

    backup_of: str
    format: int
    mesh: str
    history: str
    version: int
    taken_at: str
    agents: int


class _Line(msgspec.Struct, frozen=True):
    id: str
    status: Status
    draining: bool
    created: int
    updated: int
    timeout: int
    eviction: int
    heartbeat: int | None
    spec: msgspec.Raw


_NAME = "mcp-mesh-registry"
_read_heading = msgspec.json.Decoder(Heading).decode
_read_line = msgspec.json.Decoder(_Line).decode


def heading(mesh: str, history: str, version: int, now: int, agents: int) -> Heading:
    """Return the heading of a backup that is taken at a moment of this machine's clock, in milliseconds."""
    return Heading(_NAME, _FORMAT, mesh, history, version, rfc3339(now), agents)


def write_lines(top: Heading, agents: Iterable[Held]) -> Iterator[bytes]:
    """Give the lines of a backup."""
    yield msgspec.json.encode(top) + b"\n"
    for held in agents:
        agent = held.agent
        line = _Line(
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


def read_lines(lines: Iterable[bytes]) -> tuple[Heading, list[Held]]:
    """Read a whole backup. Raises ArchiveError before anything of it is given."""
    numbered = enumerate(lines, 1)
    try:
        top = _read_heading(next(numbered, (1, b""))[1])
    except msgspec.DecodeError as error:
        raise ArchiveError(f"line 1 is no heading of a backup: {error}") from error
    if top.backup_of != _NAME or top.format != _FORMAT:
        raise ArchiveError(f"a backup of {top.backup_of} in format {top.format}; this release reads {_NAME}, {_FORMAT}")
    agents = []
    for number, line in numbered:
        try:
            agents.append(_held(_read_line(line)))
        except msgspec.DecodeError as error:
            raise ArchiveError(f"line {number} is no agent: {error}") from error
    if len(agents) != top.agents:
        raise ArchiveError(f"the file was cut short: it names {top.agents} agents and holds {len(agents)}")
    return top, agents


def _held(line: _Line) -> Held:
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
        profile=read_profile(spec),
    )
    return Held(agent, line.heartbeat)
