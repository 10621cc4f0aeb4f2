"""A primary, a replica and three Sentinels that watch over them: real processes, to be killed and frozen."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from tests.support.polling import wait_until
from tests.support.redis_server import RedisServer

DOWN_AFTER_S = 1.0
SERVICE_NAME = "mesh-store"


class SentinelServer(RedisServer):
    """One Sentinel, which watches a primary on this machine; two must agree that it is gone."""

    def __init__(self, primary: RedisServer) -> None:
        super().__init__(tcp=True)
        self._lines = [
            *(f"port {self.port}", "bind 127.0.0.1", f"dir {self.data_dir}"),
            f"sentinel monitor {SERVICE_NAME} 127.0.0.1 {primary.port} 2",
            f"sentinel down-after-milliseconds {SERVICE_NAME} {DOWN_AFTER_S * 1000:.0f}",
            f"sentinel failover-timeout {SERVICE_NAME} 6000",
        ]

    def command_line(self) -> Sequence[str | Path]:
        """Return the file that Sentinel reads, and keeps its state in over a restart."""
        config = self.data_dir / "sentinel.conf"
        if not config.exists():
            config.write_text("\n".join(self._lines) + "\n", encoding="utf-8")
        return [config, "--sentinel"]


class SentinelGroup:
    """The primary, its replica and the Sentinels; ready when all know of each other and the replica has caught up.

    `arguments` are those of both servers. `url` is the registry's way in.
    """

    def __init__(self, *arguments: str) -> None:
        self.primary = RedisServer(*arguments, tcp=True)
        follow = ("--replicaof", "127.0.0.1", str(self.primary.port), "--repl-diskless-sync-delay", "0")
        self.replica = RedisServer(*follow, *arguments, tcp=True)
        self.sentinels = [SentinelServer(self.primary) for _ in range(3)]

    @property
    def url(self) -> str:
        """All three Sentinels."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{SERVICE_NAME}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for each in (self.primary, self.replica, *self.sentinels):
                stack.enter_context(each)
            wait_until(self._know_each_other, description="the Sentinels know each other", timeout=20)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _know_each_other(self) -> bool:
        known = [primary_state(each) for each in self.sentinels]
        with redis.Redis.from_url(self.replica.url) as client:
            synced = client.info("replication")["master_link_status"] == "up"
        return synced and all(
            (facts["num-slaves"], facts["num-other-sentinels"]) == (1, 2) and facts["flags"] == "master"
            for facts in known
        )


def primary_state(sentinel: RedisServer) -> dict[str, int | str]:
    """Return what a Sentinel says of the primary."""
    with redis.Redis.from_url(sentinel.url, decode_responses=True) as client:
        flat = client.execute_command("SENTINEL", "MASTER", SERVICE_NAME)
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        return {str(name): int(value) if str(value).isdigit() else str(value) for name, value in pairs}
