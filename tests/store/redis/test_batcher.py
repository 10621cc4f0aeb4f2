"""What arrives together leaves together, and each fares by itself."""

import asyncio
from collections.abc import Sequence

import pytest

from registry.errors import StoreUnavailable
from registry.store.redis.batcher import Batcher


class Wire:
    """A `send` that answers each item with itself, in capitals, once it is let go."""

    def __init__(self, *, open_: bool = True) -> None:
        self.sent: list[list[str]] = []
        self.out = asyncio.Semaphore(0)
        self.gate = asyncio.Event()
        self.answers: dict[str, Exception] = {}
        self.broken: Exception | None = None
        if open_:
            self.gate.set()

    async def send(self, items: Sequence[str]) -> Sequence[str | Exception]:
        """Note the call, wait for the gate, answer."""
        self.sent.append([*items])
        self.out.release()
        await self.gate.wait()
        if self.broken is not None:
            raise self.broken
        return [self.answers.get(item, item.upper()) for item in items]


@pytest.fixture
async def wire() -> Wire:
    """A wire on which calls stay until its gate opens."""
    return Wire(open_=False)


async def flying(batch: Batcher[str, str], wire: Wire, item: str = "first") -> "asyncio.Future[str]":
    """Submit one item and return when its call is in flight."""
    future = batch.submit(item)
    await wire.out.acquire()
    return future


async def test_an_item_that_arrives_alone_leaves_at_once() -> None:
    """There is no timer: the call is out after the loop's next turn."""
    wire = Wire()
    batch = Batcher(wire.send)

    future = batch.submit("a")
    await asyncio.sleep(0)

    assert wire.sent == [["a"]]
    assert await future == "A"


async def test_what_arrives_in_one_turn_leaves_as_one_call() -> None:
    """In the order of arrival, each with its own result."""
    wire = Wire()
    batch = Batcher(wire.send)

    assert await asyncio.gather(*map(batch.submit, "abc")) == ["A", "B", "C"]
    assert wire.sent == [["a", "b", "c"]]


async def test_what_arrives_during_a_call_is_the_next_call(wire: Wire) -> None:
    """One call at a time."""
    batch = Batcher(wire.send)
    first = await flying(batch, wire)
    others = [batch.submit("a"), batch.submit("b")]
    await asyncio.sleep(0)
    assert wire.sent == [["first"]]

    wire.gate.set()

    assert await asyncio.gather(first, *others) == ["FIRST", "A", "B"]
    assert wire.sent == [["first"], ["a", "b"]]


async def test_a_call_carries_at_most_the_largest_number() -> None:
    """The rest follows in the calls after it."""
    wire = Wire()
    batch = Batcher(wire.send, max_batch=3)

    assert await asyncio.gather(*map(batch.submit, "abcdefg")) == [*"ABCDEFG"]
    assert [len(call) for call in wire.sent] == [3, 3, 1]


async def test_who_finds_no_room_is_refused_at_once(wire: Wire) -> None:
    """As the store being away, with a reason of its own; those who wait are not disturbed."""
    batch = Batcher(wire.send, max_queued=2)
    first = await flying(batch, wire)
    waiting = [batch.submit("a"), batch.submit("b")]

    with pytest.raises(StoreUnavailable) as refusal:
        batch.submit("c")

    assert (refusal.value.reason, refusal.value.outcome) == ("queue_full", "not_sent")
    wire.gate.set()
    assert await asyncio.gather(first, *waiting) == ["FIRST", "A", "B"]


async def test_who_waits_too_long_learns_whether_it_was_sent(wire: Wire) -> None:
    """In flight: unknown. In the queue: not sent, and it never will be."""
    batch = Batcher(wire.send, timeout=0.02)
    first = await flying(batch, wire)
    second = batch.submit("second")

    sent, queued = await asyncio.gather(first, second, return_exceptions=True)

    assert isinstance(sent, StoreUnavailable)
    assert isinstance(queued, StoreUnavailable)
    assert (sent.outcome, sent.reason) == ("unknown", "timeout")
    assert (queued.outcome, queued.reason) == ("not_sent", "timeout")
    wire.gate.set()
    await batch.close()
    assert wire.sent == [["first"]]


async def test_a_cancelled_caller_never_touches_the_call(wire: Wire) -> None:
    """Its neighbours get their results, and whoever comes next too."""
    batch = Batcher(wire.send)

    async def call(item: str) -> str:
        return await batch.submit(item)

    callers = [asyncio.create_task(call(item)) for item in "abc"]
    await wire.out.acquire()
    callers[1].cancel()
    wire.gate.set()

    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [results[0], results[2]] == ["A", "C"]
    assert isinstance(results[1], asyncio.CancelledError)
    assert await batch.submit("d") == "D"


async def test_an_item_whose_caller_has_left_is_not_sent(wire: Wire) -> None:
    """Nobody would read the answer."""
    batch = Batcher(wire.send)
    first = await flying(batch, wire)
    left, stayed = batch.submit("left"), batch.submit("stayed")

    left.cancel()
    wire.gate.set()

    assert [await first, await stayed] == ["FIRST", "STAYED"]
    assert wire.sent == [["first"], ["stayed"]]


async def test_a_bad_item_fails_alone() -> None:
    """An exception among the results is for its own caller."""
    wire = Wire()
    wire.answers["b"] = KeyError("b")
    batch = Batcher(wire.send)

    results = await asyncio.gather(*map(batch.submit, "abc"), return_exceptions=True)

    assert [*results[::2]] == ["A", "C"]
    assert isinstance(results[1], KeyError)


async def test_a_call_that_fails_fails_for_all_it_carried(wire: Wire) -> None:
    """And for nobody else: the next call is a new one."""
    batch = Batcher(wire.send)
    futures = [await flying(batch, wire, "a")]
    wire.broken = StoreUnavailable("away")
    wire.gate.set()
    futures += [batch.submit("b"), batch.submit("c")]

    results = await asyncio.gather(*futures, return_exceptions=True)

    assert [*results] == [wire.broken] * 3
    wire.broken = None
    assert await batch.submit("d") == "D"


async def test_closing_waits_for_what_was_submitted(wire: Wire) -> None:
    """Nothing that was accepted is dropped."""
    batch = Batcher(wire.send)
    futures = [await flying(batch, wire), batch.submit("second")]

    closing = asyncio.create_task(batch.close())
    await asyncio.sleep(0)
    assert not closing.done()
    wire.gate.set()
    await closing

    assert [future.result() for future in futures] == ["FIRST", "SECOND"]


async def test_closing_an_idle_batch_is_done_at_once() -> None:
    """There is nothing to wait for."""
    await Batcher(Wire().send).close()
