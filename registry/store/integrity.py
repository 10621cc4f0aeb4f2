"""Looks through everything a mesh has in Redis for what should not be, and mends it."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from redis.exceptions import ResponseError

from registry.store.chunks import chunks
from registry.store.codec import BadRecordError, decode_agent, entry_version, to_mapping
from registry.store.keys import Keys, decode, encode
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import MAX_AGENTS_PER_CALL, load_scripts

_SCAN_COUNT = 500


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    """What was found: ids of agents, and sentences for what concerns the whole mesh.

    `orphaned` have a deadline or a heartbeat and no record; `without_deadline` a record and no deadline, so that no
    sweep would
    ever look at them; `unreadable` a record that is damaged, with its version where it has one. `orphaned_edges` are
    required dependencies, `<capability> <needed>`, that are counted and that no agent has.
    """

    agents: int = 0
    orphaned: tuple[str, ...] = ()
    without_deadline: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    orphaned_edges: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_consistent(self) -> bool:
        """Whether there is nothing to mend."""
        return not (self.orphaned or self.without_deadline or self.unreadable or self.orphaned_edges or self.problems)


class RepairResult(NamedTuple):
    """How many deadlines, heartbeats and dependencies of nobody went, damaged records went, agents got a deadline."""

    orphaned: int
    deleted: int
    rescheduled: int


class IntegrityCheck:
    """Reads and mends over a link of its own."""

    def __init__(self, keys: Keys, pipeline: Pipeline, *, shebang: bool = True) -> None:
        self._keys = keys
        self._pipeline = pipeline
        self._repair = load_scripts(shebang=shebang)["repair"]

    async def find_problems(self) -> IntegrityReport:
        """Look at everything. Agents that come and go meanwhile are looked at a second time before they are named."""
        # Counted dependencies before those who have them: whoever registers meanwhile has none too many.
        counted = {decode(edge) async for edge in self._scan("HSCAN", key=self._keys.required_edges)} - {"revision"}
        prefix = self._keys.agent("")
        hashes = {
            decode(key.removeprefix(prefix)) async for key in self._scan("SCAN", "MATCH", _prefix_pattern(prefix))
        }
        deadlines = {decode(member) async for member in self._scan("ZSCAN", key=self._keys.deadlines)}
        heartbeats = {decode(member) async for member in self._scan("ZSCAN", key=self._keys.heartbeats)}
        unreadable, held = await self._read_records(hashes)
        suspects = (hashes ^ deadlines) | (heartbeats - hashes)
        undated, orphaned = await self._recheck_agents(suspects - set(unreadable))
        return IntegrityReport(
            agents=len(hashes),
            orphaned=orphaned,
            without_deadline=undated,
            unreadable=unreadable,
            orphaned_edges=await self._recheck_edges(counted - held),
            problems=tuple([problem async for problem in self._log_problems()]),
        )

    async def repair(self, report: IntegrityReport) -> RepairResult:
        """Mend the agents that were named, each checked again at the moment it is mended."""
        ids = [(agent_id, "") for agent_id in (*report.orphaned, *report.without_deadline)]
        ids += report.unreadable.items()
        orphaned = dropped = dated = 0
        for part in chunks(ids, MAX_AGENTS_PER_CALL):
            call = self._repair.call(
                {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id, _ in part]},
                {"agents…": [text for agent_id, version in part for text in (encode(agent_id), version)]},
            )
            _, *counts = raise_for_error((await self._pipeline.call_scripts([call]))[0])
            orphaned, dropped, dated = (
                total + int(count) for total, count in zip((orphaned, dropped, dated), counts, strict=True)
            )
        for edges in chunks(report.orphaned_edges, _SCAN_COUNT):
            # Should somebody have it by now, it is merely checked once more where others come to have it.
            (forgotten,) = await self._pipeline.execute([("HDEL", self._keys.required_edges, *map(encode, edges))])
            orphaned += raise_for_error(forgotten)
        return RepairResult(orphaned, dropped, dated)

    async def _scan(self, command: str, *options: str | bytes, key: bytes | None = None) -> AsyncIterator[bytes]:
        """Give keys of the server, members of a sorted set or fields of a hash, some perhaps twice."""
        cursor = b"0"
        while True:
            target = () if key is None else (key,)
            (reply,) = await self._pipeline.execute([(command, *target, cursor, *options, "COUNT", _SCAN_COUNT)])
            cursor, found = raise_for_error(reply)
            for each in found if key is None else found[::2]:
                yield each
            if cursor == b"0":
                return

    async def _read_records(self, ids: Collection[str]) -> tuple[dict[str, str], set[str]]:
        """Return whose record cannot be read, with its version or '', and the required dependencies of all."""
        found, edges = {}, set[str]()
        for part in chunks([*ids], _SCAN_COUNT):
            replies = await self._pipeline.execute([("HGETALL", self._keys.agent(agent_id)) for agent_id in part])
            for agent_id, reply in zip(part, replies, strict=True):
                if isinstance(reply, ResponseError):
                    found[agent_id] = ""
                    continue
                fields = to_mapping(raise_for_error(reply))
                edges.update(decode(fields.get(b"required_edges", b"")).split("\n"))
                try:
                    if fields:
                        decode_agent(agent_id, fields)
                except BadRecordError:
                    found[agent_id] = fields.get(b"version", b"").decode(errors="replace")
        return found, edges

    async def _recheck_agents(self, suspects: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return who still has a record and no deadline, and who has no record and yet something else."""
        undated, orphaned = [], []
        for part in chunks(sorted(suspects), _SCAN_COUNT):
            replies = await self._pipeline.execute(
                [
                    command
                    for agent_id in part
                    for command in (
                        ("EXISTS", self._keys.agent(agent_id)),
                        ("ZSCORE", self._keys.deadlines, encode(agent_id)),
                        ("ZSCORE", self._keys.heartbeats, encode(agent_id)),
                    )
                ]
            )
            each = iter(map(raise_for_error, replies))
            for agent_id, record, deadline, heartbeat in zip(part, each, each, each, strict=True):
                if record and deadline is None:
                    undated.append(agent_id)
                elif not record and (deadline is not None or heartbeat is not None):
                    orphaned.append(agent_id)
        return tuple(undated), tuple(orphaned)

    async def _recheck_edges(self, suspects: Collection[str]) -> tuple[str, ...]:
        """Return the required dependencies of these that are counted to this moment."""
        found: list[str] = []
        for part in chunks(sorted(suspects), _SCAN_COUNT):
            replies = await self._pipeline.execute(
                [("HEXISTS", self._keys.required_edges, encode(edge)) for edge in part]
            )
            found += [edge for edge, there in zip(part, map(raise_for_error, replies), strict=True) if there]
        return tuple(found)

    async def _log_problems(self) -> AsyncIterator[str]:
        version, history, last = map(
            raise_for_error,
            await self._pipeline.execute(
                [
                    ("GET", self._keys.version),
                    ("GET", self._keys.timeline),
                    ("XREVRANGE", self._keys.log, "+", "-", "COUNT", 1),
                ]
            ),
        )
        if version is None and history is None and not last:
            yield "there is no mesh here yet; start a replica, and look at REGISTRY_MESH"
        elif version is None or history is None or not last or entry_version(last[0][0]) != int(version):
            ends = entry_version(last[0][0]) if last else "nowhere"
            yield (
                f"version ({decode(version or b'none')}), history ({decode(history or b'none')}) "
                f"and log (ends at {ends}) "
                "do not belong together"
            )


def _prefix_pattern(prefix: bytes) -> bytes:
    """Return the glob of all keys that begin so."""
    return b"".join(b"\\%c" % byte if byte in b"*?[]\\^" else b"%c" % byte for byte in prefix) + b"*"
