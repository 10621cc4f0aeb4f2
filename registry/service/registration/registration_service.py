"""Registers agents, resolves their dependencies, and unregisters agents."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from registry.config.settings import Settings
from registry.errors import Detail, StoreUnavailable, UnprocessableRequest
from registry.model.registration.parse import Registration
from registry.model.resolution import CachedResolution
from registry.service.registration import registration_checks
from registry.service.registration.preconditions import parse_preconditions
from registry.service.registration.timeout_thresholds import resolve_thresholds
from registry.service.resolution.cycle_guard import CycleGuard
from registry.service.resolution.resolution_traces import ResolutionTraces
from registry.store.agents import Agents, EdgesChangedError, RegistrationOutcome, RegistrationResult, RegistrationWrite

# Each attempt fails only if another replica registers a new dependency edge during the check.
_MAX_CYCLE_CHECKS: Final = 50


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    """The result of a registration: the stored agent, and its resolved dependencies, None if it has none."""

    agent_id: str
    name: str
    outcome: RegistrationOutcome
    version: int
    resolution: CachedResolution | None


class RegistrationService:
    """Registers and unregisters agents; `format_timeouts` has the agent timeout of each format but the native one."""

    def __init__(
        self,
        agents: Agents,
        cycle_guard: CycleGuard,
        traces: ResolutionTraces,
        settings: Settings,
        format_timeouts: Mapping[str, timedelta],
    ) -> None:
        self._agents = agents
        self._cycle_guard = cycle_guard
        self._traces = traces
        self._default_timeout = settings.agent_timeout
        self._thresholds_by_type = settings.thresholds
        self._security_contexts = settings.security_contexts
        self._format_timeouts = format_timeouts

    async def register_and_resolve(
        self,
        registration: Registration,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        path: str = "",
    ) -> RegisteredAgent:
        """Register one agent and resolve its dependencies, including all changes made before this call.

        Raises the errors of `register`, and StoreUnavailable with outcome `unknown` if only the resolution failed.
        """
        stored = await self.register(registration, if_match=if_match, if_none_match=if_none_match, path=path)
        resolution = None
        if registration.resolves_dependencies:
            try:
                resolution = await self._traces.resolve_latest(registration.agent_id)
            except StoreUnavailable as error:
                raise StoreUnavailable(str(error), outcome="unknown", reason=error.reason) from error
        return RegisteredAgent(registration.agent_id, registration.name, stored.outcome, stored.version, resolution)

    async def register(
        self,
        registration: Registration,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        path: str = "",
    ) -> RegistrationResult:
        """Create or replace one agent. Errors name its fields with the prefix `path`.

        Raises UnprocessableRequest naming every invalid field, and StaleVersion for a precondition that fails.
        """
        timeout, eviction = resolve_thresholds(
            registration,
            self._thresholds_by_type,
            self._default_timeout,
            self._format_timeouts.get(registration.format),
        )
        context, capabilities = registration.security_context, registration.capabilities
        problems = registration_checks.find_missing_capabilities(self._security_contexts, context, capabilities)
        if eviction <= timeout:
            problem = f"must be greater than the timeout threshold of {timeout.total_seconds():g} s"
            problems.append(Detail("eviction_threshold", problem))
        problems += registration_checks.find_invalid_constraints(registration.constraints)
        problems += registration_checks.find_too_many_variants(registration.spec)
        precondition = parse_preconditions(registration.resource_version, if_match, if_none_match, problems)
        if problems:
            raise UnprocessableRequest.of([Detail(f"{path}{each.field}", each.problem) for each in problems])
        return await self._store(
            RegistrationWrite(
                agent_id=registration.agent_id,
                spec=registration.spec,
                timeout=_milliseconds(timeout),
                eviction=_milliseconds(eviction),
                precondition=precondition,
                counts_as_heartbeat=registration.counts_as_heartbeat,
                required_edges=registration_checks.required_edges(registration.spec),
            )
        )

    async def unregister(self, agent_id: str) -> int:
        """Remove one agent from the registry and return the version of its removal. Raises UnknownAgent."""
        return await self._agents.unregister(agent_id)

    async def _store(self, registration: RegistrationWrite) -> RegistrationResult:
        """Store an agent, after a check for dependency cycles if it has an edge that no other agent has."""
        try:
            return await self._agents.register(registration)
        except EdgesChangedError:
            async with self._cycle_guard.exclusive():
                for _ in range(_MAX_CYCLE_CHECKS):
                    revision = await self._cycle_guard.check(registration.agent_id, registration.required_edges)
                    try:
                        return await self._agents.register(replace(registration, edges_revision=revision))
                    except EdgesChangedError:
                        continue
                raise self._cycle_guard.overloaded() from None


def _milliseconds(duration: timedelta) -> int:
    return max(1, round(duration.total_seconds() * 1000))
