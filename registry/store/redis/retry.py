"""Calling scripts, and calling once more those that lose nothing by it when the server did not answer."""

from collections.abc import Sequence
from typing import Any

from registry.errors import StoreUnavailable
from registry.store.redis.errors import REDIRECT_REASONS, reply_or_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import ScriptCall


async def call_with_retry(
    pipeline: Pipeline, calls: Sequence[ScriptCall], retryable: Sequence[bool], *, acks: int
) -> list[Any]:
    """Call scripts, those once more that may be and to which the server did not answer; return what became of each.

    `acks` replicas must have them before they are acknowledged. Raises StoreUnavailable when none of them was sent.
    """
    try:
        replies = [reply_or_error(reply) for reply in await pipeline.call_scripts(calls, acks=acks)]
    except StoreUnavailable as error:
        if error.outcome == "not_sent":
            raise
        replies = [error] * len(calls)
    again = [at for at, reply in enumerate(replies) if retryable[at] and _should_retry(reply)]
    if not again:
        return replies
    try:
        second = [
            reply_or_error(reply) for reply in await pipeline.call_scripts([calls[at] for at in again], acks=acks)
        ]
    except StoreUnavailable as error:
        second = [error] * len(again)
    for at, reply in zip(again, second, strict=True):
        failed = isinstance(reply, StoreUnavailable) and replies[at].outcome == "unknown"
        # Whatever became of the second try, the first may have done it.
        replies[at] = StoreUnavailable(str(reply), outcome="unknown", reason=reply.reason) if failed else reply
    return replies


def _should_retry(reply: Any) -> bool:
    """Tell whether one more try at once is worth it: the connection broke under the call, or Redis has moved."""
    if not isinstance(reply, StoreUnavailable):
        return False
    return (reply.outcome, reply.reason) == ("unknown", "unreachable") or reply.reason in REDIRECT_REASONS
