"""Agents that only say that they are alive, and are only told whether to ask for more."""

import asyncio
from functools import partial
from typing import Final, Literal, TypeAlias

from registry.cache.reflector import Feed
from registry.cache.view import View
from registry.errors import NotReady, StoreUnavailable
from registry.model.resolution import Resolution
from registry.service.resolution.resolver import Resolutions
from registry.store.agents import Agents, Beat

# What became of an agent that is to be kept: `moved` when its answer would be another, `gone` when it must register.
Kept: TypeAlias = Literal["kept", "moved", "gone"]

# How long the store is waited for, in seconds: whoever says that it is alive does nothing else meanwhile.
_PATIENCE: Final = 0.03


class Keeping:
    """Keeps agents."""

    def __init__(self, feed: Feed, agents: Agents, resolutions: Resolutions) -> None:
        self._feed = feed
        self._agents = agents
        self._resolutions = resolutions

    async def keep(self, agent_id: str) -> Kept:
        """Prolong a healthy agent's life without reviving any other; tell whether its answer would be another by now.

        That is so exactly when what it was told last is not what it would be told, by whichever replica it was: nothing
        that happened in between can be missed, and nothing has to be remembered. Where the store does not answer soon,
        an agent that is known to be healthy is told by what this replica knows, and is kept where the store is away: a
        failure would only make it ask for more, and what it would then ask for would fail as well. Raises
        StoreUnavailable for any other.
        """
        try:
            beat = self._agents.heartbeat(agent_id, "keep")
            # It goes on when nobody waits for it any more, and tells what the agent has for the next time.
            beat.add_done_callback(partial(self._learn, agent_id))
            async with asyncio.timeout(_PATIENCE):
                return await self._judge(agent_id, await asyncio.shield(beat))
        except (NotReady, StoreUnavailable, TimeoutError) as error:
            resolution = await self._held(agent_id)
            if resolution is not None and resolution.agent.status == "healthy":
                slow = isinstance(error, TimeoutError) and self._feed.following
                return _compared(resolution, resolution.told) if slow and resolution.told else "kept"
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(
                    "The store did not answer in time", outcome="unknown", reason="timeout"
                ) from None
            raise

    async def _judge(self, agent_id: str, beat: Beat) -> Kept:
        if beat.found == "bad_record":
            raise StoreUnavailable.damaged(agent_id)
        if beat.found != "healthy":
            return "gone"
        resolution = await self._held(agent_id)
        if resolution is None or resolution.digest != beat.answered:
            # What this replica holds may be older than what another has told the agent.
            resolution = await self._resolution(await self._feed.fresh(), agent_id)
        return "moved" if resolution is None else _compared(resolution, beat.answered)

    def _learn(self, agent_id: str, beat: "asyncio.Future[Beat]") -> None:
        """Note what an agent was told last, however late the store says so; what went wrong is told to who waits."""
        if beat.cancelled() or beat.exception() is not None:
            return
        record = None if self._feed.view is None else self._feed.view.records.get(agent_id)
        if record is not None and record.kept is not None and beat.result().answered:
            record.kept.told = beat.result().answered

    async def _held(self, agent_id: str) -> Resolution | None:
        """Return what an agent's dependencies resolve to as far as this replica knows."""
        view = self._feed.view
        return None if view is None else await self._resolution(view, agent_id)

    async def _resolution(self, view: View, agent_id: str) -> Resolution | None:
        record = view.records.get(agent_id)
        return None if record is None else await self._resolutions.in_turn(view, record)


def _compared(resolution: Resolution, answered: str) -> Kept:
    """Tell whether an agent that was told this last would be told something else."""
    if resolution.digest == answered:
        resolution.told = answered
        return "kept"
    # It asks at once, and by whichever replica: when it comes again, this one does not know what it was told.
    resolution.told = ""
    return "moved"
