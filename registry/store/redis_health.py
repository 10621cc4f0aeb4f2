"""The state of the Redis server: outages, self-preservation, mesh-wide counters and its configuration."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from redis.exceptions import ResponseError

from registry.store.keys import Keys
from registry.store.redis.access_guard import access_check
from registry.store.redis.errors import raise_for_error, refusal, unavailable_reason
from registry.store.redis.pipeline import Pipeline

_MIN_REDIS_VERSION = (7, 0)
_CONFIG_NAMES = ("maxmemory", "maxmemory-policy", "appendonly")

MESH = "*"
"""The name under which the whole mesh has self-preservation."""


class SelfPreservation(NamedTuple):
    """The latest period of self-preservation of a namespace: start, planned end, and actual end or None.

    It started because `overdue` of `healthy` agents missed their heartbeats within one window; `suspended` agents are
    overdue and keep their status. The namespace `*` is the whole mesh: then `overdue` of `healthy` namespaces were in
    self-preservation. Times are ms of the Redis server.
    """

    namespace: str
    since: int
    until: int
    ended: int | None
    overdue: int
    healthy: int
    suspended: int

    @classmethod
    def from_text(cls, text: bytes) -> Self:
        """Decode a period as lua/probe.lua returns it."""
        namespace, suspended, since, until, ended, _below_since, overdue, healthy = text.decode().split(" ")
        end = None if ended == "-" else int(ended)
        return cls(namespace, int(since), int(until), end, int(overdue), int(healthy), int(suspended))


class ProbeResult(NamedTuple):
    """The result of a probe of the Redis server; times are in ms of that server.

    `outage_start` and `outage_end` are those of the last outage, which starts with the last probe before it;
    `lag_start` and `lag_end` are those of the last outage of the replicas themselves, whose event loops were late.
    `overdue` agents are past their deadline; self-preservation suspends the transition of `suspended` ones of them.
    `grace_granted` counts deadlines that were extended because of an outage. While `repairing_clock_rollback`, the
    leader corrects times after Redis' clock was set back. `protected_namespaces` are in self-preservation;
    `self_preservation` has the period of the mesh if there is one, those of the latest of these namespaces, then the
    latest that has ended.
    """

    now: int
    outage_end: int | None = None
    outage_start: int | None = None
    repairing_clock_rollback: bool = False
    overdue: int = 0
    grace_granted: int = 0
    self_preservation_activations: int = 0
    suspended: int = 0
    protected_namespaces: int = 0
    self_preservation: tuple[SelfPreservation, ...] = ()
    lag_end: int | None = None
    lag_start: int | None = None

    @classmethod
    def from_reply(cls, reply: list[bytes]) -> Self:
        """Decode the reply of lua/probe.lua."""
        now, outage, lag, clock_rollback, *numbers = reply[1:10]
        overdue, grace_granted, activations, suspended, protected = map(int, numbers)
        end, _, start = outage.partition(b" ")
        lag_end, lag_start, _length = lag.split(b" ") if lag else (b"", b"", b"")
        return cls(
            now=int(now),
            outage_end=int(end) if end else None,
            outage_start=int(start) if start else None,
            repairing_clock_rollback=bool(clock_rollback),
            overdue=overdue,
            grace_granted=grace_granted,
            self_preservation_activations=activations,
            suspended=suspended,
            protected_namespaces=protected,
            self_preservation=tuple(map(SelfPreservation.from_text, reply[10:])),
            lag_end=int(lag_end) if lag_end else None,
            lag_start=int(lag_start) if lag_start else None,
        )

    @property
    def active_periods(self) -> tuple[SelfPreservation, ...]:
        """The periods of self-preservation that have not ended, at most one for the mesh and 20 for namespaces."""
        return tuple(period for period in self.self_preservation if period.ended is None)

    @property
    def is_mesh_protected(self) -> bool:
        """Whether the whole mesh is in self-preservation."""
        return any(period.namespace == MESH for period in self.active_periods)


@dataclass(frozen=True, slots=True)
class ConfigCheck:
    """Problems of a server's configuration: an unsupported version, and warnings."""

    unsupported_version: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def messages(self) -> tuple[str, ...]:
        """All problems of the configuration, the most severe first."""
        return (self.unsupported_version, *self.warnings) if self.unsupported_version else self.warnings


class ServerHealth:
    """Probes and checks the Redis server.

    `acks` is the number of replicas that writes wait for. `loop_lag` returns the seconds by which the event loop of
    this replica has been late so far.
    """

    def __init__(
        self, keys: Keys, pipeline: Pipeline, *, acks: int = 0, loop_lag: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._keys = keys
        self._pipeline = pipeline
        self._acks = acks
        self._checked_connection = -1
        self._loop_lag = loop_lag
        self._lag_at_probe = loop_lag()

    async def probe(self) -> ProbeResult:
        """Record in Redis that this replica reaches it; return outage, clock rollback and self-preservation state."""
        lag = self._loop_lag()
        lag_ms = round((lag - self._lag_at_probe) * 1000)
        call = self._pipeline.scripts["probe"].call(self._keys.shared, {"lag_ms": lag_ms})
        reply = await self._pipeline.call_script(call)
        self._lag_at_probe = lag
        return ProbeResult.from_reply(reply)

    async def totals(self) -> dict[str, int]:
        """Return the mesh-wide counters: heartbeats, registrations, unregistrations, degraded, expired, removed."""
        pairs = raise_for_error((await self._pipeline.execute([("HGETALL", self._keys.shared["counters"])]))[0])
        return {name.decode(): int(value) for name, value in zip(pairs[::2], pairs[1::2], strict=True)}

    @property
    def reconnected(self) -> bool:
        """Whether the connection may lead to another server than the one whose configuration was checked last."""
        return self._pipeline.connections_opened != self._checked_connection

    @property
    def refused_commands(self) -> tuple[str, ...]:
        """The commands that Redis refuses to this user and that the registry requires."""
        return self._pipeline.guard.refused

    async def check_config(self) -> ConfigCheck:
        """Return problems of version, eviction, persistence and replicas, with advice; also check `refused_commands`.

        Values that Redis does not let this user read are warnings, too. A simulated Redis has no problems.
        """
        if self._pipeline.simulated:
            return ConfigCheck()
        used_keys = [*self._keys.shared.values(), self._keys.agent("a"), self._keys.resolutions("a")]
        commands = access_check(self._keys.key("access_check"), used_keys, acks=self._acks)
        info, config, *replies = await self._pipeline.execute([("INFO",), ("CONFIG", "GET", *_CONFIG_NAMES), *commands])
        self._checked_connection = self._pipeline.connections_opened
        values = {**_config_values(config), **_info_values(info)}
        self._pipeline.guard.replace({name for name in map(refusal, replies) if name})
        warnings = [*_unknown_config(info, config), *_config_warnings(values, self._acks)]
        return ConfigCheck(_unsupported_version(values), tuple(warnings))


def _info_values(reply: Any) -> dict[str, str]:
    """Return the values of INFO, none if Redis refuses it."""
    if _is_refused(reply):
        return {}
    return dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)


def _config_values(reply: Any) -> dict[str, str]:
    """Return the values of CONFIG GET under their names in INFO, none if Redis refuses it."""
    if _is_refused(reply):
        return {}
    texts = [text.decode() for text in reply]
    values = dict(zip(texts[::2], texts[1::2], strict=True))
    policy, memory = values.get("maxmemory-policy"), values.get("maxmemory")
    append_only = {"yes": "1", "no": "0"}.get(values.get("appendonly", ""))
    found = {"maxmemory_policy": policy, "maxmemory": memory, "aof_enabled": append_only}
    return {name: value for name, value in found.items() if value is not None}


def _is_refused(reply: Any) -> bool:
    """Return whether Redis refused INFO or CONFIG; raise another error, such as that of a loading server."""
    if isinstance(reply, ResponseError) and unavailable_reason(reply) in {None, "auth"}:
        return True
    raise_for_error(reply)
    return False


def _unknown_config(info: Any, config: Any) -> Iterator[str]:
    if not isinstance(info, ResponseError):
        return
    if isinstance(config, ResponseError):
        yield "Persistence, eviction and version of Redis are unknown: it refuses INFO and CONFIG GET; permit INFO"
    else:
        yield "Version, replicas and failed disk writes of Redis are unknown: it refuses INFO; permit INFO"


def _unsupported_version(info: dict[str, str]) -> str | None:
    version = info.get("valkey_version") or info.get("redis_version", "")
    if not version or tuple(int(part) for part in version.split(".")[:2]) >= _MIN_REDIS_VERSION:
        return None
    return f"Redis {version} is too old for `#!lua` scripts; run Redis or Valkey 7.0 or later"


def _config_warnings(info: dict[str, str], acks: int) -> Iterator[str]:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and info.get("maxmemory", "1") != "0":
        yield (
            f"maxmemory-policy is {policy}: Redis deletes agents and versions when memory is full; "
            "set maxmemory-policy noeviction"
        )
    if info.get("aof_enabled", "1") == "0":
        yield (
            "appendonly is off: a restart of Redis loses acknowledged registrations; "
            "set appendonly yes and appendfsync always"
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        yield "Redis cannot write its append-only file and rejects writes; free disk space"
    replicas = int(info.get("connected_slaves", acks))
    if replicas < acks:
        yield (
            f"{replicas} Redis replicas are connected, REGISTRY_WRITE_ACKS requires {acks}: every write fails; "
            "restore the replicas or lower REGISTRY_WRITE_ACKS"
        )
