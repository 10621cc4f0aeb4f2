"""The JSON of an agent in responses, encoded once per change."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from registry.model.agent import Agent
from registry.model.registration.schema import DEFAULT_AGENT_TYPE, DEFAULT_STABILITY, DEFAULT_VERSION


@lru_cache(maxsize=4096)
def rfc3339(milliseconds: int) -> str:
    """Format a time in milliseconds as RFC 3339, in UTC, with milliseconds."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def agent_document(agent: Agent) -> dict[str, Any]:
    """Return an agent as responses contain it, with defaults, but without `last_heartbeat`."""
    spec: dict[str, Any] = orjson.loads(agent.spec)
    agent_id = spec.pop("id", agent.id)
    head = {
        "id": agent_id,
        "name": spec.pop("name", agent_id),
        "namespace": agent.indexed.namespace,
        "agent_type": spec.pop("agent_type", DEFAULT_AGENT_TYPE),
        "status": agent.status,
        "endpoint": spec.pop("endpoint", None),
        "capabilities": [capability_document(capability) for capability in spec.pop("capabilities", ())],
        "labels": spec.pop("labels", {}),
        "annotations": spec.pop("annotations", {}),
    }
    spec.pop("namespace", None)
    tail = {
        "draining": agent.draining,
        "created_at": rfc3339(agent.created),
        "updated_at": rfc3339(agent.updated),
        "resource_version": str(agent.version),
    }
    return head | spec | tail


def capability_document(capability: dict[str, Any]) -> dict[str, Any]:
    """Return a capability with defaults for the fields that its registration omits."""
    return {"name": capability["name"], "version": DEFAULT_VERSION, "stability": DEFAULT_STABILITY, **capability}


def encode_agent_head(agent: Agent) -> bytes:
    """Return the JSON of an agent up to the value of `last_heartbeat`, which changes without a new version."""
    return orjson.dumps(agent_document(agent))[:-1] + b',"last_heartbeat":'


def encode_agent_tail(heartbeat: int | None, overdue_since: int | None = None) -> bytes:
    """Return the rest of an agent's JSON: `last_heartbeat`, null before the first heartbeat, and `overdue_since`."""
    tail = b"null" if heartbeat is None else b'"%s"' % rfc3339(heartbeat).encode()
    return tail + encode_overdue_since(overdue_since) + b"}"


def encode_overdue_since(overdue_since: int | None) -> bytes:
    """Return the field `overdue_since` with a leading comma; empty for an agent that is not overdue."""
    return b"" if overdue_since is None else b',"overdue_since":"%s"' % rfc3339(overdue_since).encode()
