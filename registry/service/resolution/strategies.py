"""How to choose among those that will do."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

from registry.model.registration.schema import Strategy
from registry.model.resolution import Provider

MAX_PROVIDERS_BY_LOAD: Final = 1_000
"""The number of providers, in the order of their ranking, that `least_loaded` chooses from."""

# As many as a double between 0 and 1 can tell apart.
_HASH_BITS = 52


@dataclass(frozen=True, slots=True)
class SelectionContext:
    """Who chooses, as far as it matters: the same asks for the same and gets the same, on every replica.

    `seed` is what chance and weights go by, `key` what sticky keeps together, `round_robin_index` which turn it is,
    `zone` where the choice is made; `loads` are the loads that agents have told of themselves.
    """

    seed: str = ""
    key: str = ""
    round_robin_index: int = 0
    zone: str | None = None
    loads: Mapping[str, float] = field(default_factory=dict)


def choose(providers: Sequence[Provider], strategy: Strategy, context: SelectionContext) -> Provider | None:
    """Return the one to take of a ranking, None where there is nobody.

    But for `best` and `local`, the choice is among those that are as healthy as the best and meet the tags as well.
    """
    if not providers or strategy == "best":
        return providers[0] if providers else None
    best = providers[0]
    if strategy == "local":
        near = (each for each in providers if each.zone is not None and each.zone == context.zone)
        return next((each for each in near if each.degraded == best.degraded), best)
    alike = list(takewhile(lambda each: (each.degraded, each.score) == (best.degraded, best.score), providers))
    if strategy == "round_robin":
        alike.sort(key=lambda each: (each.agent_id, each.position))
        return alike[context.round_robin_index % len(alike)]
    if strategy == "least_loaded":
        # What is known of the others may be as old as the replica, and is not the same on all.
        return min(alike[:MAX_PROVIDERS_BY_LOAD], key=lambda each: _rounded_load(context.loads.get(each.agent_id)))
    seed = context.key if strategy == "sticky" else context.seed
    return max(alike, key=lambda each: _rendezvous_score(seed, each, each.weight if strategy == "weighted" else 1.0))


def _rendezvous_score(seed: str, provider: Provider, weight: float) -> float:
    """Return a lot drawn for a provider (rendezvous hashing): when one goes, only what had it goes elsewhere.

    The highest of these falls on each as often as its weight says.
    """
    text = f"{seed}\0{provider.agent_id}\0{provider.tool_name}".encode(errors="surrogatepass")
    drawn = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> (64 - _HASH_BITS)
    # Between 0 and 1, and neither of them.
    return weight / -math.log((drawn + 0.5) / (1 << _HASH_BITS))


def _rounded_load(load: float | None) -> float:
    """Return a load to one digit, so that small moves send nobody elsewhere; one that was never told is the highest."""
    if load is None:
        return math.inf
    return float(f"{load:.0e}")
