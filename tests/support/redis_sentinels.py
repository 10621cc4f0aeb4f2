"""A primary, a replica and three Sentinels: real processes, which can be killed and frozen."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from tests.support.machine_speed import scaled
from tests.support.polling import wait_until
from tests.support.redis_server import RedisServer

DOWN_AFTER_S = scaled(1)
SERVICE_NAME = "mesh-store"


class SentinelServer(RedisServer):
    """One Sentinel of a primary on this machine, with a quorum of two."""

    def __init__(self, primary: RedisServer) -> None:
        super().__init__(tcp=True)
        self._lines = [
            *(f"port {self.port}", "bind 127.0.0.1", f"dir {self.data_dir}"),
            f"sentinel monitor {SERVICE_NAME} 127.0.0.1 {primary.port} 2",
            f"sentinel down-after-milliseconds {SERVICE_NAME} {DOWN_AFTER_S * 1000:.0f}",
            f"sentinel failover-timeout {SERVICE_NAME} 6000",
        ]

    def command_line(self) -> Sequence[str | Path]:
        """Return the path of the configuration, in which Sentinel stores its state; write it at the first start."""
        config = self.data_dir / "sentinel.conf"
        if not config.exists():
            config.write_text("\n".join(self._lines) + "\n", encoding="utf-8")
        return [config, "--sentinel"]


class SentinelGroup:
    """The primary, its replica and the Sentinels; ready when all are connected and the replica is in sync.

    `arguments` are options of both servers. `url` is the REDIS_URL.
    """

    def __init__(self, *arguments: str) -> None:
        self.primary = RedisServer(*arguments, tcp=True)
        follow = ("--replicaof", "127.0.0.1", str(self.primary.port), "--repl-diskless-sync-delay", "0")
        self.replica = RedisServer(*follow, *arguments, tcp=True)
        self.sentinels = [SentinelServer(self.primary) for _ in range(3)]

    @property
    def url(self) -> str:
        """REDIS_URL with all three Sentinels."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{SERVICE_NAME}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for each in (self.primary, self.replica, *self.sentinels):
                stack.enter_context(each)
            wait_until(self._is_connected, description="the Sentinels are connected")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _is_connected(self) -> bool:
        states = [primary_state(sentinel) for sentinel in self.sentinels]
        with redis.Redis.from_url(self.replica.url) as client:
            synced = client.info("replication")["master_link_status"] == "up"
        return synced and all(
            (state["num-slaves"], state["num-other-sentinels"]) == (1, 2) and state["flags"] == "master"
            for state in states
        )


def primary_state(sentinel: RedisServer) -> dict[str, int | str]:
    """Return the state of the primary according to a Sentinel."""
    with redis.Redis.from_url(sentinel.url, decode_responses=True) as client:
        reply = client.execute_command("SENTINEL", "MASTER", SERVICE_NAME)
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
        return {str(name): int(value) if str(value).isdigit() else str(value) for name, value in pairs}
