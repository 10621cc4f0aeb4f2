"""Checks and repairs the data of a mesh in Redis."""

from collections import Counter
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from redis.exceptions import ResponseError

from registry.store.keys import Keys, decode, encode
from registry.store.record_codec import BadRecordError, decode_agent, entry_version, to_mapping
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import MAX_AGENTS_PER_CALL, chunks

_SCAN_COUNT = 500


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    """The result of an integrity check: agent ids by problem, and messages about the mesh as a whole.

    `orphaned` agents have a deadline or a heartbeat and no record; agents `without_deadline` have a record, and no
    sweep would ever find them; `unreadable` agents have a damaged record, here with its version or ''.
    `orphaned_edges` are counted required edges, as `encode_edges` writes them, that no agent has. `orphaned_missing`
    are entries of agents that miss heartbeats, for agents that do not exist. `miscounted` has the correction of the
    number of healthy agents, by namespace.
    """

    agents: int = 0
    orphaned: tuple[str, ...] = ()
    without_deadline: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    orphaned_edges: tuple[str, ...] = ()
    orphaned_missing: tuple[str, ...] = ()
    miscounted: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def is_consistent(self) -> bool:
        """Whether the check found no problem."""
        return self == IntegrityReport(agents=self.agents)


class RepairResult(NamedTuple):
    """The numbers of orphaned entries and damaged records that were removed, and of agents given a deadline."""

    orphaned: int
    deleted: int
    rescheduled: int


class IntegrityCheck:
    """Checks and repairs the data of one mesh."""

    def __init__(self, keys: Keys, pipeline: Pipeline) -> None:
        self._keys = keys
        self._pipeline = pipeline

    async def find_problems(self) -> IntegrityReport:
        """Check all data of the mesh; check problems twice, because agents change during the scan."""
        # Counted edges are read before the agents: an agent that registers during the scan adds no orphaned edge.
        counted = {decode(edge) async for edge in self._scan("HSCAN", key=self._keys.required_edges)} - {"revision"}
        prefix = self._keys.agent("")
        hashes = {
            decode(key.removeprefix(prefix)) async for key in self._scan("SCAN", "MATCH", _prefix_pattern(prefix))
        }
        deadlines = {
            decode(member)
            for key in (self._keys.deadlines, self._keys.shared["suspended"])
            async for member in self._scan("ZSCAN", key=key)
        }
        heartbeats = {decode(member) async for member in self._scan("ZSCAN", key=self._keys.heartbeats)}
        missing = {decode(entry) async for entry in self._scan("ZSCAN", key=self._keys.shared["missing"])}
        unreadable, edges, healthy = await self._read_records(hashes)
        corrections = await self._count_corrections(healthy)
        if corrections:  # agents may have changed during the scan
            again = await self._count_corrections((await self._read_records(hashes))[2])
            corrections = dict(corrections.items() & again.items())
        suspects = (hashes ^ deadlines) | (heartbeats - hashes)
        without_deadline, orphaned = await self._recheck_agents(suspects - set(unreadable))
        return IntegrityReport(
            agents=len(hashes),
            orphaned=orphaned,
            without_deadline=without_deadline,
            unreadable=unreadable,
            orphaned_edges=await self._recheck_edges(counted - edges),
            orphaned_missing=tuple(sorted(entry for entry in missing if entry.split(" ", 3)[-1] not in hashes)),
            miscounted=corrections,
            problems=await self._log_problems(),
        )

    async def repair(self, report: IntegrityReport) -> RepairResult:
        """Repair the reported agents; the script checks each agent again before it repairs the agent."""
        ids = [(agent_id, "") for agent_id in (*report.orphaned, *report.without_deadline)]
        ids += report.unreadable.items()
        orphaned = deleted = rescheduled = 0
        for part in chunks(ids, MAX_AGENTS_PER_CALL):
            call = self._pipeline.scripts["repair"].call(
                {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id, _ in part]},
                {"agents…": [text for agent_id, version in part for text in (encode(agent_id), version)]},
            )
            _, *counts = await self._pipeline.call_script(call)
            orphaned, deleted, rescheduled = (
                total + int(count) for total, count in zip((orphaned, deleted, rescheduled), counts, strict=True)
            )
        for edges in chunks(report.orphaned_edges, _SCAN_COUNT):
            # If an agent has such an edge by now, deleting it only causes one more cycle check later.
            (reply,) = await self._pipeline.execute([("HDEL", self._keys.required_edges, *map(encode, edges))])
            orphaned += raise_for_error(reply)
        missing, healthy = self._keys.shared["missing"], self._keys.shared["healthy_by_namespace"]
        for entries in chunks(report.orphaned_missing, _SCAN_COUNT):
            (reply,) = await self._pipeline.execute([("ZREM", missing, *map(encode, entries))])
            orphaned += raise_for_error(reply)
        for counts in chunks([*report.miscounted.items()], _SCAN_COUNT):
            commands = [("ZINCRBY", healthy, change, encode(namespace)) for namespace, change in counts]
            scores = map(raise_for_error, await self._pipeline.execute(commands))
            empty = [encode(namespace) for (namespace, _), score in zip(counts, scores, strict=True) if int(score) <= 0]
            if empty:
                await self._pipeline.execute([("ZREM", healthy, *empty)])
        return RepairResult(orphaned, deleted, rescheduled)

    async def _scan(self, command: str, *options: str | bytes, key: bytes | None = None) -> AsyncIterator[bytes]:
        """Yield the results of a SCAN, ZSCAN or HSCAN: names of keys, members or fields; some may be repeated."""
        cursor = b"0"
        while True:
            target = () if key is None else (key,)
            (reply,) = await self._pipeline.execute([(command, *target, cursor, *options, "COUNT", _SCAN_COUNT)])
            cursor, found = raise_for_error(reply)
            for name in found if key is None else found[::2]:
                yield name
            if cursor == b"0":
                return

    async def _read_records(self, ids: Collection[str]) -> tuple[dict[str, str], set[str], Counter[str]]:
        """Return the versions of unreadable agents ('' if unknown), by id, and data of all agents.

        These are their required edges, and the numbers of healthy ones by namespace.
        """
        unreadable, edges, healthy = {}, set[str](), Counter[str]()
        for part in chunks([*ids], _SCAN_COUNT):
            replies = await self._pipeline.execute([("HGETALL", self._keys.agent(agent_id)) for agent_id in part])
            for agent_id, reply in zip(part, replies, strict=True):
                if isinstance(reply, ResponseError):
                    unreadable[agent_id] = ""
                    continue
                fields = to_mapping(raise_for_error(reply))
                if fields.get(b"status") == b"healthy":
                    healthy[decode(fields.get(b"namespace", b"?"))] += 1
                edges.update(decode(fields.get(b"required_edges", b"")).split("\n"))
                try:
                    if fields:
                        decode_agent(agent_id, fields)
                except BadRecordError:
                    unreadable[agent_id] = fields.get(b"version", b"").decode(errors="replace")
        return unreadable, edges, healthy

    async def _count_corrections(self, healthy: Counter[str]) -> dict[str, int]:
        """Return the differences of the numbers of healthy agents from those that Redis has, by namespace."""
        key = self._keys.shared["healthy_by_namespace"]
        counted = [member async for member in self._scan("ZSCAN", key=key)]
        corrections = dict(healthy)
        for part in chunks(counted, _SCAN_COUNT):
            (scores,) = await self._pipeline.execute([("ZMSCORE", key, *part)])
            for member, score in zip(part, raise_for_error(scores), strict=True):
                corrections[decode(member)] = healthy[decode(member)] - int(score or 0)
        return {namespace: change for namespace, change in corrections.items() if change}

    async def _recheck_agents(self, suspects: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the ids of suspects with a record but no deadline, and of those with a deadline or heartbeat only."""
        without_deadline, orphaned = [], []
        for part in chunks(sorted(suspects), _SCAN_COUNT):
            replies = await self._pipeline.execute(
                [
                    command
                    for agent_id in part
                    for command in (
                        ("EXISTS", self._keys.agent(agent_id)),
                        ("ZSCORE", self._keys.deadlines, encode(agent_id)),
                        ("ZSCORE", self._keys.shared["suspended"], encode(agent_id)),
                        ("ZSCORE", self._keys.heartbeats, encode(agent_id)),
                    )
                ]
            )
            results = iter(map(raise_for_error, replies))
            for agent_id, record, *times in zip(part, results, results, results, results, strict=True):
                deadline, suspended, heartbeat = times
                if record and deadline is suspended is None:
                    without_deadline.append(agent_id)
                elif not record and not deadline is suspended is heartbeat is None:
                    orphaned.append(agent_id)
        return tuple(without_deadline), tuple(orphaned)

    async def _recheck_edges(self, suspects: Collection[str]) -> tuple[str, ...]:
        """Return the suspected edges that Redis still counts."""
        counted: list[str] = []
        for part in chunks(sorted(suspects), _SCAN_COUNT):
            replies = await self._pipeline.execute(
                [("HEXISTS", self._keys.required_edges, encode(edge)) for edge in part]
            )
            counted += [edge for edge, exists in zip(part, map(raise_for_error, replies), strict=True) if exists]
        return tuple(counted)

    async def _log_problems(self) -> tuple[str, ...]:
        last_entry = ("XREVRANGE", self._keys.log, "+", "-", "COUNT", 1)
        replies = await self._pipeline.execute([("GET", self._keys.version), ("GET", self._keys.timeline), last_entry])
        version, timeline, entries = map(raise_for_error, replies)
        if version is None and timeline is None and not entries:
            return ("no mesh found; start a replica and check REGISTRY_MESH",)
        last_version = str(entry_version(entries[0][0])) if entries else "none"
        if timeline is not None and version is not None and last_version == decode(version):
            return ()
        found = f"version ({decode(version or b'none')}), timeline ({decode(timeline or b'none')})"
        return (f"{found} and log (last entry {last_version}) are inconsistent",)


def _prefix_pattern(prefix: bytes) -> bytes:
    """Return a glob pattern that matches all keys with a prefix."""
    return b"".join(b"\\%c" % byte if byte in b"*?[]\\^" else b"%c" % byte for byte in prefix) + b"*"
