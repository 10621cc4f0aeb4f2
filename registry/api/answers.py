"""Answers: bytes joined from what is kept encoded already."""

from datetime import UTC, datetime

import orjson
from starlette.responses import Response

from registry.model.wire import capability_document
from registry.service.discovery import Found, Listing, Search

VERSION = "x-resource-version"
STALE = "x-registry-stale"


def timestamp() -> str:
    """Return the moment of an answer, RFC 3339 UTC. It is for people; nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def answer(body: bytes, *, version: int | None = None, behind: float | None = None) -> Response:
    """Return JSON with the version it was answered from, and how old it may be where that is not known to be fresh."""
    headers = {}
    if version is not None:
        headers[VERSION] = str(version)
    if behind:
        headers[STALE] = f"{behind:.1f}"
    return Response(body, media_type="application/json", headers=headers)


def success(**fields: object) -> Response:
    """Return `{"status": "success", …}`."""
    return Response(orjson.dumps({"status": "success", **fields}), media_type="application/json")


def listing(found: Listing, head: bytes = b"{") -> Response:
    """Return a list of agents; `head` begins the object."""
    body = b",".join([record.body for record in found.records])
    return answer(
        b'%s"agents":[%s],"count":%d,"resource_version":"%d","timestamp":"%s"}'
        % (head, body, len(found.records), found.version, timestamp().encode()),
        version=found.version,
        behind=found.behind,
    )


def search(found: Search) -> Response:
    """Return a list of capabilities, each with the agent that has it."""
    return answer(
        orjson.dumps(
            {
                "capabilities": [_capability(one) for one in found.found],
                "count": len(found.found),
                "resource_version": str(found.version),
                "timestamp": timestamp(),
            }
        ),
        version=found.version,
        behind=found.behind,
    )


def _capability(one: Found) -> dict[str, object]:
    agent = one.record.agent
    spec = orjson.loads(agent.spec)
    return capability_document(spec["capabilities"][one.position]) | {
        "agent_id": agent.id,
        "agent_name": spec.get("name", agent.id),
        "agent_namespace": agent.profile.namespace,
        "agent_status": agent.status,
        "agent_endpoint": spec["endpoint"],
    }
