"""Reads that degrade: fresh, else from a replica's memory, else from what was answered before."""

import time
from dataclasses import replace
from typing import Any

from mcp_mesh_client.config import Conduct
from mcp_mesh_client.errors import RegistryTimeout, RegistryUnavailable
from mcp_mesh_client.response_cache import Held, Kept
from mcp_mesh_client.retry import Caller, Failure, answer_of
from mcp_mesh_client.transport import Ask, Reply

_OK, _NOT_MODIFIED = 200, 304
# Seconds that a second way to an answer has at least, however long the first took.
_LEAST = 1.0
STALE = "stale_seconds"


class Reading:
    """Makes reads, and keeps their answers."""

    def __init__(self, caller: Caller, kept: Kept, conduct: Conduct) -> None:
        self._caller = caller
        self._kept = kept
        self._conduct = conduct

    async def read(self, ask: Ask, from_memory: Ask, *, keep: bool = True) -> dict[str, Any]:
        """Return an answer or a refusal; one that may be old tells how old, as `stale_seconds`.

        `from_memory` asks the same of whatever a replica holds; it is asked where no replica can be fresh. Do not
        `keep` what is another answer each time. Raises RegistryUnavailable or RegistryTimeout where nothing is left to
        answer from.
        """
        key = ask.path, ask.query, ask.body
        held = self._kept.get(key) if keep else None
        if held is not None and self._kept.is_good(held):
            return held.answer()
        began, writes = time.monotonic(), self._kept.writes
        if held is not None and held.etag is not None:
            ask = replace(ask, headers={"if-none-match": held.etag})
        try:
            reply = await self._caller.call(ask, eager=True)
        except (RegistryUnavailable, RegistryTimeout) as failure:
            reply_or_answer = await self._instead(failure, ask, from_memory, held, began)
            if not isinstance(reply_or_answer, Reply):
                return reply_or_answer
            reply = reply_or_answer
        if held is not None and reply.status == _NOT_MODIFIED:
            held.confirm(reply.headers.get("x-resource-version"), began, writes)
            return held.answer()
        answer = answer_of(reply)
        if reply.status == _OK and keep:
            self._kept.put(key, Held(reply.body, reply.headers.get("etag"), began, writes))
        else:
            self._kept.drop(key)
        return answer

    async def _instead(
        self, failure: Failure, ask: Ask, from_memory: Ask, held: Held | None, began: float
    ) -> dict[str, Any] | Reply:
        """Answer without a replica that could be fresh; where one may be soon, wait for its reply."""
        if failure.answer is not None:
            try:
                reply = await self._caller.call(
                    replace(from_memory, from_memory=True), tries=1, within=self._left(began)
                )
            except (RegistryUnavailable, RegistryTimeout) as worse:
                failure = worse
            else:
                age = {STALE: float(reply.headers.get("x-registry-stale", 0))} if reply.status == _OK else {}
                return answer_of(reply) | age
        if held is not None and held.age <= self._conduct.offline_ttl:
            return held.answer() | {STALE: round(held.age, 1)}
        if failure.answer is None:
            raise failure
        return await self._caller.call(ask, within=self._left(began))

    def _left(self, began: float) -> float:
        return max(_LEAST, self._conduct.timeout - (time.monotonic() - began))
