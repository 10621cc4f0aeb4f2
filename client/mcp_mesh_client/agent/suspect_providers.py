"""The providers that this process could not reach, which its calls avoid for some seconds."""

import time
from collections import OrderedDict
from dataclasses import dataclass

from mcp_mesh_client.types.dependencies import Provider

SUSPICION_S = 10.0
_MAX_SUSPECTS = 64


@dataclass(slots=True, eq=False)
class Suspicion:
    """The suspicion that a provider is unreachable, until `ends_at` on the monotonic clock.

    `last_heartbeat` is the time of the provider's last heartbeat when the suspicion was first checked.
    """

    provider: Provider
    ends_at: float
    is_checked: bool = False
    last_heartbeat: str | None = None

    @property
    def remaining(self) -> float:
        """The seconds until the suspicion ends."""
        return self.ends_at - time.monotonic()

    def extend(self, seconds: float = SUSPICION_S) -> None:
        """Let the suspicion end in this many seconds."""
        self.ends_at = time.monotonic() + seconds


class SuspectProviders:
    """The suspect providers of this process, at most 64; any thread may use it.

    A provider that registers another endpoint is another provider here.
    """

    def __init__(self) -> None:
        self._suspicions = OrderedDict[tuple[str, str], Suspicion]()

    def __contains__(self, provider: Provider) -> bool:
        suspicion = self._suspicions.get(_key(provider)) if self._suspicions else None
        return suspicion is not None and suspicion.remaining > 0

    def add(self, provider: Provider) -> bool:
        """Make a provider suspect; return whether it was not."""
        is_new = provider not in self
        if is_new:
            self._suspicions[_key(provider)] = Suspicion(provider, time.monotonic() + SUSPICION_S)
            if len(self._suspicions) > _MAX_SUSPECTS:
                self._suspicions.popitem(last=False)
        return is_new

    def active(self) -> list[Suspicion]:
        """Return the suspicions that have not ended, and forget the others."""
        for suspicion in tuple(self._suspicions.values()):
            if suspicion.remaining <= 0:
                self._suspicions.pop(_key(suspicion.provider), None)
        return list(self._suspicions.values())

    def clear(self) -> None:
        """End all suspicions."""
        self._suspicions.clear()


def _key(provider: Provider) -> tuple[str, str]:
    return provider["agent_id"], provider["endpoint"]
