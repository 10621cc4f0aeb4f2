"""Identity conflicts: two agents that seem to share one id, in the metrics, the log and the response."""

import time
from collections.abc import Callable
from typing import Final

from registry.concurrency.lru import WeightedLru
from registry.model.registration.parse import Registration
from registry.model.registration.warnings import RegistrationWarning
from registry.store.agents import IdentityConflict
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

_LOG_INTERVAL_S: Final = 60.0
# Beyond it, the ids whose conflicts are oldest are logged again with their next conflict.
_MAX_IDS: Final = 10_000


class IdentityConflictReporter:
    """Counts each conflict with `count`, and logs the conflicts of one id at most once a minute, with their number."""

    def __init__(self, count: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._clock = clock
        # Per id, the time of the last log line, and the number of conflicts since then.
        self._logged: WeightedLru[str, tuple[float, int]] = WeightedLru(_MAX_IDS)

    def report(self, registration: Registration, replaced: IdentityConflict) -> None:
        """Count one conflict, and log it unless its id was logged within the last minute."""
        self._count()
        now = self._clock()
        logged_at, unlogged = self._logged.get(registration.agent_id) or (None, 0)
        if logged_at is not None and now - logged_at < _LOG_INTERVAL_S:
            self._logged.put(registration.agent_id, (logged_at, unlogged + 1), 1)
            return
        self._logged.put(registration.agent_id, (now, 0), 1)
        log.warning(
            "identity_conflict",
            id=registration.agent_id,
            conflicts=unlogged + 1,
            namespace=registration.namespace,
            endpoint=registration.endpoint,
            replaced_namespace=replaced.namespace,
            replaced_endpoint=replaced.endpoint,
        )


def conflict_warning(registration: Registration, replaced: IdentityConflict, path: str) -> RegistrationWarning:
    """Return the warning in the response to a registration that replaced an agent; `path` precedes its field."""
    if replaced.namespace != registration.namespace:
        problem = f"replaces a living agent of the namespace {replaced.namespace} at {replaced.endpoint}"
    else:
        problem = f"is registered alternately with the endpoints {replaced.endpoint} and {registration.endpoint}"
    return RegistrationWarning(f"{path}id", f"{problem}; give each agent an id of its own")
