"""Items submitted together are sent as one call, and each gets its own result."""

import asyncio
from collections.abc import Sequence

import pytest

from registry.errors import StoreUnavailable
from registry.store.redis.batcher import Batcher


class FakeSender:
    """A `send` function that returns each item in capitals once its gate is open."""

    def __init__(self, *, open_: bool = True) -> None:
        self.sent: list[list[str]] = []
        self.sent_calls = asyncio.Semaphore(0)
        self.gate = asyncio.Event()
        self.results: dict[str, Exception] = {}
        self.broken: Exception | None = None
        if open_:
            self.gate.set()

    async def send(self, items: Sequence[str]) -> Sequence[str | Exception]:
        """Record the call, wait for the gate, return the results."""
        self.sent.append([*items])
        self.sent_calls.release()
        await self.gate.wait()
        if self.broken is not None:
            raise self.broken
        return [self.results.get(item, item.upper()) for item in items]


@pytest.fixture
async def sender() -> FakeSender:
    """Provide a sender that blocks calls until its gate opens."""
    return FakeSender(open_=False)


async def submit_and_send(batch: Batcher[str, str], sender: FakeSender, item: str = "first") -> "asyncio.Future[str]":
    """Submit one item and return when its call is in flight."""
    future = batch.submit(item)
    await sender.sent_calls.acquire()
    return future


async def test_a_single_item_is_sent_at_once() -> None:
    """There is no timer: the call is sent in the next iteration of the event loop."""
    sender = FakeSender()
    batch = Batcher(sender.send)

    future = batch.submit("a")
    await asyncio.sleep(0)

    assert sender.sent == [["a"]]
    assert await future == "A"


async def test_items_of_one_loop_iteration_are_one_call() -> None:
    """They keep the order of arrival, each with its own result."""
    sender = FakeSender()
    batch = Batcher(sender.send)

    assert await asyncio.gather(*map(batch.submit, "abc")) == ["A", "B", "C"]
    assert sender.sent == [["a", "b", "c"]]


async def test_items_that_arrive_during_a_call_are_the_next_call(sender: FakeSender) -> None:
    """There is one call at a time."""
    batch = Batcher(sender.send)
    first = await submit_and_send(batch, sender)
    others = [batch.submit("a"), batch.submit("b")]
    await asyncio.sleep(0)
    assert sender.sent == [["first"]]

    sender.gate.set()

    assert await asyncio.gather(first, *others) == ["FIRST", "A", "B"]
    assert sender.sent == [["first"], ["a", "b"]]


async def test_a_call_has_at_most_the_maximum_number_of_items() -> None:
    """The rest follows in the next calls."""
    sender = FakeSender()
    batch = Batcher(sender.send, max_batch=3)

    assert await asyncio.gather(*map(batch.submit, "abcdefg")) == [*"ABCDEFG"]
    assert [len(call) for call in sender.sent] == [3, 3, 1]


async def test_an_item_above_the_queue_limit_is_rejected_at_once(sender: FakeSender) -> None:
    """The error is `StoreUnavailable` with its own reason; queued items are not affected."""
    batch = Batcher(sender.send, max_queued=2)
    first = await submit_and_send(batch, sender)
    waiting = [batch.submit("a"), batch.submit("b")]

    with pytest.raises(StoreUnavailable) as error:
        batch.submit("c")

    assert (error.value.reason, error.value.outcome) == ("queue_full", "not_sent")
    sender.gate.set()
    assert await asyncio.gather(first, *waiting) == ["FIRST", "A", "B"]


async def test_the_error_of_a_timeout_states_whether_the_item_was_sent(sender: FakeSender) -> None:
    """In flight: unknown. In the queue: not sent, and it will not be sent later."""
    batch = Batcher(sender.send, timeout=0.02)
    first = await submit_and_send(batch, sender)
    second = batch.submit("second")

    sent, queued = await asyncio.gather(first, second, return_exceptions=True)

    assert isinstance(sent, StoreUnavailable)
    assert isinstance(queued, StoreUnavailable)
    assert (sent.outcome, sent.reason) == ("unknown", "timeout")
    assert (queued.outcome, queued.reason) == ("not_sent", "timeout")
    sender.gate.set()
    await batch.close()
    assert sender.sent == [["first"]]


async def test_a_cancelled_caller_does_not_affect_the_call(sender: FakeSender) -> None:
    """The other callers get their results, and so does the next one."""
    batch = Batcher(sender.send)

    async def call(item: str) -> str:
        return await batch.submit(item)

    callers = [asyncio.create_task(call(item)) for item in "abc"]
    await sender.sent_calls.acquire()
    callers[1].cancel()
    sender.gate.set()

    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [results[0], results[2]] == ["A", "C"]
    assert isinstance(results[1], asyncio.CancelledError)
    assert await batch.submit("d") == "D"


async def test_an_item_of_a_cancelled_caller_is_not_sent(sender: FakeSender) -> None:
    """No caller would read the result."""
    batch = Batcher(sender.send)
    first = await submit_and_send(batch, sender)
    cancelled, remaining = batch.submit("left"), batch.submit("stayed")

    cancelled.cancel()
    sender.gate.set()

    assert [await first, await remaining] == ["FIRST", "STAYED"]
    assert sender.sent == [["first"], ["stayed"]]


async def test_a_bad_item_fails_alone() -> None:
    """An exception among the results is raised for its own caller."""
    sender = FakeSender()
    sender.results["b"] = KeyError("b")
    batch = Batcher(sender.send)

    results = await asyncio.gather(*map(batch.submit, "abc"), return_exceptions=True)

    assert [*results[::2]] == ["A", "C"]
    assert isinstance(results[1], KeyError)


async def test_a_failed_call_fails_for_all_its_items(sender: FakeSender) -> None:
    """Other items are not affected: the next call is a new one."""
    batch = Batcher(sender.send)
    futures = [await submit_and_send(batch, sender, "a")]
    sender.broken = StoreUnavailable("away")
    sender.gate.set()
    futures += [batch.submit("b"), batch.submit("c")]

    results = await asyncio.gather(*futures, return_exceptions=True)

    assert [*results] == [sender.broken] * 3
    sender.broken = None
    assert await batch.submit("d") == "D"


async def test_closing_waits_for_submitted_items(sender: FakeSender) -> None:
    """No accepted item is dropped."""
    batch = Batcher(sender.send)
    futures = [await submit_and_send(batch, sender), batch.submit("second")]

    closing = asyncio.create_task(batch.close())
    await asyncio.sleep(0)
    assert not closing.done()
    sender.gate.set()
    await closing

    assert [future.result() for future in futures] == ["FIRST", "SECOND"]


async def test_closing_an_idle_batch_is_done_at_once() -> None:
    """There is no call to wait for."""
    await Batcher(FakeSender().send).close()
