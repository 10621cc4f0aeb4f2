"""A real Redis server for one test, which can be paused, killed and restarted."""

import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from registry.store.embedded.binary import find_server_binary
from tests.support.child_process import ChildProcess
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import wait_until
from tests.support.ports import BUS_OFFSET, free_port


class RedisServer(ChildProcess):
    """One server with its own data directory, on a unix socket or (`tcp=True`) on a free loopback port.

    `arguments` are options of the server, such as `"--appendonly", "yes"`; by default it writes nothing to disk.
    `url` is for redis-py; either `port` or `socket_path` is None. Address and data directory stay the same after
    `kill()` and `restart()`, until `stop()`. As a context manager it starts and stops.
    """

    def __init__(self, *arguments: str, tcp: bool = False) -> None:
        binary = find_server_binary()
        assert binary is not None, "no server found; install the extra 'embedded'"
        super().__init__(binary.path, *arguments)
        self.data_dir = Path(tempfile.mkdtemp(prefix="mesh-test-", dir="/tmp"))  # short enough for a socket
        self.port = free_port() if tcp else None
        self.socket_path = None if tcp else self.data_dir / "redis.sock"
        self.url = f"redis://127.0.0.1:{self.port}/0" if tcp else f"unix://{self.socket_path}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bus_port(self) -> int:
        """The cluster bus port. Raises AssertionError on a unix socket."""
        assert self.port is not None, "the server does not listen on TCP"
        return self.port + BUS_OFFSET

    def command_line(self) -> Sequence[str | Path]:
        """Return the options for address and persistence, then `arguments`."""
        listening = ["--port", str(self.port or 0), "--bind", "127.0.0.1"]
        if self.socket_path is not None:
            listening += ["--unixsocket", str(self.socket_path)]
        return [
            *(*listening, "--dir", self.data_dir, "--appendonly", "no", "--save", "", *self.arguments),
        ]

    def is_ready(self) -> bool:
        """Return whether the server accepts commands."""
        try:
            with self._client() as client:
                # Not only PING: if another server took the TCP port, that one would respond.
                return bool(client.info("server")["process_id"] == self.pid)
        except redis.RedisError:
            return False

    def restart(self) -> None:
        """Restart the server with the same address and data; stop it first if it runs."""
        if self.is_running:
            self.resume()
            self.wait_for_exit(signal.SIGTERM)
        self.start()

    def stop(self) -> None:
        """Kill the server if it runs, and remove its data directory."""
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def make_single_node_cluster(self) -> None:
        """Assign all 16,384 slots to this server; return when the cluster is up.

        Requires `"--cluster-enabled", "yes"` and `tcp=True`. Takes 2 s, during which every new or restarted master
        rejects commands.
        """
        with self._client() as client:
            # A node that was never connected to another has no address of its own to return to clients.
            client.config_set("cluster-announce-ip", "127.0.0.1")
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: _cluster_is_up(client), description="cluster_state is ok")

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=REQUEST_TIMEOUT_S, retry=Retry(NoBackoff(), 0))


def _cluster_is_up(client: redis.Redis) -> bool:
    return bool(client.cluster("INFO")["cluster_state"] == "ok")
