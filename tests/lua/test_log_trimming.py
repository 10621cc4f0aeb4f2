"""The change log is bounded in bytes, too: large entries push out more old ones than small entries do."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from registry.errors import StoreUnavailable
from tests.lua.script_harness import KEYS, LOG_LENGTH, ScriptHarness
from tests.lua.test_register import row

MAX_BYTES = 4 * 1024**2


class TrimmedLog:
    """A mesh whose log stores many entries and 4 MiB; each agent changes its registration."""

    def __init__(self, harness: ScriptHarness) -> None:
        self.harness = harness
        self.call = row("", before={}, log_limits=f"1000000 {MAX_BYTES}", reply=())
        self.written: list[bytes] = []
        self.marks = itertools.count()

    async def begin(self) -> None:
        """Clear the server."""
        await self.harness.write_initial_state(self.call)

    async def register(self, spec_bytes: int) -> None:
        """Register the agent with another spec of this size."""
        spec = f'{{"at":{next(self.marks)},"text":"{"x" * spec_bytes}"}}'
        _, version = await self.harness.call_script(replace(self.call, args={**self.call.args, "spec": spec}))
        self.written.append(version)

    async def versions(self) -> Sequence[bytes]:
        """Return the versions in the log; each entry follows the one before it."""
        entries = await self.harness.execute("XRANGE", KEYS.log, "-", "+")
        found = [entry.removesuffix(b"-0") for entry, _ in entries]
        previous = [fields[fields.index(b"prev") + 1] for _, fields in entries]
        assert previous[1:] == found[:-1]
        return found

    async def memory(self) -> int:
        """Return the bytes that the log uses in Redis; of the simulated one, those of its contents."""
        try:
            return int(await self.harness.execute("MEMORY", "USAGE", KEYS.log, "SAMPLES", 0))
        except StoreUnavailable:
            entries = await self.harness.execute("XRANGE", KEYS.log, "-", "+")
            return sum(len(text) for _, fields in entries for text in fields)


async def test_large_entries_push_out_old_ones(harness: ScriptHarness) -> None:
    """The log never uses more than its limit, and retains as many of the newest entries as fit in 40 % of it."""
    log = TrimmedLog(harness)
    await log.begin()
    for _ in range(60):
        await log.register(100_000)
        assert await log.memory() <= MAX_BYTES

    versions = await log.versions()
    assert versions == log.written[-len(versions) :]
    assert MAX_BYTES * 0.4 < len(versions) * 200_000 < MAX_BYTES


async def test_small_entries_stay_until_their_bytes_reach_the_limit(harness: ScriptHarness) -> None:
    """None is trimmed before that, and one more large entry pushes out only as many as it needs."""
    log = TrimmedLog(harness)
    await log.begin()
    for _ in range(500):
        await log.register(1000)
    assert len(await log.versions()) == 501  # with the entry of the timeline

    for _ in range(8):
        await log.register(100_000)

    versions = await log.versions()
    assert versions == log.written[-len(versions) :]
    assert 8 < len(versions) < 500
    assert await log.memory() <= MAX_BYTES


async def test_an_entry_of_half_the_limit_leaves_room_for_one(harness: ScriptHarness) -> None:
    """The newest entry is always retained, because the log ends at the current version."""
    log = TrimmedLog(harness)
    await log.begin()
    for _ in range(4):
        await log.register(1_000_000)
        assert (await log.versions())[-1] == log.written[-1]
        assert await log.memory() <= MAX_BYTES
    assert await log.versions() == log.written[-1:]


async def test_entries_that_cannot_fill_the_log_are_not_counted(harness: ScriptHarness) -> None:
    """An ordinary registration costs no command more: all entries of its size use at most a quarter of the limit."""
    log = TrimmedLog(harness)
    log.call = row("", before={}, log_limits=f"{LOG_LENGTH} {20 * MAX_BYTES}", reply=())
    await log.begin()
    for _ in range(5):
        await log.register(1400)
    assert not await harness.execute("EXISTS", KEYS.shared["log_bytes"])
    await log.register(30_000)
    assert int(await harness.execute("HGET", KEYS.shared["log_bytes"], "total")) > 30_000


async def test_the_checkpoints_of_the_log_are_bounded(harness: ScriptHarness) -> None:
    """One for every 5 % of the limit, each at an entry of the log, beside the total."""
    log = TrimmedLog(harness)
    await log.begin()
    for at in range(300):
        await log.register(200_000 if at % 10 == 0 else 5_000)

    fields = set((await harness.execute("HGETALL", KEYS.shared["log_bytes"]))[::2])
    assert fields - {b"total"} <= set(await log.versions())
    assert len(fields) <= 16


async def test_a_log_without_its_counted_bytes_is_bounded_again(harness: ScriptHarness) -> None:
    """As after the loss of one key: old entries go when new ones have reached the limit."""
    log = TrimmedLog(harness)
    await log.begin()
    for _ in range(20):
        await log.register(100_000)
    await harness.execute("DEL", KEYS.shared["log_bytes"])
    for _ in range(20):
        await log.register(100_000)

    assert await log.memory() <= MAX_BYTES
    versions = await log.versions()
    assert versions == log.written[-len(versions) :]
