"""The three hosts of Redis as the chart brings them up: its own script, on three loopback addresses of this machine."""

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

# The script asks with redis-cli, which is beside the server in an image and not in the wheel of ours.
_REDIS_CLI_PROGRAM = """#!{python}
import os, sys, redis
words = [word for word in sys.argv[1:] if word != "--raw"]
asked = redis.Redis(host=words[1], port=int(words[3]), password=os.environ["REDISCLI_AUTH"], decode_responses=True)
try:
    answer = asked.execute_command(*words[4:])
except redis.ResponseError as error:
    answer = error
if answer is not None:
    print(*(answer if isinstance(answer, (list, tuple)) else ["PONG" if answer is True else answer]), sep="\\n")
"""


class RedisHost:
    """One pod: a Redis and a Sentinel on an address of their own, and the volume they keep."""

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
        """Start both containers of the pod; neither waits for the other."""
        for container in self._containers:
            container.env["PASSWORD"] = self.password
            container.start()

    def kill(self) -> None:
        """End both as the loss of a node would; the volume stays."""
        for container in self._containers:
            container.kill()

    def lose_volume(self) -> None:
        """Give it a new, empty one."""
        shutil.rmtree(self.volume)
        self.volume.mkdir()

    def execute(self, *words: str, port: int = 6379) -> object:
        """Return what one of the two answers; None where nobody does."""
        with self._client(port) as client, contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            answer: object = client.execute_command(*words)
            return answer
        return None

    def _client(self, port: int = 6379) -> redis.Redis:
        once = Retry(NoBackoff(), 0)
        return redis.Redis(
            self.address, port, password=self.password, decode_responses=True, socket_timeout=10, retry=once
        )

    @property
    def replication_source(self) -> str | None:
        """Whose data it has or is about to: an address, `nobody` for a primary, None while it does not answer."""
        role = self.execute("ROLE")
        if not isinstance(role, list):
            return None
        if role[0] == "master":
            return "nobody"
        return str(role[1]) if role[3] == "connected" else "nobody yet"

    @property
    def log(self) -> str:
        """What both have said."""
        return "\n".join(container.output for container in self._containers)


class RedisHosts:
    """Three of them, on addresses nobody else has; as a context manager it starts and stops them."""

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
        """The registry's way in, as the manifests have it."""
        nodes = ",".join(host.address for host in self.all)
        password = self.all[0].password
        return f"redis+sentinel://:{password}@{nodes}/mesh?sentinel_password={password}"

    def is_settled(self, leader: RedisHost) -> bool:
        """Tell whether this host leads, both others follow it, and all Sentinels know all of that."""
        others = [host for host in self.all if host is not leader]
        return (
            leader.replication_source == "nobody"
            and all(host.replication_source == leader.address for host in others)
            and all(_sentinel_sees_leader(host, leader) for host in self.all)
        )

    def wait_for_leader(self, *leaders: RedisHost) -> RedisHost:
        """Return which of these leads, once all has settled."""
        found: list[RedisHost] = []

        def settled() -> bool:
            found[:] = [host for host in leaders if self.is_settled(host)]
            return bool(found)

        wait_until(settled, description="one host leads and the others follow", timeout=45)
        return found[0]


def _sentinel_sees_leader(sentinel: RedisHost, leader: RedisHost) -> bool:
    told = sentinel.execute("SENTINEL", "MASTER", "mesh", port=26379)
    if isinstance(told, list):
        told = dict(zip(told[::2], told[1::2], strict=True))
    return isinstance(told, dict) and (
        str(told["ip"]),
        int(told["num-slaves"]),
        int(told["num-other-sentinels"]),
    ) == (leader.address, 2, 2)
