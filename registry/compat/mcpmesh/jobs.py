"""Whether jobs are handed out, for the whole fleet."""

from registry.compat.mcpmesh.jobs_store import Dispatch


class JobDispatch:
    """Stops handing out jobs, and goes on. What is decided holds on every replica, until it is decided anew."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    async def is_paused(self) -> bool:
        """Tell whether no jobs are handed out."""
        return await self._dispatch.is_paused()

    async def pause(self, *, paused: bool) -> None:
        """Stop, or go on."""
        await self._dispatch.pause(paused=paused)
