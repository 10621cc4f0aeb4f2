"""Pulse once a second, and tell of what keeps the sweep from moving agents on: outages, grace and holds."""

import time
from collections.abc import Callable
from typing import Any

from registry.config.settings import Settings
from registry.errors import StoreUnavailable
from registry.model.encoding.agent_json import rfc3339
from registry.store.server_health import Hold, Signs, Vitals
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# Seconds without a pulse of any replica that are an outage; lua/include/pulse.lua decides it, this one only tells.
_OUTAGE = 5.0


class Pulsing:
    """One round of the pulse, and the signs it saw last.

    Every replica logs what begins and what ends, so that the log of any of them tells the story. `on_rewind` is told
    the time and that to which Redis' clock went back, at each pulse until no time in Redis lies in the future. `clock`
    is monotonic seconds; the times in signs are the Redis server's.
    """

    def __init__(
        self,
        vitals: Vitals,
        settings: Settings,
        *,
        on_rewind: Callable[[int, int], None] = lambda _now, _to: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.signs: Signs | None = None
        self._vitals = vitals
        self._timeout = int(settings.agent_timeout.total_seconds() * 1000)
        self._on_rewind = on_rewind
        self._clock = clock
        self._reached = clock()
        self._away = False
        self._graced = False

    async def pulse(self) -> None:
        """Note that Redis is reachable for this replica, and log what is new since the last time."""
        try:
            signs = await self._vitals.pulse()
        except StoreUnavailable:
            if not self._away and self._clock() - self._reached > _OUTAGE:
                self._away = True
                log.warning("an outage: Redis is out of this replica's reach", seconds=round(_OUTAGE))
            raise
        before, self.signs = self.signs, signs
        self._reached = self._clock()
        if self._away:
            self._away = False
            log.warning("Redis is within this replica's reach again")
        fell_back = before is not None and signs.now < before.now
        if signs.outage_end is not None and (fell_back or signs.rewinding or (before is not None and before.rewinding)):
            self._on_rewind(signs.now, signs.outage_end)
        self._tell_of_outage(before, signs)
        self._tell_of_hold(before.hold if before else None, signs)

    def _tell_of_outage(self, before: Signs | None, signs: Signs) -> None:
        if signs.outage_end is None:
            return
        until = signs.outage_end + self._timeout
        if (before is None or before.outage_end != signs.outage_end) and signs.now < until:
            self._graced = True
            tell = log.info if signs.outage_start is None else log.warning
            tell(
                "an outage is over; agents that it kept from being heard have their own timeout from now",
                cause=cause(signs),
                since=None if signs.outage_start is None else rfc3339(signs.outage_start),
                until=rfc3339(signs.outage_end),
            )
        elif self._graced and signs.now >= until:
            self._graced = False
            log.info("the grace after the outage is over, but for agents with a longer timeout", graced=signs.graced)

    def _tell_of_hold(self, before: Hold | None, signs: Signs) -> None:
        now = signs.hold
        if now is not None and is_on(signs) and (before is None or before.since != now.since):
            log.warning(
                "a hold begins: so many agents fell silent together that none is moved on",
                since=rfc3339(now.since),
                until=rfc3339(now.until),
                silent=now.silent,
                healthy=now.healthy,
            )
        elif before is not None and before.ended is None and (now is None or now.ended is not None):
            released = now is not None and now.ended is not None and now.ended < now.until
            log.warning("the hold is over; all overdue agents go", released=released, overdue=signs.overdue)


def is_on(signs: Signs) -> bool:
    """Tell whether a hold is on."""
    return signs.hold is not None and signs.hold.ended is None


def cause(signs: Signs) -> str:
    """Name what the last outage was, as far as the pulses tell."""
    if signs.outage_start is None or signs.outage_end is None:
        return "first_pulse"
    return "clock_went_back" if signs.outage_start > signs.outage_end else "no_pulse"


def outage_document(signs: Signs | None) -> dict[str, Any]:
    """Return what `/health` shows of the last outage: all null where there was none, or none is known."""
    known = signs is not None and signs.outage_end is not None
    return {
        "cause": cause(signs) if signs is not None and known else None,
        "since": _moment(signs.outage_start) if signs is not None else None,
        "until": _moment(signs.outage_end) if signs is not None else None,
        "graced": signs.graced if signs is not None else 0,
        "rewinding": signs is not None and signs.rewinding,
    }


def hold_document(signs: Signs | None) -> dict[str, Any]:
    """Return what `/health` shows of a hold: all null where there is none and none is known."""
    hold = signs.hold if signs is not None else None
    active = signs is not None and is_on(signs)
    return {
        "active": active,
        "since": _moment(hold.since) if hold else None,
        "until": _moment(hold.ended or hold.until) if hold else None,
        "silent": hold.silent if hold else 0,
        "healthy": hold.healthy if hold else 0,
        "held": signs.overdue if signs is not None and active else 0,
        "holds": signs.holds if signs is not None else 0,
    }


def _moment(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)
