"""Reads that degrade: fresh, else from a replica's memory, else from what was answered before."""

import time
from dataclasses import replace
from typing import Any

from registry.client.calling import Caller, answer_of
from registry.client.errors import RegistryTimeout, RegistryUnavailable
from registry.client.kept import Held, Kept
from registry.client.wire import Ask

_OK, _NOT_MODIFIED = 200, 304
STALE = "stale_seconds"


class Reading:
    """Makes reads, and keeps their answers. `offline_ttl` is how old one may be that is given where nobody answers."""

    def __init__(self, caller: Caller, kept: Kept, offline_ttl: float) -> None:
        self._caller = caller
        self._kept = kept
        self._offline_ttl = offline_ttl

    async def read(self, ask: Ask, from_memory: Ask) -> dict[str, Any]:
        """Return an answer or a refusal; one that may be old tells how old, as `stale_seconds`.

        `from_memory` asks the same of whatever a replica holds; it is asked where no replica can be fresh. Raises
        RegistryUnavailable or RegistryTimeout where nothing is left to answer from.
        """
        key = ask.path, ask.query, ask.body
        held = self._kept.get(key)
        if held is not None and self._kept.is_good(held):
            return held.answer()
        began = time.monotonic()
        if held is not None and held.etag is not None:
            ask = replace(ask, headers={"if-none-match": held.etag})
        try:
            reply = await self._caller.call(ask, eager=True)
        except (RegistryUnavailable, RegistryTimeout) as failure:
            return await self._instead(failure, from_memory, held)
        if held is not None and reply.status == _NOT_MODIFIED:
            self._kept.confirm(held, reply.headers.get("x-resource-version"), began)
            return held.answer()
        answer = answer_of(reply)
        if reply.status == _OK:
            self._kept.put(key, reply.body, reply.headers.get("etag"), began)
        else:
            self._kept.drop(key)
        return answer

    async def _instead(
        self, failure: RegistryUnavailable | RegistryTimeout, from_memory: Ask, held: Held | None
    ) -> dict[str, Any]:
        """Answer without the registry being able to."""
        if failure.answer is not None:
            try:
                reply = await self._caller.call(replace(from_memory, from_memory=True), tries=1)
            except (RegistryUnavailable, RegistryTimeout) as worse:
                failure = worse
            else:
                age = {STALE: float(reply.headers.get("x-registry-stale", 0))} if reply.status == _OK else {}
                return answer_of(reply) | age
        if held is None or held.age > self._offline_ttl:
            raise failure
        return held.answer() | {STALE: round(held.age, 1)}
