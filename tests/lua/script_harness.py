"""The harness for the tables of the scripts: set a state up, call a script, compare reply, state and log.

A state maps names to cells. A name is that of a key, such as `version` or `last_probe`; `deadlines/a`,
`counters/removed` or `required_edges/c d` for a member; `a/status` for a field of the hash of agent a; `lags/0` for the
latest lag; `resolutions/a` for its stored resolutions, joined by `|`; `a` alone for an agent key that is a string and
not a hash. Times are relative to the start of the test, so no test waits. `missing` and `healthy_by_namespace` follow
from the other cells: the harness writes them before a call, and compares them after it.
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ResponseError

from registry.store.keys import Keys
from registry.store.redis.connection import RedisEndpoint
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import ArgumentValue, Command
from tests.support.lua_headers import read_header

KEYS = Keys("mesh")
AGENT_KEY_PREFIX = KEYS.agent("").decode()
STRING_KEYS = ("version", "timeline", "leader", "epoch", "last_probe", "outage", "clock_rollback")
SORTED_SET_KEYS = ("heartbeats", "deadlines", "unhealthy_since", "suspended", "protected")
# The contents of these follow from the other cells.
DERIVED_KEYS = ("missing", "healthy_by_namespace")
HASH_KEYS = ("counters", "self_preservation", "required_edges")
RESOLUTIONS_KEY_PREFIX = KEYS.resolutions("").decode()
# Fields in the hash of an agent that no log entry contains.
UNLOGGED_FIELDS = {"load", "response_digest", "namespace", "endpoint", "endpoint_before"}
LOG_LENGTH = 1000
LOG_LIMITS = f"{LOG_LENGTH} {256 * 1024**2}"


@dataclass(frozen=True, slots=True)
class MsAfterStart:
    """Exactly this many ms after the start of the test."""

    ms: int


@dataclass(frozen=True, slots=True)
class MsAfterCall:
    """This many ms after the time of the call."""

    ms: int = 0


@dataclass(frozen=True, slots=True)
class LastVersion:
    """The version of the last log entry of the agent; in a reply, of the last entry of the log."""


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error reply that contains this text."""

    text: str


Cell = str | int | MsAfterStart | MsAfterCall | LastVersion | ErrorReply
Expected = Cell | tuple[Cell, ...]
State = Mapping[str, Expected]
Cells = dict[str, Expected | None]
LAST_VERSION = LastVersion()

# The initial state of every table unless a row changes it; None removes a cell.
INITIAL_STATE: dict[str, Expected] = {
    "version": "1000",
    "timeline": "h0",
    "last_probe": MsAfterStart(-1000),
    "log": ("1000",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptCase:
    """One row of the table of a script.

    `before` is merged into INITIAL_STATE. `after` lists the cells that the script changes; all others must stay as they
    were. `log` lists the new entries: kind, reason, id, heartbeat and the `..._before` fields. The agent in each entry,
    `prev`, `updated_before` and the versions are always compared. `log_bytes` is not: test_log_trimming.py tests it.
    """

    description: str
    script: str
    args: Mapping[str, ArgumentValue | MsAfterStart]
    agents: tuple[str, ...] = ()
    before: Mapping[str, Expected | None] = field(default_factory=dict)
    reply: tuple[Expected, ...] | ErrorReply
    after: Mapping[str, Expected | None] = field(default_factory=dict)
    log: tuple[Mapping[str, Expected], ...] = ()

    def __str__(self) -> str:
        return self.description


def an_agent(
    name: str, status: str, *, heartbeat_at: int | None = None, deadline_at: int | None = None, **fields: str | None
) -> dict[str, Expected | None]:
    """Return the cells of a stored agent with a timeout of 1 minute and an eviction of 3. None omits a field.

    `heartbeat_at` and `deadline_at` are its heartbeat and deadline, in ms after the start of the test.
    """
    hash_: dict[str, str | None] = {
        "spec": f'{{"endpoint":"http://{name}"}}',
        "status": status,
        "draining": "0",
        "version": "900",
        "spec_version": "800",
        "created": "700",
        "updated": "800",
        "timeout": "60000",
        "eviction": "180000",
        **fields,
    }
    cells: dict[str, Expected | None] = {f"{name}/{key}": value for key, value in hash_.items() if value is not None}
    if heartbeat_at is not None:
        cells[f"heartbeats/{name}"] = MsAfterStart(heartbeat_at)
    if deadline_at is not None:
        cells[f"deadlines/{name}"] = MsAfterStart(deadline_at)
    return cells


def a_period(
    name: str, since: Cell, until: Cell, ended: Cell = "-", below: Cell = "-", numbers: tuple[int, int] = (30, 40)
) -> dict[str, Expected | None]:
    """Return the cells of a period of self-preservation; `numbers` are overdue and healthy agents at its start."""
    fields = [since, until, ended, below, str(numbers[0]), str(numbers[1])]
    text = [part for field in fields for part in (" ", field)][1:]
    cells: dict[str, Expected | None] = {f"self_preservation/{name}": tuple(text)}
    if name != "*":
        cells[f"protected/{name}"] = since if ended == "-" else ("-", since)
    return cells


def removed_agent(name: str, **fields: str) -> dict[str, None]:
    """Return the cells of an agent, all removed."""
    return dict.fromkeys(
        [*an_agent(name, "healthy", heartbeat_at=0, deadline_at=0, **fields), f"unhealthy_since/{name}"]
    )


class ScriptHarness:
    """A server and one pipeline, through which all commands are sent."""

    def __init__(self, server: RedisEndpoint) -> None:
        self._pipeline = Pipeline(server.connect, shebang=server.shebang)
        self._started_ms = self._finished_ms = 0

    async def close(self) -> None:
        """Close the pipeline."""
        await self._pipeline.close()

    async def execute(self, *command: Any) -> Any:
        """Send one command and return its reply; raise an error reply."""
        return (await self.execute_all([command]))[0]

    async def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands at once and return their replies; raise the first error reply.

        So a thousand agents are written in milliseconds: to the scripts, seconds without a probe are an outage.
        """
        return [raise_for_error(reply) for reply in await self._pipeline.execute(commands)] if commands else []

    async def call_script(self, row: ScriptCase) -> Any:
        """Call the script of the row as the store does; return an error reply."""
        agents = [KEYS.agent(name) for name in row.agents]
        keys: dict[str, ArgumentValue] = {**KEYS.shared, "agent_keys…": agents}
        if len(agents) == 1:
            keys |= {"agent_key": agents[0], "resolutions": KEYS.resolutions(row.agents[0])}
        args = {
            name: self._encode_cell(value) if isinstance(value, MsAfterStart) else value
            for name, value in row.args.items()
        }
        (reply,) = await self._pipeline.call_scripts([self._pipeline.scripts[row.script].call(keys, args)])
        return reply

    async def write_initial_state(self, row: ScriptCase) -> None:
        """Clear the server and write the state before the call."""
        self._started_ms = await self._server_time_ms()
        cells = {**INITIAL_STATE, **row.before}.items()
        await self.execute_all(
            [
                ("FLUSHALL",),
                *(command for name, cell in cells if cell is not None for command in self._commands(name, cell)),
            ]
        )
        derived = [(*name.partition("/"), score) for name, score in derived_cells(await self.read_state()).items()]
        await self.execute_all([("ZADD", KEYS.shared[key], score, member) for key, _, member, score in derived])

    async def run_case(
        self, row: ScriptCase, after_preparing: Callable[["ScriptHarness"], Awaitable[None]] | None = None
    ) -> None:
        """Run one row and compare reply, state and log."""
        await self.write_initial_state(row)
        if after_preparing is not None:
            await after_preparing(self)
        before = await self.read_state()
        reply = await self.call_script(row)
        self._finished_ms = await self._server_time_ms()
        after = await self.read_state()

        old_entries = [] if row.after.get("log", ()) is None else before["log"]
        entries = after["log"][len(old_entries) :]
        assert after["log"][: len(old_entries)] == old_entries
        self._compare_log(row, before, after, entries)
        self._compare_state(row, before, after, entries)
        self._compare_reply(row, reply, entries)

    async def read_state(self) -> dict[str, Any]:
        """Read all data of the server; `log` is a list of (version, fields)."""
        state: dict[str, Any] = {}
        for name in STRING_KEYS:
            text = await self.execute("GET", KEYS.shared[name])
            if text is not None:
                state[name] = text.decode()
        for name in (*SORTED_SET_KEYS, *DERIVED_KEYS):
            items = await self.execute("ZRANGE", KEYS.shared[name], 0, -1, "WITHSCORES")
            state |= {f"{name}/{member}": score for member, score in _pairs(items).items()}
        for at, text in enumerate(await self.execute("LRANGE", KEYS.shared["lags"], 0, -1)):
            state[f"lags/{at}"] = text.decode()
        for name in HASH_KEYS:
            items = await self.execute("HGETALL", KEYS.shared[name])
            state |= {f"{name}/{member}": text for member, text in _pairs(items).items()}
        state |= await self._read_agent_keys(sorted(set(await self.execute("KEYS", "*")) - set(KEYS.shared.values())))
        state["log"] = [
            (entry.decode(), _pairs(items)) for entry, items in await self.execute("XRANGE", KEYS.log, "-", "+")
        ]
        return state

    async def _read_agent_keys(self, keys: Sequence[bytes]) -> dict[str, str]:
        state: dict[str, str] = {}
        types = await self.execute_all([("TYPE", key) for key in keys])
        reads: dict[bytes, Command] = {
            key: {b"string": ("GET", key), b"hash": ("HGETALL", key), b"list": ("LRANGE", key, 0, -1)}[kind]
            for key, kind in zip(keys, types, strict=True)
        }
        for key, value in zip(keys, await self.execute_all(list(reads.values())), strict=True):
            if key.startswith(RESOLUTIONS_KEY_PREFIX.encode()):
                assert await self.execute("PTTL", key) > 0, f"{key!r} has no expiry"
                name = f"resolutions/{key.decode().removeprefix(RESOLUTIONS_KEY_PREFIX)}"
                state[name] = "|".join(entry.decode() for entry in value)
                continue
            name = key.decode().removeprefix(AGENT_KEY_PREFIX)
            assert name != key.decode(), f"an unexpected key: {name}"
            if isinstance(value, bytes):
                state[name] = value.decode()
            else:
                state |= {f"{name}/{field}": text for field, text in _pairs(value).items()}
        return state

    async def _server_time_ms(self) -> int:
        seconds, micro = await self.execute("TIME")
        return int(seconds) * 1000 + int(micro) // 1000

    def _commands(self, name: str, cell: Expected) -> list[Command]:
        """Return the commands that write one cell."""
        key, _, member = name.partition("/")
        if name == "log":
            assert isinstance(cell, tuple)
            return [
                ("XADD", KEYS.log, f"{self._encode_cell(version)}-0", "kind", "new_timeline", "prev", "0")
                for version in cell
            ]
        value = self._encode_cell(cell)
        if key == "lags" or name in STRING_KEYS:
            return [("RPUSH" if key == "lags" else "SET", KEYS.shared[key], value)]
        if key in SORTED_SET_KEYS:
            return [("ZADD", KEYS.shared[key], value, member)]
        if key in HASH_KEYS:
            return [("HSET", KEYS.shared[key], member, value)]
        if key == "resolutions":
            resolutions = KEYS.resolutions(member)
            return [("RPUSH", resolutions, *value.split("|")), ("PEXPIRE", resolutions, 60_000)]
        return [("HSET", KEYS.agent(key), member, value) if member else ("SET", KEYS.agent(key), value)]

    def _encode_cell(self, cell: Expected) -> str:
        if isinstance(cell, tuple):
            return "".join(map(self._encode_cell, cell))
        return str(self._started_ms + cell.ms) if isinstance(cell, MsAfterStart) else _to_text(cell)

    def _matches(self, expected: Expected, actual: str, version: str) -> bool:
        if isinstance(expected, tuple):
            pattern = "".join(
                r"(\d+)" if isinstance(cell, MsAfterCall) else f"({re.escape(self._encode_cell(cell))})"
                for cell in expected
            )
            match = re.fullmatch(pattern, actual)
            return match is not None and all(map(self._matches, expected, match.groups(), [version] * len(expected)))
        if isinstance(expected, MsAfterCall):
            return actual.isdecimal() and self._started_ms <= int(actual) - expected.ms <= self._finished_ms
        if isinstance(expected, LastVersion):
            return actual == version
        return actual == self._encode_cell(expected)

    def _compare_reply(self, row: ScriptCase, reply: Any, entries: Sequence[tuple[str, Any]]) -> None:
        if isinstance(row.reply, ErrorReply):
            assert isinstance(reply, ResponseError), f"expected an error reply, got {reply!r}"
            assert row.reply.text in str(reply)
            return
        assert isinstance(reply, list), f"expected {row.reply}, got {reply!r}"
        version = _entry_version(entries[-1][0]) if entries else ""
        assert len(reply) == len(row.reply), f"expected {row.reply}, got {reply!r}"
        for expected, actual in zip(row.reply, reply, strict=True):
            assert isinstance(actual, int if isinstance(expected, int) else bytes)
            assert self._matches(expected, _to_text(actual), version), f"expected {row.reply}, got {reply!r}"

    def _compare_log(
        self, row: ScriptCase, before: Mapping[str, Any], after: Mapping[str, Any], entries: Sequence[tuple[str, Any]]
    ) -> None:
        """Assert that the new entries are as expected, connected, with the whole agent, up to the version."""
        prev = int(before.get("version", 0))
        floor = max([prev, *(int(_entry_version(entry)) for entry, _ in before["log"])])
        assert len(entries) == len(row.log), f"expected {len(row.log)} log entries, got {entries}"
        for (entry, fields), expected in zip(entries, row.log, strict=True):
            version = int(_entry_version(entry))
            assert int(fields["prev"]) == prev
            assert version > floor
            assert version >= self._started_ms
            assert version <= self._finished_ms or version == floor + 1
            meta = {name: fields[name] for name in ("kind", "reason", "id", "heartbeat") if name in fields}
            meta |= {name: value for name, value in fields.items() if name.endswith("_before")}
            if fields["kind"] == "modify" and fields["spec_version"] == str(version):
                assert meta.pop("updated_before") == before[f"{fields['id']}/updated"]
            assert meta.keys() == expected.keys(), f"expected {expected}, got {meta}"
            assert all(self._matches(expected[name], meta[name], str(version)) for name in meta), f"{expected}: {meta}"
            prev = floor = version
        self._compare_agents(before, after, entries)
        if entries:
            assert after["version"] == _entry_version(entries[-1][0])

    def _compare_agents(
        self, before: Mapping[str, Any], after: Mapping[str, Any], entries: Sequence[tuple[str, Any]]
    ) -> None:
        last = {fields.get("id"): (entry, fields) for entry, fields in entries}
        for name, (entry, fields) in last.items():
            logged = {f"{name}/{key}": value for key, value in fields.items() if not _is_log_field(key)}
            source = before if fields["kind"] == "remove" else after
            unlogged = {f"{name}/{field}" for field in UNLOGGED_FIELDS}
            expected = {
                key: value for key, value in source.items() if key.startswith(f"{name}/") and key not in unlogged
            }
            assert logged == (expected | {f"{name}/version": _entry_version(entry)} if name else {})

    def _compare_state(
        self, row: ScriptCase, before: Mapping[str, Any], after: Mapping[str, Any], entries: Sequence[tuple[str, Any]]
    ) -> None:
        """Assert that the cells of the row changed as expected, all others stayed, and the header lists each write."""
        versions = {fields.get("id"): _entry_version(entry) for entry, fields in entries}
        derived = {name for name in before.keys() | after.keys() if name.partition("/")[0] in DERIVED_KEYS}
        assert {name: after[name] for name in derived & after.keys()} == derived_cells(after)
        for name in (before.keys() | after.keys() | row.after.keys()) - derived - {"log"}:
            if name in row.after:
                expected, actual = row.after[name], after.get(name)
                version = versions.get(name.partition("/")[0], after.get("version", ""))
                matches = (
                    (actual is None)
                    if expected is None
                    else actual is not None and self._matches(expected, actual, version)
                )
                assert matches, f"{name}: expected {expected}, got {actual} at {self._started_ms}..{self._finished_ms}"
            elif name != "version" or not entries:
                assert after.get(name) == before.get(name), f"{name} was {before.get(name)}, is {after.get(name)}"
        changed = {key_name(name) for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        assert changed <= declared_writes(row.script), (
            f"{changed - declared_writes(row.script)} written, but not in WRITES"
        )


def derived_cells(state: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of `missing` and `healthy_by_namespace` that follow from the other cells."""
    cells: Counter[str] = Counter()
    for name, value in state.items():
        key, _, member = name.partition("/")
        namespace, status = state.get(f"{member}/namespace", "?"), state.get(f"{member}/status")
        if key == "unhealthy_since":
            cells[f"missing/unhealthy {namespace} {int(value):015} {member}"] = 0
        elif key == "suspended":
            cells[f"missing/suspended {namespace} {int(status == 'healthy'):015} {member}"] = 0
        elif member == "status" and value == "healthy":
            cells[f"healthy_by_namespace/{state.get(f'{key}/namespace', '?')}"] += 1
    return {name: str(score) for name, score in cells.items()}


def key_name(cell: str) -> str:
    """Return the name that a script header uses for the key of a cell."""
    key = cell.partition("/")[0]
    return key if key in KEYS.shared or key == "resolutions" else "agent"


def declared_writes(script: str) -> set[str]:
    """Return the keys that the header of a script lists as written; the keys of agents are all called `agent`."""
    return {"agent" if name.startswith("agent_key") else name for name in read_header(script).writes}


def _entry_version(entry: str) -> str:
    version, _, sequence = entry.partition("-")
    assert sequence == "0"
    return version


def _is_log_field(name: str) -> bool:
    return name in {"kind", "reason", "prev", "id", "heartbeat"} or name.endswith("_before")


def _pairs(items: Sequence[bytes]) -> dict[str, str]:
    texts = [text.decode() for text in items]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _to_text(cell: Any) -> str:
    return cell.decode() if isinstance(cell, bytes) else str(cell)
