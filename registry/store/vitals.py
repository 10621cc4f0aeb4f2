"""What the store says of itself: its pulse, its totals, and whether it is set up to keep what it acknowledged."""

from redis.exceptions import ResponseError

from registry.store.keys import Keys
from registry.store.link import Link, checked
from registry.store.scripts import load_scripts

_OLDEST = (7, 0)


class Vitals:
    """Reads and notes over a link of its own."""

    def __init__(self, keys: Keys, link: Link, *, shebang: bool = True) -> None:
        self._keys = keys
        self._link = link
        self._pulse = load_scripts(shebang=shebang)["pulse"]

    async def pulse(self) -> None:
        """Note that Redis is reachable for this replica."""
        checked((await self._link.run([self._pulse.call(self._keys.shared, {})]))[0])

    async def totals(self) -> dict[str, int]:
        """Return the mesh-wide counters: heartbeats, registrations, unregistrations, degraded, expired, removed."""
        flat = checked((await self._link.exchange([("HGETALL", self._keys.counters)]))[0])
        return {name.decode(): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}

    async def warnings(self) -> tuple[str, ...]:
        """Return what is wrong with the server's version, eviction policy and persistence, and what to do about it.

        A server that has no INFO, or does not let us ask, is not judged.
        """
        (reply,) = await self._link.exchange([("INFO",)])
        if isinstance(reply, ResponseError):
            return ()
        info = dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
        return tuple(_judge(info))


def _judge(info: dict[str, str]) -> list[str]:
    found = []
    version = info.get("valkey_version") or info.get("redis_version", "")
    if version and tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        found.append(f"Redis {version} is too old for `#!lua` scripts; run Redis or Valkey 7.0 or later")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            f"maxmemory-policy is {policy}: Redis, once full, silently deletes agents and versions; "
            "set maxmemory-policy noeviction"
        )
    if info.get("aof_enabled", "1") == "0":
        found.append(
            "appendonly is off: a restart of Redis loses acknowledged registrations; "
            "set appendonly yes and appendfsync always"
        )
    return found
