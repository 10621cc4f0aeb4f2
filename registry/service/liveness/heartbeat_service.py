"""Processes heartbeats: extends the agent's deadline, merges its metadata, and resolves its dependencies."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from registry.cache.reflector import Reflector
from registry.cache.view import View
from registry.errors import Detail, StaleVersion, StoreUnavailable, UnknownAgent, UnprocessableRequest
from registry.model.resolution import CachedResolution
from registry.service.liveness.metadata_merge import merge_metadata
from registry.service.registration.registration_service import RegistrationService
from registry.service.resolution.resolution_traces import ResolutionTraces
from registry.service.resolution.resolver import DependencyResolver
from registry.store.agents import Agents, HeartbeatResult

# Of several concurrent updates of one agent, one succeeds in each attempt.
_MAX_MERGE_ATTEMPTS: Final = 100
# How long a heartbeat waits for a newer view.
_REFRESH_TIMEOUT_S: Final = 1.0
# The store gathers heartbeats into calls; this many of one request are in flight at once.
_HEARTBEATS_PER_BATCH: Final = 200


class HeartbeatService:
    """Records heartbeats and returns resolved dependencies.

    The response to a heartbeat reflects every write that was acknowledged before the request arrived: Redis returns its
    resource version with the heartbeat, and the response waits until the cache has reached it. If the cache does not
    reach it in time, the changes are sent with the next heartbeat. The digest of a response is stored before the
    response is returned. `metadata_errors` maps each registration format that does not allow metadata in heartbeats to
    the error message.
    """

    def __init__(
        self,
        reflector: Reflector,
        agents: Agents,
        registrations: RegistrationService,
        resolver: DependencyResolver,
        traces: ResolutionTraces,
        metadata_errors: Mapping[str, str],
    ) -> None:
        self._reflector = reflector
        self._agents = agents
        self._registrations = registrations
        self._resolver = resolver
        self._traces = traces
        self._metadata_errors = metadata_errors

    async def heartbeat(
        self,
        agent_id: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        load: float | None = None,
        client_digest: str | None = None,
    ) -> tuple[int, bytes]:
        """Record a heartbeat; return its Redis time and the JSON response fields with the agent's dependencies.

        `metadata` is merged into the registration, `load` is stored, `client_digest` is the digest of the resolution
        that the agent already has. If the resolution is unchanged, or the agent declares no dependencies, there are no
        response fields. Raises UnknownAgent, and UnprocessableRequest for invalid metadata.
        """
        encoded_load = "" if load is None else repr(load)
        view = await self._merge_metadata(agent_id, metadata) if metadata else self._reflector.view
        record = None if view is None else view.records.get(agent_id)
        resolution: CachedResolution | None = None
        if view is None or record is None:
            at = (await self._record(agent_id, load=encoded_load)).now
            # The agent may have registered through another replica. Before the first fill nothing can be resolved.
            if view is not None:
                if metadata:
                    await self._merge_metadata(agent_id, metadata)
                resolution = await self._traces.resolve_latest(agent_id)
        else:
            resolution = self._resolver.find_current(view, record)
            if resolution is None:
                resolution = await self._resolver.resolve_current(view, record)
            recorded = await self._record(agent_id, load=encoded_load, response_digest=resolution.digest)
            at = recorded.now
            # Another stored digest can be that of dependencies which the agent registered through another replica.
            may_have_dependencies = resolution.lookup_keys or recorded.response_digest
            if may_have_dependencies and resolution.version < recorded.version:
                view, resolution = await self._resolve_again(view, resolution, recorded.version)
            if resolution.lookup_keys and resolution.sent_digest != resolution.digest:
                await self._traces.save(view, resolution, at)
        return at, b"" if resolution is None or resolution.digest == client_digest else resolution.encoded_fields

    async def heartbeat_many(self, agent_ids: Sequence[str]) -> list[int | UnknownAgent | StoreUnavailable]:
        """Record the heartbeats of many agents; return the time or the error for each agent, in the given order."""
        results: list[int | UnknownAgent | StoreUnavailable] = []
        for at in range(0, len(agent_ids), _HEARTBEATS_PER_BATCH):
            batch = agent_ids[at : at + _HEARTBEATS_PER_BATCH]
            for result in await asyncio.gather(*map(self._record, batch), return_exceptions=True):
                if isinstance(result, BaseException):
                    if not isinstance(result, UnknownAgent | StoreUnavailable):
                        raise result
                    results.append(result)
                else:
                    results.append(result.now)
        return results

    async def _record(self, agent_id: str, *, load: str = "", response_digest: str = "") -> HeartbeatResult:
        """Extend the deadline of one agent; return the time of the heartbeat and the version. Raises UnknownAgent.

        `load` is the reported load, `response_digest` the digest of the resolution in the response, '' for none.
        """
        result = await self._agents.heartbeat(agent_id, load=load, response_digest=response_digest)
        if result.outcome == "unknown_agent":
            raise UnknownAgent(agent_id)
        if result.outcome == "bad_record":
            raise StoreUnavailable.damaged_record(agent_id)
        return result

    async def _resolve_again(
        self, view: View, resolution: CachedResolution, version: int
    ) -> tuple[View, CachedResolution]:
        """Return a resolution with all changes up to `version`, and its view; store its digest if it is another one.

        Returns the given ones if the cache does not reach the version in time, or the agent was removed.
        """
        agent_id = resolution.agent.id
        latest = self._reflector.view or view
        if latest.version < version:
            latest = await self._refreshed_or(latest)
        record = latest.records.get(agent_id)
        if record is None:
            return view, resolution
        found = self._resolver.find_current(latest, record)
        if found is None:
            found = await self._resolver.resolve_current(latest, record)
        if found.digest != resolution.digest:
            await self._agents.heartbeat(agent_id, "record", response_digest=found.digest)
        return latest, found

    async def _refreshed_or(self, view: View) -> View:
        """Return a view with all changes made before this call, or the given view if the refresh takes too long.

        The heartbeat succeeds in both cases; a change that is missed now is sent with the next heartbeat.
        """
        try:
            async with asyncio.timeout(_REFRESH_TIMEOUT_S):
                return await self._reflector.wait_fresh()
        except (StoreUnavailable, TimeoutError):
            return view

    async def _merge_metadata(self, agent_id: str, metadata: Mapping[str, Any]) -> View:
        """Merge metadata into the registration of an agent, if it changes anything; return a view with the change.

        A registration that another call changed in the meantime is merged again, so that no change is lost.
        """
        for attempts_left in reversed(range(_MAX_MERGE_ATTEMPTS)):
            view = await self._reflector.wait_fresh()
            record = view.records.get(agent_id)
            if record is None:
                return view
            problem = self._metadata_errors.get(record.agent.indexed.format_name)
            if problem is not None:
                raise UnprocessableRequest(problem, [Detail("metadata", problem)])
            merged = merge_metadata(record, metadata)
            if merged is None:
                return view
            try:
                await self._registrations.register(merged, if_match=str(record.agent.spec_version))
            except StaleVersion:
                if not attempts_left:
                    raise
            else:
                return await self._reflector.wait_fresh()
        raise AssertionError("The last attempt returns or raises")
