"""What the store says of itself: its pulse, its totals, and whether it is set up to keep what it acknowledged."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

from redis.exceptions import ResponseError

from registry.store.keys import Keys
from registry.store.redis.errors import raise_for_error, unavailable_reason
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import load_scripts

_MIN_REDIS_VERSION = (7, 0)


class SelfPreservation(NamedTuple):
    """A hold that is on or was lately: server ms since and until when, and when it ended, None while it is on.

    It began when `overdue` of `healthy` agents had fallen silent within one window.
    """

    since: int
    until: int
    ended: int | None
    overdue: int
    healthy: int


class ProbeResult(NamedTuple):
    """What a pulse sees, in server ms: the last outage (its end, the pulse before it), and what it and a hold do.

    `overdue` agents are past their deadline; `grace_granted` times an agent got time because of an outage, and
    `self_preservation_activations` times
    so many fell silent that they were held. While `repairing_clock_rollback`, the leader sets times right: Redis' clock
    went back.
    """

    now: int
    outage_end: int | None
    outage_start: int | None
    repairing_clock_rollback: bool
    overdue: int
    grace_granted: int
    self_preservation_activations: int
    self_preservation: SelfPreservation | None

    @classmethod
    def from_reply(cls, reply: list[bytes]) -> Self:
        """Read the reply of lua/probe.lua."""
        now, outage, rewind, overdue, graced, holds, *fields = reply[1:]
        end, _, start = outage.partition(b" ")
        since, until, ended, silent, healthy = (int(field) if field else None for field in fields)
        hold = None
        if since is not None and until is not None:
            hold = SelfPreservation(since, until, ended, silent or 0, healthy or 0)
        return cls(
            now=int(now),
            outage_end=int(end) if end else None,
            outage_start=int(start) if start else None,
            repairing_clock_rollback=bool(rewind),
            overdue=int(overdue),
            grace_granted=int(graced),
            self_preservation_activations=int(holds),
            self_preservation=hold,
        )


@dataclass(frozen=True, slots=True)
class ConfigCheck:
    """What is wrong with a server: why it cannot be used at all, if so, and what to worry about."""

    unsupported_version: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def messages(self) -> tuple[str, ...]:
        """Everything, the worst first."""
        return (self.unsupported_version, *self.warnings) if self.unsupported_version else self.warnings


class ServerHealth:
    """Reads and notes over a link of its own. `acks` is how many replicas every write waits for."""

    def __init__(self, keys: Keys, pipeline: Pipeline, *, shebang: bool = True, acks: int = 0) -> None:
        self._keys = keys
        self._pipeline = pipeline
        self._acks = acks
        self._checked_connection = -1
        self._probe = load_scripts(shebang=shebang)["probe"]

    async def probe(self) -> ProbeResult:
        """Note that Redis is reachable for this replica, and see how the sweep fares."""
        return ProbeResult.from_reply(
            raise_for_error((await self._pipeline.call_scripts([self._probe.call(self._keys.shared, {})]))[0])
        )

    async def totals(self) -> dict[str, int]:
        """Return the mesh-wide counters: heartbeats, registrations, unregistrations, degraded, expired, removed."""
        flat = raise_for_error((await self._pipeline.execute([("HGETALL", self._keys.counters)]))[0])
        return {name.decode(): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}

    @property
    def reconnected(self) -> bool:
        """Whether another server may stand behind the connection than the one that was examined last."""
        return self._pipeline.connections_opened != self._checked_connection

    async def check_config(self) -> ConfigCheck:
        """Return what is wrong with the server's version, eviction policy, persistence and replicas, and what to do.

        A server that has no INFO, or does not let us ask, is not judged.
        """
        (reply,) = await self._pipeline.execute([("INFO",)])
        self._checked_connection = self._pipeline.connections_opened
        if isinstance(reply, ResponseError):
            if unavailable_reason(reply) not in {None, "auth"}:
                raise raise_for_error(reply)
            return ConfigCheck()
        info = dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
        return ConfigCheck(_unsupported_version(info), tuple(_config_warnings(info, self._acks)))


def _unsupported_version(info: dict[str, str]) -> str | None:
    version = info.get("valkey_version") or info.get("redis_version", "")
    if not version or tuple(int(part) for part in version.split(".")[:2]) >= _MIN_REDIS_VERSION:
        return None
    return f"Redis {version} is too old for `#!lua` scripts; run Redis or Valkey 7.0 or later"


def _config_warnings(info: dict[str, str], acks: int) -> Iterator[str]:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and info.get("maxmemory", "1") != "0":
        yield (
            f"maxmemory-policy is {policy}: Redis, once full, silently deletes agents and versions; "
            "set maxmemory-policy noeviction"
        )
    if info.get("aof_enabled", "1") == "0":
        yield (
            "appendonly is off: a restart of Redis loses acknowledged registrations; "
            "set appendonly yes and appendfsync always"
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        yield "Redis cannot write its append-only file, so it takes no writes; free space on its disk"
    replicas = int(info.get("connected_slaves", acks))
    if replicas < acks:
        yield (
            f"{replicas} replicas of Redis are connected, REGISTRY_WRITE_ACKS waits for {acks}: every write fails; "
            "bring replicas back, or lower it"
        )
