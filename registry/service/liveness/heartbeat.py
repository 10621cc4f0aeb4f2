"""What an agent is told of its dependencies when it registers and when it beats."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson

from registry.cache.reflector import Reflector
from registry.cache.view import Record, View
from registry.compat.mcpmesh.audit import audit_facts
from registry.errors import Detail, StaleVersion, StoreUnavailable, UnprocessableRequest
from registry.model.encoding.agent_json import rfc3339
from registry.model.registration.parse import Registration, parse_registration
from registry.model.resolution import CachedResolution, RankedProviders, ResolvedDependency
from registry.service.liveness.agent_health import HeartbeatRecorder
from registry.service.registration.registration import RegistrationService
from registry.service.resolution.explain import explain_resolution
from registry.service.resolution.resolver import DependencyResolver
from registry.store.agents import Agents
from registry.store.resolution_store import ResolutionStore

_METADATA_UNSUPPORTED: Final = "This agent registered in flat form: what is new of it comes with all of that form"
# How often an update is tried again because another one came first. Of those that come together one is done each time.
_MAX_MERGE_ATTEMPTS: Final = 100
# How long a heartbeat waits for news, in seconds.
_REFRESH_TIMEOUT_S: Final = 1.0
# Bytes to which heartbeats may let grow what an agent says of itself: as much as one registration may bring.
_MAX_SPEC_BYTES: Final = 1024 * 1024


class HeartbeatService:
    """Tells agents what their dependencies resolve to.

    A registration is answered from a view that knows it and everything before it. A heartbeat is answered from what the
    replica holds, which knows what was written through this replica, and what was written through others as soon as the
    bell has rung; what comes too late for this heartbeat comes with the next. The digest of an answer is in the store
    before it is given.
    """

    def __init__(
        self,
        reflector: Reflector,
        agents: Agents,
        resolution_store: ResolutionStore,
        registrations: RegistrationService,
        recorder: HeartbeatRecorder,
        resolver: DependencyResolver,
    ) -> None:
        self._reflector = reflector
        self._agents = agents
        self._resolution_store = resolution_store
        self._registrations = registrations
        self._recorder = recorder
        self._resolver = resolver

    async def resolve_registered(self, registration: Registration) -> CachedResolution | None:
        """Return what an agent is to be told of dependencies whose registration was carried out; None for nothing.

        Raises StoreUnavailable, whose outcome is then unknown to the one who registered.
        """
        if not registration.resolves_dependencies:
            return None
        try:
            return await self._resolve_latest(registration.agent_id)
        except StoreUnavailable as error:
            raise StoreUnavailable(str(error), outcome="unknown", reason=error.reason) from error

    async def heartbeat(
        self,
        agent_id: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        load: float | None = None,
        client_digest: str | None = None,
    ) -> tuple[int, bytes]:
        """Take a heartbeat; return the Redis server's time of it, and what the answer says of dependencies.

        `metadata` is what is new of the agent, `load` a number it tells of itself, `client_digest` the digest of the
        last answer
        it has. Nothing is said where that is still the answer, or where the agent has no functions and needs nothing.
        Raises UnknownAgent, UnprocessableRequest for metadata that cannot be.
        """
        told = "" if load is None else repr(load)
        view = await self._merge_metadata(agent_id, metadata) if metadata else self._reflector.view
        record = None if view is None else view.records.get(agent_id)
        resolution: CachedResolution | None = None
        if view is None or record is None:
            at = await self._recorder.record(agent_id, load=told)
            # It may have registered with another replica just now. Before the first fill nothing can be said.
            if view is not None:
                if metadata:
                    await self._merge_metadata(agent_id, metadata)
                resolution = await self._resolve_latest(agent_id)
        else:
            status = record.agent.status
            resolution = await self._resolver.resolve_async(view, record)
            if resolution.lookup_keys:
                at, resolution = await self._record_and_resolve(view, record, told)
            else:
                at = await self._recorder.record(agent_id, load=told, response_digest=resolution.digest)
            if status != "healthy":
                # It can be chosen from now on, and whoever beats next should find it.
                await self._refreshed_or(view)
        return at, b"" if resolution is None or resolution.digest == client_digest else resolution.encoded_fields

    async def _record_and_resolve(self, view: View, record: Record, load: str) -> tuple[int, CachedResolution]:
        """Take the heartbeat of an agent that has dependencies, and note what it is told of them."""
        agent_id = record.agent.id
        if view.version < self._agents.last_written_version:
            # What was written through this replica is known to it.
            view = await self._refreshed_or(view)
            record = view.records.get(agent_id, record)
        resolution = await self._resolver.resolve_with_loads(view, record)
        at = await self._recorder.record(agent_id, load=load, response_digest=resolution.digest)
        if resolution.sent_digest != resolution.digest:
            await self._save_trace(view, resolution, at)
        return at, resolution

    async def _refreshed_or(self, view: View) -> View:
        """Return a view that knows all changes before this call, or the given one where news is late.

        The agent is alive all the same; what it is not told now it is told with its next heartbeat.
        """
        try:
            async with asyncio.timeout(_REFRESH_TIMEOUT_S):
                return await self._reflector.wait_fresh()
        except (StoreUnavailable, TimeoutError):
            return view

    async def _resolve_latest(self, agent_id: str) -> CachedResolution | None:
        """Return a resolution that knows all changes before this call, its digest stored; None if the agent is gone."""
        view = await self._reflector.wait_fresh()
        record = view.records.get(agent_id)
        if record is None:
            return None
        resolution = await self._resolver.resolve_with_loads(view, record)
        if resolution.digest:
            noted = await self._agents.heartbeat(agent_id, "note", response_digest=resolution.digest)
            if resolution.lookup_keys and resolution.sent_digest != resolution.digest:
                await self._save_trace(view, resolution, noted.now)
        return resolution

    async def _save_trace(self, view: View, resolution: CachedResolution, at: int) -> None:
        def ranking(pick: ResolvedDependency) -> RankedProviders:
            return self._resolver.ranking(view, resolution.agent, pick.dependency)

        entry = {
            "timestamp": rfc3339(at),
            "resource_version": str(resolution.version),
            "dependencies_version": resolution.digest,
            "explanation": explain_resolution(resolution, ranking),
            "facts": audit_facts(view, resolution, ranking),
        }
        await self._resolution_store.save_resolution(resolution.agent.id, resolution.digest, orjson.dumps(entry))
        resolution.sent_digest = resolution.digest

    async def _merge_metadata(self, agent_id: str, metadata: Mapping[str, Any]) -> View:
        """Register the agent anew with what a heartbeat says of it, where that is anything new; return a view with it.

        Nothing that another call changed meanwhile is lost: then it is done again on what there is by then.
        """
        for left in reversed(range(_MAX_MERGE_ATTEMPTS)):
            view = await self._reflector.wait_fresh()
            record = view.records.get(agent_id)
            if record is None:
                return view
            if record.agent.indexed.format is not None:
                raise UnprocessableRequest(_METADATA_UNSUPPORTED, [Detail("metadata", _METADATA_UNSUPPORTED)])
            amended = _merged_registration(record, metadata)
            if _without_empty_metadata(amended.spec) == _without_empty_metadata(record.agent.spec):
                return view
            if len(amended.spec) > max(_MAX_SPEC_BYTES, len(record.agent.spec)):
                raise _spec_too_large(len(amended.spec))
            try:
                await self._registrations.register(amended, if_match=str(record.agent.spec_version))
            except StaleVersion:
                if not left:
                    raise
            else:
                return await self._reflector.wait_fresh()
        raise AssertionError("The last try returns or raises")


def _merged_registration(record: Record, metadata: Mapping[str, Any]) -> Registration:
    """Return an agent's registration with this metadata merged in: `endpoint` and `tools` in place of what it had.

    A null takes its key away. Raises UnprocessableRequest naming the fields of the metadata.
    """
    spec: dict[str, Any] = orjson.loads(record.agent.spec)
    given = {key: value for key, value in metadata.items() if value is not None}
    kept = {key: value for key, value in (spec.get("metadata") or {}).items() if key not in metadata}
    endpoint = given.pop("endpoint", spec["endpoint"])
    if "tools" in given:
        plain = {key: value for key, value in spec.items() if key not in ("endpoint", "capabilities")}
        return parse_registration(plain | {"metadata": kept | given | {"endpoint": endpoint}})
    try:
        return parse_registration(spec | {"endpoint": endpoint, "metadata": kept | given})
    except UnprocessableRequest as error:
        # All else was read before: it is the endpoint.
        named = [Detail(f"metadata.{detail.field}", detail.problem) for detail in error.details]
        raise UnprocessableRequest(f"{named[0].field}: {named[0].problem}", named) from error


def _spec_too_large(size_bytes: int) -> UnprocessableRequest:
    problem = f"with what there is, is {size_bytes:,} bytes, over {_MAX_SPEC_BYTES:,}; a null takes a key away"
    return UnprocessableRequest(f"metadata: {problem}", [Detail("metadata", problem)])


def _without_empty_metadata(spec: bytes) -> bytes:
    """Return a spec in which no metadata and empty metadata are the same; as JSON, for to Python 1 is True."""
    read = orjson.loads(spec)
    if read.get("metadata"):
        return spec
    read.pop("metadata", None)
    return orjson.dumps(read, option=orjson.OPT_SORT_KEYS)
