"""How lists show agents in flat form: with what their functions get, and which of their capabilities are of use.

What clients derive from their schemas is left out there: it is most of what they say, and the agent alone shows it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from registry.cache.view import Record, View
from registry.model.agent import Agent, Capability, Dependency
from registry.model.encoding.agent_json import document, rfc3339
from registry.model.resolution import Pick, Resolution
from registry.service.resolution.provider_match import Wanted
from registry.service.resolution.ranking_cache import Rankings
from registry.service.resolution.resolver import Resolutions

Json = dict[str, Any]
Row = Callable[[View, Record], bytes]
Prepare = Callable[[View, Record], Awaitable[None]]

_DERIVED: Final = frozenset(
    {
        *("inputSchemaCanonical", "inputSchemaHash", "outputSchema", "outputSchemaCanonical", "outputSchemaHash"),
        "schemaWarnings",
        # What it needs is shown with what that resolves to; here meshctl reads names alone, and fails on anything else.
        "dependencies",
    }
)
LARGE: Final = 2_000
"""Bytes of a spec beyond which its row may take long."""
# What is shown where an agent says nothing of it.
_DEFAULTS: Final[Mapping[str, Any]] = {"description": "", "runtime": "python", "version": "1.0.0"}


def plain_row(_view: View, record: Record) -> bytes:
    """Return an agent as all answers show it."""
    return record.body


class Showing:
    """Adds to an agent in flat form what becomes of its needs. All others are shown as they are."""

    def __init__(self, resolutions: Resolutions, rankings: Rankings) -> None:
        self._resolutions = resolutions
        self._rankings = rankings

    def row(self, view: View, record: Record) -> bytes:
        """Return an agent as lists show it, as of the view's version."""
        if record.agent.profile.flat is None:
            return record.body
        resolution = self._resolutions.of(view, record)
        self._write(view, record, resolution)
        seen = b"null" if record.heartbeat is None else b'"%s"' % rfc3339(record.heartbeat).encode()
        return b'%s,"last_heartbeat":%s,"last_seen":%s}' % (resolution.row, seen, seen)

    async def prepare(self, view: View, record: Record) -> None:
        """Find out what the row of an agent says, and let others have their turn."""
        if record.agent.profile.flat is not None:
            resolution = await self._resolutions.in_turn(view, record)
            if self._write(view, record, resolution):
                await asyncio.sleep(0)

    def _write(self, view: View, record: Record, resolution: Resolution) -> bool:
        """Write all of a row that a resolution decides, and tell whether there was anything to do."""
        if resolution.row:
            return False
        resolution.row = orjson.dumps(self._document(view, record.agent, resolution.picks))[:-1]
        return True

    def _document(self, view: View, agent: Agent, picks: tuple[Pick, ...]) -> Json:
        shown = {**_DEFAULTS, **document(agent)}
        for capability, each in zip(agent.profile.capabilities, shown["capabilities"], strict=True):
            for name in _DERIVED & each.keys():
                del each[name]
            if "llm_filter" in each:
                each["llm_filter"] = _filter(each["llm_filter"])
            reason = self._unavailable(view, agent, capability)
            each |= {"tags": capability.tags, "description": capability.description, "available": reason is None}
            if reason is not None:
                each["unavailable_reason"] = reason
        providers, tools = self._resolutions.toolsets.shown(view, agent)
        return shown | {
            "total_dependencies": len(picks),
            "dependencies_resolved": sum(pick.provider is not None for pick in picks),
            "dependency_resolutions": [_resolution(pick) for pick in picks] or None,
            "llm_tool_resolutions": tools or None,
            "llm_provider_resolutions": providers or None,
        }

    def _unavailable(self, view: View, agent: Agent, capability: Capability) -> str | None:
        """Return why nobody is sent to a capability, None where it is of use."""
        if agent.status != "healthy":
            return "agent unhealthy"
        need = self._rankings.lacking(view, agent, capability)
        return None if need is None else f"required dep '{need.capability}' {self._blame(view, agent, need)}"

    def _blame(self, view: View, agent: Agent, need: Dependency) -> str:
        """Say who would meet a need but for how it is; who would not meet it anyway is not to blame."""
        wanted = Wanted(need, agent.profile.namespace, self._rankings.book.of(agent.profile))
        for provider, _, capability in wanted.having(view):
            if wanted.is_elsewhere(provider) or wanted.fit(capability)[1] is not None:
                continue
            if provider.draining:
                return f"unavailable (provider {provider.id} draining)"
            dead = provider.status not in wanted.rules.alive
            return f"unavailable (provider {provider.id} {'unhealthy' if dead else 'unavailable'})"
        tags = [tag for tag in need.tags or () if isinstance(tag, str)]
        asked = [f"tags=[{' '.join(tags)}]"] if tags else []
        asked += [f"version {need.version}"] if need.version else []
        return f"unresolved (no provider matches {', '.join(asked)})" if asked else "unresolved"


def _filter(sent: Any) -> Any:
    """Return a filter in which no entry is a bare name: meshctl fails on these, and shows nobody any more."""
    if not isinstance(sent, dict) or not isinstance(sent.get("filter"), list):
        return sent
    entries = [{"capability": each} if isinstance(each, str) else each for each in sent["filter"]]
    return sent | {"filter": entries}


def _resolution(pick: Pick) -> Json:
    shown: Json = {"function_name": pick.function, "capability": pick.need.capability}
    if pick.need.tags:
        shown["tags"] = [tag for tag in pick.need.tags if isinstance(tag, str)]
    if pick.provider is None:
        return shown | {"status": "unresolved"}
    return shown | {
        "mcp_tool": pick.provider.tool_name,
        "provider_agent_id": pick.provider.agent_id,
        "endpoint": pick.provider.endpoint,
        "status": "available",
    }
