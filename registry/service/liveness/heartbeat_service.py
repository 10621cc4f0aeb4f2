"""Processes heartbeats: extends the agent's deadline, merges its metadata, and resolves its dependencies."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from registry.cache.reflector import Reflector
from registry.cache.view import Record, View
from registry.errors import Detail, StaleVersion, StoreUnavailable, UnknownAgent, UnprocessableRequest
from registry.model.resolution import CachedResolution
from registry.service.liveness.metadata_merge import merge_metadata
from registry.service.registration.registration_service import RegistrationService
from registry.service.resolution.resolution_traces import ResolutionTraces
from registry.service.resolution.resolver import DependencyResolver
from registry.store.agents import Agents

# Of several concurrent updates of one agent, one succeeds in each attempt.
_MAX_MERGE_ATTEMPTS: Final = 100
# How long a heartbeat waits for a newer view.
_REFRESH_TIMEOUT_S: Final = 1.0
# The store gathers heartbeats into calls; this many of one request are in flight at once.
_HEARTBEATS_PER_BATCH: Final = 200


class HeartbeatService:
    """Records heartbeats and returns resolved dependencies.

    The response to a heartbeat is built from the cache of this replica. It reflects every write through this replica,
    and a write through another replica once its change notification has arrived; later changes are sent with the next
    heartbeat. The digest of a response is stored before the response is returned. `metadata_errors` maps each
    registration format that does not allow metadata in heartbeats to the error message.
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
            at = await self._record(agent_id, load=encoded_load)
            # The agent may have registered through another replica. Before the first fill nothing can be resolved.
            if view is not None:
                if metadata:
                    await self._merge_metadata(agent_id, metadata)
                resolution = await self._traces.resolve_latest(agent_id)
        else:
            status = record.agent.status
            resolution = await self._resolver.resolve_async(view, record)
            if resolution.lookup_keys:
                at, resolution = await self._record_and_resolve(view, record, encoded_load)
            else:
                at = await self._record(agent_id, load=encoded_load, response_digest=resolution.digest)
            if status != "healthy":
                # The agent can be selected from now on; the next heartbeat of a consumer must find it.
                await self._refreshed_or(view)
        return at, b"" if resolution is None or resolution.digest == client_digest else resolution.encoded_fields

    async def heartbeat_many(self, agent_ids: Sequence[str]) -> list[int | UnknownAgent | StoreUnavailable]:
        """Record the heartbeats of many agents; return the time or the error for each agent, in the given order."""
        results: list[int | UnknownAgent | StoreUnavailable] = []
        for at in range(0, len(agent_ids), _HEARTBEATS_PER_BATCH):
            batch = agent_ids[at : at + _HEARTBEATS_PER_BATCH]
            recorded = await asyncio.gather(*map(self._record, batch), return_exceptions=True)
            for result in recorded:
                if isinstance(result, BaseException) and not isinstance(result, UnknownAgent | StoreUnavailable):
                    raise result
                results.append(result)
        return results

    async def _record(self, agent_id: str, *, load: str = "", response_digest: str = "") -> int:
        """Extend the deadline of one agent; return the Redis time of the heartbeat. Raises UnknownAgent.

        `load` is the reported load, `response_digest` the digest of the resolution in the response, '' for none.
        """
        result = await self._agents.heartbeat(agent_id, load=load, response_digest=response_digest)
        if result.outcome == "unknown_agent":
            raise UnknownAgent(agent_id)
        if result.outcome == "bad_record":
            raise StoreUnavailable.damaged_record(agent_id)
        return result.now

    async def _record_and_resolve(self, view: View, record: Record, load: str) -> tuple[int, CachedResolution]:
        """Record the heartbeat of an agent with dependencies, resolve them, and store a trace of the resolution."""
        agent_id = record.agent.id
        if view.version < self._agents.last_written_version:
            # A response reflects every write through this replica.
            view = await self._refreshed_or(view)
            record = view.records.get(agent_id, record)
        resolution = await self._resolver.resolve_with_loads(view, record)
        at = await self._record(agent_id, load=load, response_digest=resolution.digest)
        await self._traces.save(view, resolution, at)
        return at, resolution

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
