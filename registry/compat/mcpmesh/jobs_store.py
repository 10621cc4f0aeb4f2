"""Whether jobs are handed out: one key for all replicas."""

from registry.store.keys import Keys
from registry.store.redis.pipeline import Pipeline, raise_for_error
from registry.store.scripts import load_scripts


class Dispatch:
    """Reads and writes over a link of its own. `acks` is how many replicas of Redis a write waits for."""

    def __init__(self, keys: Keys, link: Pipeline, *, shebang: bool = True, acks: int = 0) -> None:
        self._keys = keys
        self._link = link
        self._acks = acks
        self._pause = load_scripts(shebang=shebang)["pause"]

    async def is_paused(self) -> bool:
        """Tell whether no jobs are handed out. Raises StoreUnavailable."""
        (reply,) = await self._link.execute([("EXISTS", self._keys.shared["paused"])])
        return bool(raise_for_error(reply))

    async def pause(self, *, paused: bool) -> None:
        """Stop, or go on; either is done however often it is asked for. Raises StoreUnavailable."""
        call = self._pause.call(self._keys.shared, {"on": int(paused)})
        (reply,) = await self._link.call_scripts([call], acks=self._acks)
        raise_for_error(reply)
