"""The registry's own state: counts, totals, who leads, what to worry about."""

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.cache.reflector import Feed
from registry.errors import RegistryError, StartupError, StoreUnavailable
from registry.model.agent import STATUSES, Status
from registry.model.encoding.agent_json import rfc3339
from registry.service.liveness.store_monitor import Pulsing, hold_document, is_on, outage_document
from registry.service.liveness.sweeper import Sweeping
from registry.store.change_notifier import Bell
from registry.store.leader import Lock
from registry.store.server_health import Signs, Vitals
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

_EXAMINE_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class Census:
    """How many agents there are of each status, how many drain, how many capabilities, how many names of these."""

    agents: Mapping[Status, int]
    draining: int
    capabilities: int
    capability_types: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """How the sweep fares: whether this replica does it, its refused tries, who leads, and what the last pulse saw."""

    here: bool
    refused: int
    leader: Lock | None
    signs: Signs | None

    @property
    def held(self) -> bool:
        """Whether a hold is on."""
        return self.signs is not None and is_on(self.signs)


class Overview:
    """Gathers what `/health`, `/ready` and `/metrics` show. Set `draining` when the replica is going down."""

    def __init__(
        self,
        feed: Feed,
        bell: Bell,
        sweeping: Sweeping,
        pulsing: Pulsing,
        vitals: Vitals,
        *,
        instance: str,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.draining = False
        self._feed = feed
        self._bell = bell
        self._sweeping = sweeping
        self._pulsing = pulsing
        self._vitals = vitals
        self._instance = instance
        self._settings_warnings = warnings
        self._store_warnings: tuple[str, ...] = ()
        self._examined = -math.inf
        self._totals: Mapping[str, int] = {}

    def census(self) -> Census:
        """Count the mesh as this replica holds it: the same on each replica but for the moment."""
        view = self._feed.view
        if view is None:
            return Census(dict.fromkeys(STATUSES, 0), 0, 0, 0)
        return Census(view.counts(), len(view.draining), view.capabilities, len(view.by_capability))

    async def totals(self) -> Mapping[str, int]:
        """Return the mesh-wide counters, and let a census after it be fresh; the last known when the store is away."""
        with contextlib.suppress(RegistryError):
            self._totals = await self._vitals.totals()
            await self._feed.fresh()
        return self._totals

    async def look_at_store(self) -> None:
        """Check how the store is set up, once a minute and behind each new connection; a new warning is logged."""
        due = time.monotonic() - self._examined >= _EXAMINE_EVERY
        if not due and not self._vitals.reconnected:
            return
        found = (await self._vitals.examine()).all
        self._examined = time.monotonic()
        for warning in found:
            if warning not in self._store_warnings:
                log.warning("the store is not set up to keep what it acknowledges", warning=warning)
        self._store_warnings = found

    async def admit_store(self) -> None:
        """Raise StartupError when the store is too old for the scripts; one that is away is looked at later."""
        with contextlib.suppress(StoreUnavailable):
            findings = await self._vitals.examine()
            if findings.too_old:
                raise StartupError(findings.too_old)

    @property
    def ready(self) -> bool:
        """Whether this replica should get requests: its cache is filled and followed, and it is not going down."""
        return self._feed.following and not self.draining

    async def release(self) -> bool:
        """End the hold of a mass silence; False when there is none."""
        released = await self._sweeping.release()
        with contextlib.suppress(RegistryError):  # it is done; only what is shown of it would come a second later
            await self._pulsing.pulse()
        return released

    def sweep(self) -> Sweep:
        """Return how the sweep fares, in numbers."""
        return Sweep(self._sweeping.sweeps, self._sweeping.refused, self._sweeping.lock, self._pulsing.signs)

    def health(self) -> dict[str, Any]:
        """Return what /health shows."""
        view, lock = self._feed.view, self._sweeping.lock
        return {
            "status": "healthy" if self._feed.following else "degraded",
            "instance": self._instance,
            "ready": self.ready,
            "resource_version": None if view is None else str(view.version),
            "history": None if view is None else view.history,
            "behind_seconds": round(self._feed.behind, 1),
            "bell": self._bell.sound,
            "leader": {
                "leading": self._sweeping.leads,
                "election": self._sweeping.elects,
                "instance": lock.instance if lock else None,
                "host": lock.host if lock else None,
                "pid": lock.pid if lock else None,
                "epoch": lock.epoch if lock else None,
                "since": rfc3339(lock.since) if lock else None,
            },
            "outage": outage_document(self._pulsing.signs),
            "hold": hold_document(self._pulsing.signs),
            "warnings": [*self._settings_warnings, *self._store_warnings],
        }
