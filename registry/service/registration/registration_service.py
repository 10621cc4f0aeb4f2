"""Registers agents, resolves their dependencies, and unregisters agents."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from registry.config.settings import Settings
from registry.errors import Detail, StoreUnavailable, UnprocessableRequest
from registry.model.registration.parse import Registration
from registry.model.registration.warnings import RegistrationWarning
from registry.model.resolution import CachedResolution
from registry.service.registration import registration_checks
from registry.service.registration.identity_conflicts import IdentityConflictReporter, conflict_warning
from registry.service.registration.preconditions import parse_preconditions
from registry.service.registration.timeout_thresholds import resolve_thresholds
from registry.service.resolution.cycle_guard import CHECK_TIMEOUT_S, CycleGuard
from registry.service.resolution.resolution_traces import ResolutionTraces
from registry.store.agents import (
    Agents,
    EdgesChangedError,
    RegistrationOutcome,
    RegistrationResult,
    RegistrationWrite,
)


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    """The result of a registration: the stored agent, its resolved dependencies, None if it has none, and warnings."""

    agent_id: str
    name: str
    outcome: RegistrationOutcome
    version: int
    resolution: CachedResolution | None
    warnings: tuple[RegistrationWarning, ...] = ()


class RegistrationService:
    """Registers and unregisters agents; `format_timeouts` has the agent timeout of each format but the native one.

    `count_identity_conflict` is called when two agents seem to share one id.
    """

    def __init__(
        self,
        agents: Agents,
        cycle_guard: CycleGuard,
        traces: ResolutionTraces,
        settings: Settings,
        format_timeouts: Mapping[str, timedelta],
        count_identity_conflict: Callable[[], None] = lambda: None,
    ) -> None:
        self._agents = agents
        self._cycle_guard = cycle_guard
        self._traces = traces
        self._default_timeout = settings.agent_timeout
        self._thresholds_by_type = settings.thresholds
        self._security_contexts = settings.security_contexts
        self._format_timeouts = format_timeouts
        self._identity_conflicts = IdentityConflictReporter(count_identity_conflict)

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
        warnings = registration.warnings
        if stored.conflict is not None:
            warnings = (*warnings, conflict_warning(registration, stored.conflict, path))
        return RegisteredAgent(
            registration.agent_id, registration.name, stored.outcome, stored.version, resolution, warnings
        )

    async def register(
        self,
        registration: Registration,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        path: str = "",
    ) -> RegistrationResult:
        """Create or replace one agent. Errors name its fields with the prefix `path`.

        Raises UnprocessableRequest naming every invalid field, StaleVersion for a precondition that fails, and IdInUse
        for an exclusive registration of an id that a living agent at another endpoint has.
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
        stored = await self._store(
            RegistrationWrite(
                agent_id=registration.agent_id,
                spec=registration.spec,
                timeout=_milliseconds(timeout),
                eviction=_milliseconds(eviction),
                precondition=precondition,
                counts_as_heartbeat=registration.counts_as_heartbeat,
                required_edges=registration_checks.required_edges(registration.spec),
                namespace=registration.namespace,
                endpoint=registration.endpoint,
                exclusive=registration.exclusive,
            )
        )
        if stored.conflict is not None:
            self._identity_conflicts.report(registration, stored.conflict)
        return stored

    async def unregister(self, agent_id: str) -> int:
        """Remove one agent from the registry and return the version of its removal. Raises UnknownAgent."""
        return await self._agents.unregister(agent_id)

    async def _store(self, registration: RegistrationWrite) -> RegistrationResult:
        """Store an agent, after a check for dependency cycles if it has an edge that no other agent has."""
        try:
            return await self._agents.register(registration)
        except EdgesChangedError:
            async with self._cycle_guard.exclusive():
                # Other replicas may add an edge between each check and its write.
                deadline = time.monotonic() + CHECK_TIMEOUT_S
                while time.monotonic() < deadline:
                    revision = await self._cycle_guard.check(registration.agent_id, registration.required_edges)
                    try:
                        return await self._agents.register(replace(registration, edges_revision=revision))
                    except EdgesChangedError:
                        continue
                raise self._cycle_guard.overloaded() from None


def _milliseconds(duration: timedelta) -> int:
    return max(1, round(duration.total_seconds() * 1000))
