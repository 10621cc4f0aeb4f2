"""`every`: run a background task periodically, log its failures, and retry it with backoff."""

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
    """Run `run_once` immediately and then every `period` seconds, until cancelled.

    Iterations start on a fixed grid: the schedule does not drift, and iterations missed by a long one are skipped.
    After an exception the next iteration follows after a random pause between `period` and a limit that doubles with
    each consecutive failure up to `max_pause` seconds (8 periods if None), so that replicas do not retry all at once.
    The exception is logged under `name`, and `on_error(name)` is called.

    Raises ValueError if `period` is not above 0, or `max_pause` is below it.
    """
    max_pause = 8 * period if max_pause is None else max_pause
    if not 0 < period <= max_pause:
        raise ValueError(f"expected 0 < period <= max_pause, got {period} and {max_pause}")
    max_backoff, failures, due = period, 0, clock()
    while True:
        try:
            await run_once()
        except Exception as error:  # noqa: BLE001  a loop continues after any exception of its body
            failures += 1
            max_backoff = min(2 * max_backoff, max_pause)
            now = clock()
            due = now + random.uniform(period, max_backoff)  # noqa: S311  not for cryptography
            _log_failure(error, name, failures, due - now)
            if on_error is not None:
                on_error(name)
        else:
            max_backoff, failures = period, 0
            now = clock()
            # At least one period later, because a sleep may end slightly too early.
            due += period * max(1, math.floor((now - due) / period) + 1)
        await sleep(due - now)


def _log_failure(error: Exception, name: str, failures: int, pause: float) -> None:
    fields = {"loop": name, "failures": failures, "retry_in_s": round(pause, 3)}
    if isinstance(error, StoreUnavailable):
        # A lasting outage is logged at failures 1, 2, 4, 8 and so on; the store itself logs refused access.
        if failures.bit_count() == 1 and error.reason != "auth":
            log.warning("loop_store_unavailable", **fields, reason=error.reason, error=str(error.__cause__ or error))
    else:
        log.error("loop_failed", **fields, exc_info=error)
