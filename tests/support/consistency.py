"""Consistency check of a mesh's keys in Redis, which runs after every test."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import redis

from registry.store.keys import Keys


def find_inconsistencies(client: redis.Redis, mesh: str = "mesh") -> list[str]:
    """Return a message for each inconsistency; `client` must not decode replies.

    Only known keys exist, and stored resolutions have a TTL. Each agent has a hash and a deadline. Only agents have
    heartbeats, and only agents with a heartbeat that are not healthy are in `unhealthy_since`. Suspended agents have no
    other deadline; `missing` has the agents of both by namespace. The counts of healthy agents and of required edges
    match the agents. The log is contiguous and ends at the current version.
    """
    keys = Keys(mesh)
    return [
        *_stray_keys(client, keys, mesh),
        *_miscounted_edges(client, keys),
        *_miscounted_namespaces(client, keys),
        *_broken_log(client, keys),
    ]


def _stray_keys(client: redis.Redis, keys: Keys, mesh: str) -> Iterator[str]:
    prefix, resolutions = f"{{{mesh}}}:agent:".encode(), f"{{{mesh}}}:resolutions:".encode()
    found: set[Any] = set(client.scan_iter(count=1000))
    hashes = {key.removeprefix(prefix) for key in found if key.startswith(prefix)}
    suspended: set[Any] = set(client.zrange(keys.shared["suspended"], 0, -1))
    deadlines: set[Any] = set(client.zrange(keys.deadlines, 0, -1))
    if suspended & deadlines:
        yield f"suspended agents with a deadline: {sorted(suspended & deadlines)}"
    deadlines |= suspended
    heartbeats: set[Any] = set(client.zrange(keys.heartbeats, 0, -1))
    unhealthy: set[Any] = set(client.zrange(keys.shared["unhealthy_since"], 0, -1))
    strays = {key for key in found if not key.startswith((prefix, resolutions))}
    strays -= {*keys.shared.values(), keys.key("jobs_paused")}
    if strays:
        yield f"unknown keys: {sorted(strays)}"
    without_ttl = [key for key in found if key.startswith(resolutions) and client.pttl(key) < 0]
    if without_ttl:
        yield f"resolutions without a TTL: {sorted(without_ttl)}"
    if hashes - deadlines:
        yield f"agents without a deadline: {sorted(hashes - deadlines)}"
    if deadlines - hashes:
        yield f"deadlines without an agent: {sorted(deadlines - hashes)}"
    if heartbeats - hashes:
        yield f"heartbeats without an agent: {sorted(heartbeats - hashes)}"
    if unhealthy - heartbeats:
        yield f"unhealthy agents without a heartbeat: {sorted(unhealthy - heartbeats)}"
    if wrong := {
        name for name in unhealthy & hashes if client.hget(prefix + name, "status") in (b"healthy", b"pending")
    }:
        yield f"healthy or pending agents in unhealthy_since: {sorted(wrong)}"


def _miscounted_edges(client: redis.Redis, keys: Keys) -> Iterator[str]:
    counted: dict[Any, Any] = client.hgetall(keys.required_edges)
    counted.pop(b"revision", None)
    actual: Counter[bytes] = Counter()
    for key in client.scan_iter(match=keys.agent("*"), count=1000):
        edges: Any = client.hget(key, "required_edges") or b""
        actual.update(edges.split(b"\n") if edges else ())
    expected = {edge: int(count) for edge, count in counted.items()}
    if expected != actual:
        yield f"required edges are counted as {expected}, and agents have {dict(actual)}"


def _miscounted_namespaces(client: Any, keys: Keys) -> Iterator[str]:
    healthy: Counter[bytes] = Counter()
    agents: dict[bytes, tuple[bytes, bytes]] = {}
    for key in client.scan_iter(match=keys.agent("*"), count=1000):
        status, namespace = client.hmget(key, "status", "namespace")
        agents[key.removeprefix(keys.agent(""))] = status or b"", namespace or b"?"
        healthy[namespace or b"?"] += status == b"healthy"
    scores = client.zrange(keys.shared["healthy_by_namespace"], 0, -1, withscores=True)
    counted = {name: int(score) for name, score in scores}
    if counted != +healthy:
        yield f"healthy agents are counted as {counted}, and there are {dict(+healthy)}"
    expected = {
        b"unhealthy %s %015d %s" % (agents.get(name, (b"", b"?"))[1], int(since), name)
        for name, since in client.zrange(keys.shared["unhealthy_since"], 0, -1, withscores=True)
    }
    for name in client.zrange(keys.shared["suspended"], 0, -1):
        status, namespace = agents.get(name, (b"", b"?"))
        expected.add(b"suspended %s %015d %s" % (namespace, status == b"healthy", name))
    missing = set(client.zrange(keys.shared["missing"], 0, -1))
    if missing != expected:
        yield f"agents that miss heartbeats are {sorted(missing)}, expected {sorted(expected)}"


def _broken_log(client: redis.Redis, keys: Keys) -> Iterator[str]:
    entries: list[Any] = client.xrange(keys.log) or []
    last = b""
    for entry_id, fields in entries:
        version = entry_id.removesuffix(b"-0")
        if last and fields[b"prev"] != last:
            yield f"log entry {version!r} has prev {fields[b'prev']!r}, but the entry before it is {last!r}"
        last = version
    version_now = client.get(keys.version) or b""
    if version_now != last:
        yield f"the version is {version_now!r}, the log ends at {last!r}"
