"""The one endless loop. It never dies of an exception and never hides one."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from registry.errors import StoreUnavailable
from registry.telemetry.logs import get_logger

log = get_logger(__name__)


async def every(
    period: float,
    name: str,
    run_once: Callable[[], Awaitable[None]],
    *,
    max_pause: float | None = None,
    on_error: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> NoReturn:
    """Run `run_once` now and then each `period` seconds, until cancelled.

    Rounds start on a fixed grid: the schedule does not drift, and rounds missed by a long one are not made up for.
    After an exception the next round comes after a random pause between `period` and a bound that doubles with each
    failure in a row up to `max_pause` seconds (8 periods if None), so that replicas which failed together come back one
    by one. The exception is logged under `name`, and `on_error(name)` is called; cancellation passes through.

    Raises ValueError when `period` is not above 0, or `max_pause` is below it.
    """
    max_pause = 8 * period if max_pause is None else max_pause
    if not 0 < period <= max_pause:
        raise ValueError(f"expected 0 < period <= longest, got {period} and {max_pause}")
    bound, failures, due = period, 0, clock()
    while True:
        try:
            await run_once()
        except Exception as error:  # noqa: BLE001  a loop outlives whatever its body raises
            failures += 1
            bound = min(2 * bound, max_pause)
            now = clock()
            due = now + random.uniform(period, bound)  # noqa: S311  spreads replicas, guards nothing
            _log_failure(error, name, failures, due - now)
            if on_error is not None:
                on_error(name)
        else:
            bound, failures = period, 0
            now = clock()
            # At least one period on: a sleep may end a tick early, and the round be over at once.
            due += period * max(1, math.floor((now - due) / period) + 1)
        await sleep(due - now)


def _log_failure(error: Exception, name: str, failures: int, pause: float) -> None:
    facts = {"loop": name, "failures": failures, "next_try_in_s": round(pause, 3)}
    if isinstance(error, StoreUnavailable):
        # Known trouble that lasts is told less and less often.
        if failures.bit_count() == 1:
            log.warning(
                "The store is away, the loop tries again",
                **facts,
                reason=error.reason,
                problem=str(error.__cause__ or error),
            )
    else:
        log.error("The loop's round failed, it tries again; please report this", **facts, exc_info=error)
