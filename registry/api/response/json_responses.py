"""Builders of JSON responses, mostly from JSON that is already encoded."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus

import orjson
from starlette.responses import Response
from starlette.types import Send

from registry.concurrency.cooperative_iteration import cooperative, cooperative_join
from registry.model.encoding.agent_json import capability_document
from registry.service.discovery.discovery_service import AgentList, CapabilityList, CapabilityMatch
from registry.service.discovery.query_cache import render_row
from registry.service.resolution.provider_selection import Selection

Headers = Iterable[tuple[bytes, bytes]]

VERSION_HEADER = "x-resource-version"
STALE_HEADER = "x-registry-stale"


def timestamp() -> str:
    """Return the current time as RFC 3339 in UTC, which responses show for information only."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


async def send_bytes(
    send: Send, status: int, body: bytes = b"", headers: Headers = (), content_type: bytes | None = b"application/json"
) -> None:
    """Send a whole response over ASGI, with its length and content type; a 304 has neither."""
    # A list, because the middleware appends a header.
    sent = [] if content_type is None or status == HTTPStatus.NOT_MODIFIED else [(b"content-type", content_type)]
    if status != HTTPStatus.NOT_MODIFIED:
        sent.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": [*sent, *headers]})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    """Send a whole JSON response over ASGI, with a newline after the body."""
    await send_bytes(send, status, body + b"\n", headers)


def json_response(
    document: bytes | Mapping[str, object],
    *,
    version: int | None = None,
    staleness: float | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a JSON response, with headers for its resource version and, if it may be outdated, its staleness.

    A newline follows the body, so that the prompt of a terminal begins a new line.
    """
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    all_headers = {**(headers or {}), **version_headers(version, staleness)}
    return Response(body + b"\n", status, all_headers, media_type="application/json")


def version_headers(version: int | None, staleness: float | None) -> dict[str, str]:
    """Return the response headers for the resource version and the staleness of the data."""
    headers = {} if version is None else {VERSION_HEADER: str(version)}
    if staleness:
        headers[STALE_HEADER] = f"{staleness:.1f}"
    return headers


def success_response(**fields: object) -> Response:
    """Return the JSON response `{"status": "success", …}` with these fields."""
    return json_response({"status": "success", **fields})


def unregistration_response(agent_id: str, version: int) -> Response:
    """Return the response to the removal of an agent."""
    message = f"Agent {agent_id} unregistered successfully"
    return success_response(agent_id=agent_id, resource_version=str(version), message=message)


def selection_response(selection: Selection, capability: str) -> Response:
    """Return the response with the agent that was selected for a capability."""
    provider = selection.provider
    body = orjson.dumps(
        {
            "status": "success",
            "agent_id": provider.agent_id,
            "endpoint": provider.endpoint,
            "tool_name": provider.tool_name,
            "capability": capability,
            "version": provider.version,
            "candidates": selection.candidates,
        }
    )
    with_agent = b'%s,"agent":%s}' % (body[:-1], selection.record.json)
    return json_response(with_agent, version=selection.version, staleness=selection.staleness)


async def agent_list_parts(
    listing: AgentList, prefix: bytes = b"{", continue_token: str | None = None, fields: tuple[str, ...] = ()
) -> tuple[bytes, bytes, bytes]:
    """Return the JSON of a list in parts, because its cached rows may be long; `prefix` begins the object."""
    if fields:
        whole = listing.rendered or [render_row(listing.cached, record) for record in listing.records]
        rows = await cooperative_join(b",", [_select_fields(row, fields) async for row in cooperative(whole)])
    elif listing.rendered is not None:
        rows = await cooperative_join(b",", listing.rendered)
    else:
        rows = listing.rows
    token = b"" if continue_token is None else b'"continue":"%s",' % continue_token.encode()
    tail = b'],"count":%d,%s"resource_version":"%d","timestamp":"%s"}' % (
        len(listing.records),
        token,
        listing.version,
        timestamp().encode(),
    )
    return prefix + b'"agents":[', rows, tail


def _select_fields(body: bytes, fields: tuple[str, ...]) -> bytes:
    agent = orjson.loads(body)
    return orjson.dumps({name: agent[name] for name in fields if name in agent})


async def capability_list_response(result: CapabilityList) -> Response:
    """Return the response with a list of capabilities, each with its agent."""
    rows = [orjson.dumps(_capability_row(match, ranked=result.ranked)) async for match in cooperative(result.matches)]
    tail = b'],"count":%d,"resource_version":"%d","timestamp":"%s"}' % (len(rows), result.version, timestamp().encode())
    body = await cooperative_join(b"", [b'{"capabilities":[', await cooperative_join(b",", rows), tail])
    return json_response(body, version=result.version, staleness=result.staleness)


def _capability_row(match: CapabilityMatch, *, ranked: bool) -> dict[str, object]:
    agent = match.agent
    spec = orjson.loads(agent.spec)
    return capability_document(spec["capabilities"][match.position]) | {
        "agent_id": agent.id,
        "agent_name": spec.get("name", agent.id),
        "agent_namespace": agent.indexed.namespace,
        "agent_status": agent.status,
        "agent_draining": agent.draining,
        "agent_endpoint": spec["endpoint"],
        **({"score": round(match.score, 1)} if ranked else {}),
    }
