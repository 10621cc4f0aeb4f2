"""A private, real server for tests: to be paused, killed and started again at will."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from registry.store.binary import find_server
from tests.support.eventually import wait_until
from tests.support.ports import BUS_OFFSET, free_port

# The server takes the place of the shell, so that its process id is the one we got. The shell in the
# background kills the group when our end of the pipe closes: tests that crash leave no server behind.
GUARD = 'exec 3<&0 </dev/null; { read -r _; kill -KILL 0; } <&3 & exec "$@" 3<&-'


class RedisServer:
    """One server with its own data directory, on a unix socket or (`tcp=True`) on a free loopback port.

    `arguments` are the server's own and come last, e.g. `"--appendonly", "yes"`; by default nothing is kept
    on disk. `environ` adds to its environment. `url` is redis-py's; of `port` and `socket_path` one is None.
    Address and data directory stay the same over `kill()` and `restart()`, until `stop()`. As a context manager
    it starts and stops.
    """

    def __init__(self, *arguments: str, tcp: bool = False) -> None:
        self.arguments = arguments
        self.environ: dict[str, str] = {}
        self.data_dir = Path(tempfile.mkdtemp(prefix="mesh-test-", dir="/tmp"))  # short enough for a socket
        self.port = free_port() if tcp else None
        self.socket_path = None if tcp else self.data_dir / "redis.sock"
        self.url = f"redis://127.0.0.1:{self.port}/0" if tcp else f"unix://{self.socket_path}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's process id; AssertionError when it does not run."""
        return self._running().pid

    @property
    def bus_port(self) -> int:
        """The port of a cluster node for the others; AssertionError when it listens on a unix socket."""
        assert self.port is not None, "the server does not listen on TCP"
        return self.port + BUS_OFFSET

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            AssertionError: no server to run was found, it runs already, or it did not come up within 5 s;
                with the log of the server.
        """
        binary = find_server()
        assert binary is not None, "no server found; install the extra 'embedded'"
        assert self._process is None, "the server runs already"
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "mesh-test", str(binary.path), *self.command_line()],
            env=os.environ | self.environ,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            wait_until(self._answers, description="the server answers")
        except AssertionError as error:
            log = self.data_dir / "server.log"
            words = log.read_text() if log.exists() else "(it wrote no log)"
            self.stop()
            raise AssertionError(f"{error}\n{words}") from error

    def command_line(self) -> list[str]:
        """Return what stands behind the server's name when it is started."""
        listening = ["--port", str(self.port or 0), "--bind", "127.0.0.1"]
        if self.socket_path is not None:
            listening += ["--unixsocket", str(self.socket_path)]
        return [
            *(*listening, "--dir", str(self.data_dir), "--logfile", str(self.data_dir / "server.log")),
            *("--daemonize", "no", "--appendonly", "no", "--save", "", *self.arguments),
        ]

    def pause(self) -> None:
        """Freeze the server: connections stay open, nothing is answered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._running().send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the server as a crash would; return when it is gone. The data directory stays."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start the server anew on the same address and data, after a clean end if it still runs."""
        if self._process is not None:
            self.resume()
            self._end(signal.SIGTERM)
        self.start()

    def stop(self) -> None:
        """End the server if it runs, and remove its data directory."""
        if self._process is not None:
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

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server does not run"
        return self._process

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=2, retry=Retry(NoBackoff(), 0))

    def _answers(self) -> bool:
        process = self._running()
        assert process.poll() is None, f"the server ended with status {process.returncode}"
        try:
            with self._client() as client:
                # Not only PING: on a TCP port that was just lost to another server, that one would answer.
                return bool(client.info("server")["process_id"] == process.pid)
        except redis.RedisError:
            return False

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._running(), None
        process.send_signal(how)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _cluster_is_up(client: redis.Redis) -> bool:
    return bool(client.cluster("INFO")["cluster_state"] == "ok")
