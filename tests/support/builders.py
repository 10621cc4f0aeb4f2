"""Valid sample objects with defaults for every field."""

from typing import Any

import orjson

from registry.model.agent import Agent, Status, decode_indexed_spec
from registry.model.change import Change, ChangeKind


def a_spec(agent_id: str = "a", **fields: Any) -> bytes:
    """Return a canonical spec."""
    return orjson.dumps({"id": agent_id, "endpoint": "http://a:1"} | fields, option=orjson.OPT_SORT_KEYS)


def an_agent(
    agent_id: str = "a", version: int = 1, status: Status = "healthy", *, draining: bool = False, **fields: Any
) -> Agent:
    """Return an agent as the cache stores it."""
    spec = a_spec(agent_id, **fields)
    return Agent(
        id=agent_id,
        spec=spec,
        status=status,
        draining=draining,
        version=version,
        spec_version=version,
        created=0,
        updated=0,
        timeout=60_000,
        eviction=120_000,
        indexed=decode_indexed_spec(spec),
    )


def a_change(version: int, kind: ChangeKind = "add", agent: Agent | None = None, *, prev: int | None = None) -> Change:
    """Return a log entry; by default it follows the previous version."""
    return Change(
        version=version,
        prev=version - 1 if prev is None else prev,
        kind=kind,
        reason="test",
        agent=None if kind == "new_timeline" else agent or an_agent(version=version),
    )
