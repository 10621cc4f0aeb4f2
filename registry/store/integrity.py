"""Looks through everything a mesh has in Redis for what should not be, and mends it."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from redis.exceptions import ResponseError

from registry.store.codec import BadRecordError, agent_from, pairs, version_of
from registry.store.keys import Keys, sent, told
from registry.store.redis.pipeline import Link, checked
from registry.store.scripts import load_scripts

_SCAN = 500
# What one call may carry; the script refuses more.
_LARGEST = 200


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found: ids of agents, and sentences for what concerns the whole mesh.

    `orphaned` have a deadline or a heartbeat and no record; `undated` a record and no deadline, so that no sweep would
    ever look at them; `unreadable` a record that is damaged, with its version where it has one. `unheld` are required
    dependencies, `<capability> <needed>`, that are counted and that no agent has.
    """

    agents: int = 0
    orphaned: tuple[str, ...] = ()
    undated: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    unheld: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether there is nothing to mend."""
        return not (self.orphaned or self.undated or self.unreadable or self.unheld or self.problems)


class Mended(NamedTuple):
    """How many deadlines, heartbeats and dependencies of nobody went, damaged records went, agents got a deadline."""

    orphaned: int
    dropped: int
    dated: int


class Checkup:
    """Reads and mends over a link of its own."""

    def __init__(self, keys: Keys, link: Link, *, shebang: bool = True) -> None:
        self._keys = keys
        self._link = link
        self._mend = load_scripts(shebang=shebang)["mend"]

    async def examine(self) -> Diagnosis:
        """Look at everything. Agents that come and go meanwhile are looked at a second time before they are named."""
        # Counted dependencies before those who have them: whoever registers meanwhile has none too many.
        counted = {told(edge) async for edge in self._scan("HSCAN", of=self._keys.required)} - {"number"}
        prefix = self._keys.agent("")
        hashes = {told(key.removeprefix(prefix)) async for key in self._scan("SCAN", "MATCH", _pattern(prefix))}
        deadlines = {told(member) async for member in self._scan("ZSCAN", of=self._keys.deadlines)}
        heartbeats = {told(member) async for member in self._scan("ZSCAN", of=self._keys.heartbeats)}
        unreadable, held = await self._read(hashes)
        suspects = (hashes ^ deadlines) | (heartbeats - hashes)
        undated, orphaned = await self._second_look(suspects - set(unreadable))
        return Diagnosis(
            agents=len(hashes),
            orphaned=orphaned,
            undated=undated,
            unreadable=unreadable,
            unheld=await self._still_counted(counted - held),
            problems=tuple([problem async for problem in self._log_problems()]),
        )

    async def mend(self, found: Diagnosis) -> Mended:
        """Mend the agents that were named, each checked again at the moment it is mended."""
        ids = [(agent_id, "") for agent_id in (*found.orphaned, *found.undated)]
        ids += found.unreadable.items()
        orphaned = dropped = dated = 0
        for at in range(0, len(ids), _LARGEST):
            part = ids[at : at + _LARGEST]
            call = self._mend.call(
                {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id, _ in part]},
                {"agents…": [text for agent_id, version in part for text in (sent(agent_id), version)]},
            )
            _, *counts = checked((await self._link.run([call]))[0])
            orphaned, dropped, dated = (
                total + int(count) for total, count in zip((orphaned, dropped, dated), counts, strict=True)
            )
        for edges in _slices(found.unheld):
            # Should somebody have it by now, it is merely checked once more where others come to have it.
            (forgotten,) = await self._link.exchange([("HDEL", self._keys.required, *map(sent, edges))])
            orphaned += checked(forgotten)
        return Mended(orphaned, dropped, dated)

    async def _scan(self, command: str, *how: str | bytes, of: bytes | None = None) -> AsyncIterator[bytes]:
        """Give keys of the server, members of a sorted set or fields of a hash, some perhaps twice."""
        cursor = b"0"
        while True:
            target = () if of is None else (of,)
            (reply,) = await self._link.exchange([(command, *target, cursor, *how, "COUNT", _SCAN)])
            cursor, found = checked(reply)
            for each in found if of is None else found[::2]:
                yield each
            if cursor == b"0":
                return

    async def _read(self, ids: Collection[str]) -> tuple[dict[str, str], set[str]]:
        """Return whose record cannot be read, with its version or '', and the required dependencies of all."""
        found, edges = {}, set[str]()
        for part in _slices([*ids]):
            replies = await self._link.exchange([("HGETALL", self._keys.agent(agent_id)) for agent_id in part])
            for agent_id, reply in zip(part, replies, strict=True):
                if isinstance(reply, ResponseError):
                    found[agent_id] = ""
                    continue
                fields = pairs(checked(reply))
                edges.update(told(fields.get(b"requires", b"")).split("\n"))
                try:
                    if fields:
                        agent_from(agent_id, fields)
                except BadRecordError:
                    found[agent_id] = fields.get(b"version", b"").decode(errors="replace")
        return found, edges

    async def _second_look(self, suspects: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return who still has a record and no deadline, and who has no record and yet something else."""
        undated, orphaned = [], []
        for part in _slices(sorted(suspects)):
            replies = await self._link.exchange(
                [
                    command
                    for agent_id in part
                    for command in (
                        ("EXISTS", self._keys.agent(agent_id)),
                        ("ZSCORE", self._keys.deadlines, sent(agent_id)),
                        ("ZSCORE", self._keys.heartbeats, sent(agent_id)),
                    )
                ]
            )
            each = iter(map(checked, replies))
            for agent_id, record, deadline, heartbeat in zip(part, each, each, each, strict=True):
                if record and deadline is None:
                    undated.append(agent_id)
                elif not record and (deadline is not None or heartbeat is not None):
                    orphaned.append(agent_id)
        return tuple(undated), tuple(orphaned)

    async def _still_counted(self, suspects: Collection[str]) -> tuple[str, ...]:
        """Return the required dependencies of these that are counted to this moment."""
        found: list[str] = []
        for part in _slices(sorted(suspects)):
            replies = await self._link.exchange([("HEXISTS", self._keys.required, sent(edge)) for edge in part])
            found += [edge for edge, there in zip(part, map(checked, replies), strict=True) if there]
        return tuple(found)

    async def _log_problems(self) -> AsyncIterator[str]:
        version, history, last = map(
            checked,
            await self._link.exchange(
                [
                    ("GET", self._keys.version),
                    ("GET", self._keys.history),
                    ("XREVRANGE", self._keys.log, "+", "-", "COUNT", 1),
                ]
            ),
        )
        if version is None and history is None and not last:
            yield "there is no mesh here yet; start a replica, and look at REGISTRY_MESH"
        elif version is None or history is None or not last or version_of(last[0][0]) != int(version):
            ends = version_of(last[0][0]) if last else "nowhere"
            yield (
                f"version ({told(version or b'none')}), history ({told(history or b'none')}) and log (ends at {ends}) "
                "do not belong together"
            )


def _pattern(prefix: bytes) -> bytes:
    """Return the glob of all keys that begin so."""
    return b"".join(b"\\%c" % byte if byte in b"*?[]\\^" else b"%c" % byte for byte in prefix) + b"*"


def _slices(ids: Sequence[str]) -> Sequence[Sequence[str]]:
    return [ids[at : at + _SCAN] for at in range(0, len(ids), _SCAN)]
