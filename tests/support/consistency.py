"""What must hold of a mesh's keys after every test, whatever the test did."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import redis

from registry.store.keys import Keys


def find_inconsistencies(client: redis.Redis, mesh: str = "mesh") -> list[str]:
    """Return a sentence for each thing that is wrong; `client` must not decode what it reads.

    No key but the mesh's own, its agents' and their traces, which end by themselves; an agent is exactly who has a hash
    and a deadline, only an agent has a heartbeat, and only one that was heard can be silent; what agents cannot do
    without is counted right; the log is one unbroken chain that ends at the version.
    """
    keys = Keys(mesh)
    return [*_stray_keys(client, keys, mesh), *_miscounted_edges(client, keys), *_broken_log(client, keys)]


def _stray_keys(client: redis.Redis, keys: Keys, mesh: str) -> Iterator[str]:
    prefix, traces = f"{{{mesh}}}:agent:".encode(), f"{{{mesh}}}:resolutions:".encode()
    found: set[Any] = set(client.scan_iter(count=1000))
    hashes = {key.removeprefix(prefix) for key in found if key.startswith(prefix)}
    deadlines: set[Any] = set(client.zrange(keys.deadlines, 0, -1))
    heartbeats: set[Any] = set(client.zrange(keys.heartbeats, 0, -1))
    silent: set[Any] = set(client.zrange(keys.shared["unhealthy_since"], 0, -1))
    strays = {key for key in found if not key.startswith((prefix, traces))}
    strays -= {*keys.shared.values(), keys.key("jobs_paused")}
    if strays:
        yield f"keys that no code should write: {sorted(strays)}"
    lasting = [key for key in found if key.startswith(traces) and client.pttl(key) < 0]
    if lasting:
        yield f"traces that would stay for ever: {sorted(lasting)}"
    if hashes - deadlines:
        yield f"agents without a deadline, which no sweep would ever find: {sorted(hashes - deadlines)}"
    if deadlines - hashes:
        yield f"deadlines without an agent: {sorted(deadlines - hashes)}"
    if heartbeats - hashes:
        yield f"heartbeats without an agent: {sorted(heartbeats - hashes)}"
    if silent - heartbeats:
        yield f"silent agents that were never heard: {sorted(silent - heartbeats)}"
    if awake := {name for name in silent & hashes if client.hget(prefix + name, "status") in (b"healthy", b"pending")}:
        yield f"silent agents that are not: {sorted(awake)}"


def _miscounted_edges(client: redis.Redis, keys: Keys) -> Iterator[str]:
    counted: dict[Any, Any] = client.hgetall(keys.required_edges)
    counted.pop(b"revision", None)
    held: Counter[bytes] = Counter()
    for key in client.scan_iter(match=keys.agent("*"), count=1000):
        edges: Any = client.hget(key, "required_edges") or b""
        held.update(edges.split(b"\n") if edges else ())
    told = {edge: int(count) for edge, count in counted.items()}
    if told != held:
        yield f"required dependencies are counted as {told}, and agents have {dict(held)}"


def _broken_log(client: redis.Redis, keys: Keys) -> Iterator[str]:
    entries: list[Any] = client.xrange(keys.log) or []
    last = b""
    for entry_id, fields in entries:
        version = entry_id.removesuffix(b"-0")
        if last and fields[b"prev"] != last:
            yield f"log entry {version!r} follows {fields[b'prev']!r}, but before it stands {last!r}"
        last = version
    version_now = client.get(keys.version) or b""
    if version_now != last:
        yield f"the version is {version_now!r}, the log ends at {last!r}"
