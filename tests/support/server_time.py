"""The Redis server's time, and helpers that move times in Redis relative to it."""

from typing import Any

import redis


def server_time_ms(client: redis.Redis) -> int:
    """Return the server's time in milliseconds."""
    time: Any = client.time()
    return int(time[0]) * 1000 + int(time[1]) // 1000


def clear_outage(client: redis.Redis) -> None:
    """Record a probe now, and delete the last outage and clock rollback."""
    client.set("{mesh}:last_probe", server_time_ms(client))
    client.delete("{mesh}:outage", "{mesh}:clock_rollback")


def make_overdue(client: redis.Redis, *agent_ids: str, by_ms: int = 10) -> None:
    """Set the deadlines of these agents `by_ms` milliseconds into the past."""
    client.zadd("{mesh}:deadlines", dict.fromkeys(agent_ids, server_time_ms(client) - by_ms))
