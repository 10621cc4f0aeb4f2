"""The agents of a benchmark and their requests, as bytes built in advance."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.load_generator import Check, Exchange

REGISTRATION_BYTES = 1400
REGISTRATIONS_PER_CALL = 200
HEARTBEATS_PER_CALL = 1000
DEPENDENT_LAST_DIGIT = 5
"""The last digit of the agents that depend on agent 0."""

_REVISION_PLACEHOLDER = b"0000000000"
_DEPENDENCIES_VERSION = re.compile(rb'"dependencies_version":"([0-9a-f]+)"')


def request(method: str, path: str, body: bytes | None = None) -> bytes:
    """Return an HTTP request with the minimum of headers."""
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def succeeded(body: bytes) -> bool:
    """Return whether the body reports success; the status 200 alone does not."""
    return body.startswith(b'{"status":"success"')


def agent_name(number: int) -> str:
    """Return the id of an agent."""
    return f"agent-{number:06d}"


def shared_capability(group: int) -> str:
    """Return the capability that exactly the ten agents of one group have."""
    return f"shared-{group:05d}"


def registration(number: int, *, agent_id: str | None = None, namespace: str | None = None) -> dict[str, Any]:
    """Return a registration of 1,400 bytes with four capabilities.

    One is the agent's own, one is shared by exactly ten agents, one by a tenth of all, one by all.
    """
    agent_id = agent_id or agent_name(number)
    capabilities = [
        _capability(f"own-{agent_id}", "Offers a capability no other agent has"),
        _capability(shared_capability(number // 10), "Reads and writes one team's documents"),
        _capability(f"tenth-{number % 10}", "Searches a tenth of the archive"),
        _capability("common", "Reports the current task of this agent"),
    ]
    document = {
        "id": agent_id,
        "name": f"Agent {number}",
        "namespace": namespace or f"ns-{number % 10}",
        "agent_type": "mcp_agent",
        "endpoint": f"http://10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:8080",
        "capabilities": capabilities,
        "labels": {"team": f"team-{number // 10}", "tier": "backend"},
        "metadata": {"revision": _REVISION_PLACEHOLDER.decode(), "note": ""},
    }
    metadata: Any = document["metadata"]
    metadata["note"] = "x" * (REGISTRATION_BYTES - len(_encode(document)))
    return document


def consumer(number: int) -> dict[str, Any]:
    """Return a registration with the same capabilities and three dependencies, all of which resolve.

    Their providers are ten agents, a tenth of all agents, and one agent.
    """
    document = registration(number, namespace="dependencies")
    document["capabilities"][0]["dependencies"] = [
        {"capability": shared_capability(number // 10), "version": ">=1.0.0", "tags": ["documents"]},
        {"capability": f"tenth-{number % 10}"},
        f"own-{agent_name(number)}",
    ]
    return document


def heartbeats_recording_versions(agents: int, versions: dict[int, bytes]) -> Iterator[Exchange]:
    """Send a heartbeat of every agent and record the dependencies version of each response."""
    for number in range(agents):

        def record(body: bytes, number: int = number) -> bool:
            found = _DEPENDENCIES_VERSION.search(body)
            if found is not None:
                versions[number] = found[1]
            return found is not None and succeeded(body) and b":null" not in body

        yield request("POST", "/heartbeat", _encode({"agent_id": agent_name(number)})), record


def heartbeats_with_known_version(versions: Mapping[int, bytes]) -> list[Exchange]:
    """Return one heartbeat per agent with its last dependencies version; the response must not repeat them."""
    return [
        (
            request(
                "POST",
                "/heartbeat",
                _encode({"agent_id": agent_name(number), "dependencies_version": version.decode()}),
            ),
            _dependencies_unchanged,
        )
        for number, version in versions.items()
    ]


def single_dependency_consumer(number: int) -> dict[str, Any]:
    """Return a registration with one dependency: a tenth of all depend on agent 0, the others on agent 1."""
    document = registration(number, namespace="dependencies")
    document["capabilities"][0]["dependencies"] = [f"own-{agent_name(0 if number % 10 == DEPENDENT_LAST_DIGIT else 1)}"]
    return document


def heartbeats_recording_changes(versions: dict[int, bytes], changed: dict[int, bool]) -> Iterator[Exchange]:
    """Send a heartbeat per agent with its last dependencies version; record changes and if a provider exists."""
    for number, version in list(versions.items()):
        body = _encode({"agent_id": agent_name(number), "dependencies_version": version.decode()})

        def record(body: bytes, number: int = number) -> bool:
            found = _DEPENDENCIES_VERSION.search(body)
            if found is not None:
                versions[number], changed[number] = found[1], b":null" not in body
            return succeeded(body)

        yield request("POST", "/heartbeat", body), record


def _dependencies_unchanged(body: bytes) -> bool:
    return succeeded(body) and b"dependencies" not in body


def registrations(agents: int, namespace: str | None = None) -> Iterator[Exchange]:
    """Register every agent repeatedly, each time with a different body."""
    parts = []
    for number in range(agents):
        sent = request("POST", "/agents", _encode(registration(number, namespace=namespace)))
        before, _, after = sent.partition(_REVISION_PLACEHOLDER)
        parts.append((before, after))
    for revision, (before, after) in enumerate(itertools.cycle(parts), 1):
        yield b"%s%010d%s" % (before, revision, after), succeeded


def new_registrations(agents: int, namespace: str) -> list[Exchange]:
    """Return registrations of new agents in a separate namespace."""
    return [
        (
            request("POST", "/agents", _encode(registration(number, agent_id=each, namespace=namespace))),
            succeeded,
        )
        for number, each in enumerate(new_agent_ids(agents, namespace))
    ]


def new_agent_ids(agents: int, namespace: str) -> list[str]:
    """Return the ids that `new_registrations` registers."""
    return [f"{namespace}-{number:03d}" for number in range(agents)]


def unregistrations(agents: int, namespace: str) -> list[Exchange]:
    """Return the requests that unregister the agents of `new_registrations`."""
    return [(request("DELETE", f"/agents/{each}"), succeeded) for each in new_agent_ids(agents, namespace)]


def namespace_list(agents: int, namespace: str) -> Exchange:
    """List a namespace; the response must contain exactly the agents of `new_registrations`."""
    expected = [f'"id":"{each}"'.encode() for each in new_agent_ids(agents, namespace)]

    def found_all(body: bytes) -> bool:
        return b'"count":%d,' % agents in body[-120:] and all(each in body for each in expected)

    return request("GET", f"/agents?namespace={namespace}"), found_all


def page(rows: int) -> Exchange:
    """List the first page of one namespace."""
    count = b'"count":%d,' % rows
    return request("GET", f"/agents?namespace=ns-1&limit={rows}"), lambda body: count in body


def full_list(rows: int) -> Exchange:
    """List all agents of one namespace; `rows` are expected."""
    count = b'"count":%d,' % rows
    return request("GET", "/agents?namespace=ns-1"), lambda body: count in body


def conditional_page(etag: str) -> Exchange:
    """List a page with If-None-Match; the response must be 304."""
    sent = request("GET", "/agents?namespace=ns-1&limit=100")
    return sent[:-2] + f"if-none-match: {etag}\r\n\r\n".encode(), b"".__eq__


def heartbeats(agents: int) -> list[Exchange]:
    """Return one heartbeat per agent."""
    return [
        (request("POST", "/heartbeat", _encode({"agent_id": agent_name(number)})), succeeded)
        for number in range(agents)
    ]


def mcp_heartbeats(agents: int, version: str) -> list[Exchange]:
    """Return one heartbeat per agent as an MCP tool call, in this protocol version."""
    meta = {"io.modelcontextprotocol/protocolVersion": version, "io.modelcontextprotocol/clientCapabilities": {}}
    headers = (
        f"mcp-protocol-version: {version}\r\nmcp-method: tools/call\r\nmcp-name: heartbeat\r\ncontent-type:".encode()
    )
    calls = (
        {"name": "heartbeat", "arguments": {"agent_id": agent_name(number)}, "_meta": meta} for number in range(agents)
    )
    bodies = (_encode({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}) for call in calls)
    return [(request("POST", "/mcp", body).replace(b"content-type:", headers, 1), _tool_succeeded) for body in bodies]


def discoveries(agents: int) -> list[Exchange]:
    """Return one query for every capability that ten agents have."""
    return [_discovery(shared_capability(group)) for group in range(agents // 10)]


def batch_registrations(agents: int, build: Callable[[int], dict[str, Any]] = registration) -> Iterator[Exchange]:
    """Yield batch registrations of all agents."""
    for first in range(0, agents, REGISTRATIONS_PER_CALL):
        numbers = range(first, min(first + REGISTRATIONS_PER_CALL, agents))
        body = _encode({"agents": [build(number) for number in numbers]})
        yield request("POST", "/agents/batch", body), _all_succeeded(len(numbers))


def batch_heartbeats(agents: int) -> Iterator[Exchange]:
    """Yield batch heartbeats of all agents, which make them healthy."""
    for first in range(0, agents, HEARTBEATS_PER_CALL):
        numbers = range(first, min(first + HEARTBEATS_PER_CALL, agents))
        body = _encode({"agent_ids": [agent_name(number) for number in numbers]})
        yield request("POST", "/heartbeats", body), _all_succeeded(len(numbers))


def _capability(capability: str, description: str) -> dict[str, Any]:
    return {
        "name": capability,
        "description": description,
        "version": "1.2.0",
        "tags": ["documents", "team"],
        "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    }


def _discovery(capability: str) -> Exchange:
    named = f'"name":"{capability}"'.encode()

    def found_ten(body: bytes) -> bool:
        return b'"count":10,' in body[-120:] and body.count(named) == 10

    return request("GET", f"/agents?capability={capability}"), found_ten


def _all_succeeded(expected: int) -> Check:
    def check(body: bytes) -> bool:
        return succeeded(body) and body.count(b'"status":"success"') == expected + 1

    return check


def _tool_succeeded(body: bytes) -> bool:
    return b'"structuredContent":{"status":"success"' in body


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
