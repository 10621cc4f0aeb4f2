"""The strategies that choose one provider from a ranking."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

from registry.model.registration.schema import Strategy
from registry.model.resolution import Provider

MAX_PROVIDERS_BY_LOAD: Final = 1_000
"""The number of best-ranked providers from which `least_loaded` chooses."""

# A float between 0 and 1 represents this many random bits exactly.
_HASH_BITS = 52


@dataclass(frozen=True, slots=True)
class SelectionContext:
    """The inputs of a strategy; with equal inputs every replica chooses the same provider.

    `seed` drives `random` and `weighted`, `key` drives `sticky`, `round_robin_index` counts the choices of
    `round_robin`, `zone` is the zone of the consumer for `local`; `loads` maps agents to their last reported load.
    """

    seed: str = ""
    key: str = ""
    round_robin_index: int = 0
    zone: str | None = None
    loads: Mapping[str, float] = field(default_factory=dict)


def choose(providers: Sequence[Provider], strategy: Strategy, context: SelectionContext) -> Provider | None:
    """Return the provider that a strategy chooses from a ranking, None if the ranking is empty.

    All strategies but `best` and `local` choose among the providers with the same health and tag score as the best, and
    only among those without a late heartbeat if there are any.
    """
    if not providers or strategy == "best":
        return providers[0] if providers else None
    best = providers[0]
    if strategy == "local":
        near = (each for each in providers if each.zone is not None and each.zone == context.zone)
        return next((each for each in near if (each.degraded, each.late) <= (best.degraded, best.late)), best)
    alike = list(takewhile(lambda each: (each.degraded, each.score) == (best.degraded, best.score), providers))
    alike = [each for each in alike if not each.late] or alike
    if strategy == "round_robin":
        alike.sort(key=lambda each: (each.agent_id, each.position))
        return alike[context.round_robin_index % len(alike)]
    if strategy == "least_loaded":
        # Only the loads of these providers are refreshed; cached loads of other providers differ between replicas.
        return min(alike[:MAX_PROVIDERS_BY_LOAD], key=lambda each: _rounded_load(context.loads.get(each.agent_id)))
    seed = context.key if strategy == "sticky" else context.seed
    return max(alike, key=lambda each: _rendezvous_score(seed, each, each.weight if strategy == "weighted" else 1.0))


def _rendezvous_score(seed: str, provider: Provider, weight: float) -> float:
    """Return the pseudo-random score of a provider (rendezvous hashing); the highest score is chosen.

    When a provider is removed, only its consumers get another. The probability of each is proportional to its weight.
    """
    text = f"{seed}\0{provider.agent_id}\0{provider.tool_name}".encode(errors="surrogatepass")
    drawn = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> (64 - _HASH_BITS)
    # The fraction is strictly between 0 and 1.
    return weight / -math.log((drawn + 0.5) / (1 << _HASH_BITS))


def _rounded_load(load: float | None) -> float:
    """Round an agent's load to one digit, so that small changes do not change the choice; None becomes infinite."""
    return math.inf if load is None else float(f"{load:.0e}")
