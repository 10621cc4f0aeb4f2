"""The Redis server's time in tests, and what was or was not before now by it."""

from typing import Any

import redis


def server_time_ms(client: redis.Redis) -> int:
    """Return the server's time in milliseconds."""
    time: Any = client.time()
    return int(time[0]) * 1000 + int(time[1]) // 1000


def clear_outage(client: redis.Redis) -> None:
    """Let Redis have been pulsed just now, and let there have been no outage before."""
    client.set("{mesh}:last_probe", server_time_ms(client))
    client.delete("{mesh}:outage", "{mesh}:clock_rollback")


def make_overdue(client: redis.Redis, *agent_ids: str, by_ms: int = 10) -> None:
    """Let the deadlines of these agents have passed so many milliseconds ago."""
    client.zadd("{mesh}:deadlines", dict.fromkeys(agent_ids, server_time_ms(client) - by_ms))
