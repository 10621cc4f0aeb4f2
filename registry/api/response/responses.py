"""Answers: bytes joined from what is kept encoded already."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import orjson
from starlette.responses import Response

from registry.model.encoding.agent_json import capability_document
from registry.service.discovery.discovery import Found, Listing, Search
from registry.service.discovery.query_cache import body_of

VERSION = "x-resource-version"
STALE = "x-registry-stale"


def timestamp() -> str:
    """Return the moment of an answer, RFC 3339 UTC. It is for people; nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def answer(
    body: bytes,
    *,
    version: int | None = None,
    behind: float | None = None,
    status: int = 200,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """Return JSON with the version it was answered from, and how old it may be where that is not known to be fresh."""
    return Response(body, status, {**headers, **versions(version, behind)}, media_type="application/json")


def versions(version: int | None, behind: float | None) -> dict[str, str]:
    """Return the headers that tell the version of an answer, and how old it may be."""
    shown = {} if version is None else {VERSION: str(version)}
    if behind:
        shown[STALE] = f"{behind:.1f}"
    return shown


def success(**fields: object) -> Response:
    """Return `{"status": "success", …}`."""
    return Response(orjson.dumps({"status": "success", **fields}), media_type="application/json")


def listing(
    found: Listing, head: bytes = b"{", more: str | None = None, fields: tuple[str, ...] = ()
) -> tuple[bytes, bytes, bytes]:
    """Return the JSON of a list of agents in parts, as its rows may be long and are kept joined.

    `head` begins the object, `more` is the token to go on with.
    """
    rows = (
        found.rows
        if not fields
        else b",".join([_projected(body_of(found.answer, record), fields) for record in found.records])
    )
    going_on = b"" if more is None else b'"continue":"%s",' % more.encode()
    tail = b'],"count":%d,%s"resource_version":"%d","timestamp":"%s"}' % (
        len(found.records),
        going_on,
        found.version,
        timestamp().encode(),
    )
    return head + b'"agents":[', rows, tail


def _projected(body: bytes, fields: tuple[str, ...]) -> bytes:
    agent = orjson.loads(body)
    return orjson.dumps({name: agent[name] for name in fields if name in agent})


def search(found: Search) -> Response:
    """Return a list of capabilities, each with the agent that has it."""
    return answer(
        orjson.dumps(
            {
                "capabilities": [_capability(one, ranked=found.ranked) for one in found.found],
                "count": len(found.found),
                "resource_version": str(found.version),
                "timestamp": timestamp(),
            }
        ),
        version=found.version,
        behind=found.behind,
    )


def _capability(one: Found, *, ranked: bool) -> dict[str, object]:
    agent = one.record.agent
    spec = orjson.loads(agent.spec)
    return capability_document(spec["capabilities"][one.position]) | {
        "agent_id": agent.id,
        "agent_name": spec.get("name", agent.id),
        "agent_namespace": agent.profile.namespace,
        "agent_status": agent.status,
        "agent_draining": agent.draining,
        "agent_endpoint": spec["endpoint"],
        **({"score": round(one.score, 1)} if ranked else {}),
    }
