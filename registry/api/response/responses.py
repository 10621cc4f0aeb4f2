"""Answers: bytes joined from what is kept encoded already."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import orjson
from starlette.responses import Response

from registry.model.encoding.agent_json import capability_document
from registry.service.discovery.discovery import AgentList, CapabilityList, CapabilityMatch
from registry.service.discovery.query_cache import render_row
from registry.service.registration.registration import RegisteredAgent

VERSION_HEADER = "x-resource-version"
STALE_HEADER = "x-registry-stale"


def timestamp() -> str:
    """Return the moment of an answer, RFC 3339 UTC. It is for people; nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def json_response(
    body: bytes,
    *,
    version: int | None = None,
    staleness: float | None = None,
    status: int = 200,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """Return JSON with the version it was answered from, and how old it may be where that is not known to be fresh."""
    return Response(body, status, {**headers, **version_headers(version, staleness)}, media_type="application/json")


def version_headers(version: int | None, staleness: float | None) -> dict[str, str]:
    """Return the headers that tell the version of an answer, and how old it may be."""
    shown = {} if version is None else {VERSION_HEADER: str(version)}
    if staleness:
        shown[STALE_HEADER] = f"{staleness:.1f}"
    return shown


def success_response(**fields: object) -> Response:
    """Return `{"status": "success", …}`."""
    return Response(orjson.dumps({"status": "success", **fields}), media_type="application/json")


def registration_fields(registered: RegisteredAgent) -> dict[str, Any]:
    """Return the fields of the response to a registration."""
    return {
        "agent_id": registered.agent_id,
        "resource_version": str(registered.version),
        "message": f"Agent {registered.name} registered successfully",
        **({} if registered.resolution is None else registered.resolution.response_fields),
    }


def unregistration_response(agent_id: str, version: int) -> Response:
    """Return the response to an agent's removal."""
    message = f"Agent {agent_id} unregistered successfully"
    return success_response(agent_id=agent_id, resource_version=str(version), message=message)


def agent_list_parts(
    listing: AgentList, prefix: bytes = b"{", continue_token: str | None = None, fields: tuple[str, ...] = ()
) -> tuple[bytes, bytes, bytes]:
    """Return the JSON of a list of agents in parts, as its rows may be long and are kept joined.

    `prefix` begins the object, `continue_token` is the token to go on with.
    """
    rows = (
        listing.rows
        if not fields
        else b",".join([_select_fields(render_row(listing.cached, record), fields) for record in listing.records])
    )
    going_on = b"" if continue_token is None else b'"continue":"%s",' % continue_token.encode()
    tail = b'],"count":%d,%s"resource_version":"%d","timestamp":"%s"}' % (
        len(listing.records),
        going_on,
        listing.version,
        timestamp().encode(),
    )
    return prefix + b'"agents":[', rows, tail


def _select_fields(body: bytes, fields: tuple[str, ...]) -> bytes:
    agent = orjson.loads(body)
    return orjson.dumps({name: agent[name] for name in fields if name in agent})


def capability_list_response(result: CapabilityList) -> Response:
    """Return a list of capabilities, each with the agent that has it."""
    return json_response(
        orjson.dumps(
            {
                "capabilities": [_capability_row(one, ranked=result.ranked) for one in result.matches],
                "count": len(result.matches),
                "resource_version": str(result.version),
                "timestamp": timestamp(),
            }
        ),
        version=result.version,
        staleness=result.staleness,
    )


def _capability_row(found: CapabilityMatch, *, ranked: bool) -> dict[str, object]:
    agent = found.record.agent
    spec = orjson.loads(agent.spec)
    return capability_document(spec["capabilities"][found.position]) | {
        "agent_id": agent.id,
        "agent_name": spec.get("name", agent.id),
        "agent_namespace": agent.indexed.namespace,
        "agent_status": agent.status,
        "agent_draining": agent.draining,
        "agent_endpoint": spec["endpoint"],
        **({"score": round(found.score, 1)} if ranked else {}),
    }
