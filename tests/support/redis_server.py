"""A private, real server for tests: to be paused, killed and started again at will."""

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
from tests.support.polling import wait_until
from tests.support.ports import BUS_OFFSET, free_port


class RedisServer(ChildProcess):
    """One server with its own data directory, on a unix socket or (`tcp=True`) on a free loopback port.

    `arguments` are the server's own and come last, e.g. `"--appendonly", "yes"`; by default nothing is kept
    on disk. `url` is redis-py's; of `port` and `socket_path` one is None.
    Address and data directory stay the same over `kill()` and `restart()`, until `stop()`. As a context manager
    it starts and stops.
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
        """The port of a cluster node for the others; AssertionError when it listens on a unix socket."""
        assert self.port is not None, "the server does not listen on TCP"
        return self.port + BUS_OFFSET

    def command_line(self) -> Sequence[str | Path]:
        """Return where it listens and what it keeps, then the server's own arguments."""
        listening = ["--port", str(self.port or 0), "--bind", "127.0.0.1"]
        if self.socket_path is not None:
            listening += ["--unixsocket", str(self.socket_path)]
        return [
            *(*listening, "--dir", self.data_dir, "--appendonly", "no", "--save", "", *self.arguments),
        ]

    def is_ready(self) -> bool:
        """Tell whether it takes commands."""
        try:
            with self._client() as client:
                # Not only PING: on a TCP port that was just lost to another server, that one would answer.
                return bool(client.info("server")["process_id"] == self.pid)
        except redis.RedisError:
            return False

    def restart(self) -> None:
        """Start the server anew on the same address and data, after a clean end if it still runs."""
        if self.is_running:
            self.resume()
            self.wait_for_exit(signal.SIGTERM)
        self.start()

    def stop(self) -> None:
        """End the server if it runs, and remove its data directory."""
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def make_single_node_cluster(self) -> None:
        """Give all 16,384 slots to this server; return when the cluster is up.

        It must run with `"--cluster-enabled", "yes"` and `tcp=True`. Takes 2 s, for which every new master
        refuses commands; so does one that was restarted.
        """
        with self._client() as client:
            # A node that never met another does not know its own address, and clients are sent nowhere.
            client.config_set("cluster-announce-ip", "127.0.0.1")
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: _cluster_is_up(client), description="cluster_state is ok")

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=2, retry=Retry(NoBackoff(), 0))


def _cluster_is_up(client: redis.Redis) -> bool:
    return bool(client.cluster("INFO")["cluster_state"] == "ok")
