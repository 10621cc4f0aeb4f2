"""What may register, which thresholds it gets, and under which precondition."""

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from registry.config.settings import Settings
from registry.config.types import Thresholds
from registry.errors import Detail, MalformedRequest, UnprocessableRequest
from registry.model.agent import NATIVE_FORMAT, decode_indexed_spec
from registry.model.registration.parse import Registration
from registry.service.registration.security_contexts import SecurityContexts
from registry.service.resolution.cycle_guard import MAX_REQUIRED_EDGES, CycleGuard, Edge
from registry.service.versions import parse_constraint
from registry.store import agents as store

_ENTITY_TAG_PATTERN = re.compile(r'(?:W/)?"(\d+)"|(\d+)')
# How a canonical spec begins to say what a dependency needs.
_CAPABILITY_KEY_JSON = b'"capability":'
MAX_VARIANTS_PER_CAPABILITY: Final = 100
"""In how many ways one agent may need a capability: each is compared with all who have it."""
_MAX_REPORTED_ERRORS: Final = 20
# How often capabilities may require something, each time counted: all require what the agent as a whole does.
_MAX_REQUIRED_PAIRS: Final = 10_000
# How a canonical spec says that a dependency is required.
_REQUIRED_TRUE_JSON = b'"required":true'
# Mesh clients give a sign of life every 5 s, and are used to being missed after so long.
_MCPMESH_TIMEOUT = timedelta(seconds=20)
# More digits than any version has; what is longer is no version at all.
_MAX_VERSION_DIGITS = 20


class RegistrationService:
    """Registers and unregisters agents."""

    def __init__(self, agents: store.Agents, cycle_guard: CycleGuard, settings: Settings) -> None:
        self._agents = agents
        self._cycle_guard = cycle_guard
        self._default_timeout = settings.agent_timeout
        self._thresholds_by_type: Mapping[str, Thresholds] = settings.thresholds
        self._security_contexts = SecurityContexts(settings.security_contexts)

    async def register(
        self,
        registration: Registration,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        path: str = "",
    ) -> store.RegistrationResult:
        """Create or replace one agent. `path` stands before the fields that errors name.

        Raises UnprocessableRequest naming every field that rules it out, StaleVersion for a precondition that fails.
        """
        timeout, eviction = self._resolve_thresholds(registration)
        problems = self._security_contexts.problems(registration.security_context, registration.capabilities)
        if eviction <= timeout:
            problem = f"must be above the timeout threshold of {timeout.total_seconds():g} s"
            problems.append(Detail("eviction_threshold", problem))
        problems += _invalid_constraints(registration.constraints)
        problems += _too_many_variants(registration.spec)
        preconditions = {
            _parse_precondition("resource_version", registration.resource_version, problems),
            _parse_precondition("If-Match", if_match, problems),
            _parse_if_none_match(if_none_match, problems),
        } - {""}
        if len(preconditions) > 1:
            problems.append(Detail("resource_version", "contradicts the precondition in the headers; send one of them"))
        if problems:
            named = tuple(Detail(f"{path}{problem.field}", problem.problem) for problem in problems)
            raise UnprocessableRequest(f"{named[0].field}: {named[0].problem}", named)
        return await self._cycle_guard.register(
            store.RegistrationWrite(
                agent_id=registration.agent_id,
                spec=registration.spec,
                timeout=_milliseconds(timeout),
                eviction=_milliseconds(eviction),
                precondition=next(iter(preconditions), ""),
                counts_as_heartbeat=registration.counts_as_heartbeat,
                required_edges=_required_edges(registration.spec),
            )
        )

    async def unregister(self, agent_id: str) -> int:
        """Remove one agent and return the version of its removal. Raises UnknownAgent."""
        return await self._agents.unregister(agent_id)

    def _resolve_thresholds(self, registration: Registration) -> tuple[timedelta, timedelta]:
        """Return how long the agent may be silent until it is degraded, and until it is expired."""
        by_type = self._thresholds_by_type.get(registration.agent_type)
        beat = timedelta(seconds=registration.health_interval or 0)
        if registration.timeout_threshold is not None:
            timeout = timedelta(seconds=registration.timeout_threshold)
        else:
            usual = (
                min(self._default_timeout, _MCPMESH_TIMEOUT)
                if registration.format != NATIVE_FORMAT
                else max(self._default_timeout, 2 * beat)
            )
            timeout = by_type.timeout if by_type else usual
        if registration.eviction_threshold is not None:
            return timeout, timedelta(seconds=registration.eviction_threshold)
        if by_type and registration.timeout_threshold is None:
            return timeout, by_type.eviction
        return timeout, 2 * timeout


def _too_many_variants(spec: bytes) -> list[Detail]:
    """Return which capabilities an agent needs in too many ways; most specs need not be read for that."""
    if spec.count(_CAPABILITY_KEY_JSON) <= MAX_VARIANTS_PER_CAPABILITY:
        return []
    ways: dict[str, set[object]] = {}
    for _, needs in decode_indexed_spec(spec).functions:
        for need in needs:
            ways.setdefault(need.capability, set()).add((need.match_key, need.namespace))
    return [
        Detail(
            "dependencies",
            f"want {name} in {len(each)} ways, by version, tags and more; "
            f"at most {MAX_VARIANTS_PER_CAPABILITY} are taken",
        )
        for name, each in ways.items()
        if len(each) > MAX_VARIANTS_PER_CAPABILITY
    ][:_MAX_REPORTED_ERRORS]


def _required_edges(spec: bytes) -> frozenset[Edge]:
    """Return which capabilities cannot do without which; most specs need not be read for that.

    No more than suffice to see that they are too many.
    """
    found: set[Edge] = set()
    for count, edge in enumerate(
        decode_indexed_spec(spec).iter_required_edges if _REQUIRED_TRUE_JSON in spec else (), start=1
    ):
        found.add(edge)
        if len(found) > MAX_REQUIRED_EDGES:
            break
        if count > _MAX_REQUIRED_PAIRS:
            problem = f"at most {_MAX_REQUIRED_PAIRS:,} pairs of a capability and something that is required are taken"
            raise UnprocessableRequest(problem, [Detail("dependencies", problem)])
    return frozenset(found)


def _invalid_constraints(constraints: Iterable[tuple[str, str]]) -> list[Detail]:
    """Return what is wrong with version constraints, each given with its field."""
    problems = []
    for field, text in constraints:
        try:
            parse_constraint(text)
        except MalformedRequest as error:
            problems.append(Detail(field, error.details[0].problem))
    return problems


def _milliseconds(duration: timedelta) -> int:
    return max(1, round(duration.total_seconds() * 1000))


def _parse_precondition(field: str, text: str | None, problems: list[Detail]) -> str:
    """Return the store's word for `N`, `"N"`, `W/"N"` or `*`; '' for none."""
    if text is None:
        return ""
    if text.strip() == "*" and field == "If-Match":
        return "present"
    found = _ENTITY_TAG_PATTERN.fullmatch(text.strip())
    digits = (found[1] or found[2]) if found else ""
    if not digits.isascii() or not 0 < len(digits) <= _MAX_VERSION_DIGITS:
        problems.append(Detail(field, f"expected a resource version, a decimal number, got {text[:60]!r}"))
        return ""
    return str(int(digits)) if int(digits) else "absent"


def _parse_if_none_match(text: str | None, problems: list[Detail]) -> str:
    if text is None:
        return ""
    if text.strip() != "*":
        problems.append(Detail("If-None-Match", "only * is understood here: register only if there is no such agent"))
        return ""
    return "absent"
