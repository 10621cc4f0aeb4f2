"""Calls Lua scripts, and retries idempotent calls once after a broken connection or a failover."""

from collections.abc import Sequence
from typing import Any

from registry.errors import StoreUnavailable
from registry.store.redis.errors import REDIRECT_REASONS, reply_or_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import ScriptCall


async def call_with_retry(
    pipeline: Pipeline, calls: Sequence[ScriptCall], retryable: Sequence[bool], *, acks: int
) -> list[Any]:
    """Call scripts, retry failed idempotent calls once, and return a reply or an exception for each call.

    `acks` is the number of Redis replicas that must acknowledge writes. Raises StoreUnavailable if nothing was sent.
    """
    try:
        replies = [reply_or_error(reply) for reply in await pipeline.call_scripts(calls, acks=acks)]
    except StoreUnavailable as error:
        if error.outcome == "not_sent":
            raise
        replies = [error] * len(calls)
    failed = [index for index, reply in enumerate(replies) if retryable[index] and _should_retry(reply)]
    if not failed:
        return replies
    try:
        replies_of_retry = await pipeline.call_scripts([calls[index] for index in failed], acks=acks)
        second = [reply_or_error(reply) for reply in replies_of_retry]
    except StoreUnavailable as error:
        second = [error] * len(failed)
    for index, reply in zip(failed, second, strict=True):
        failed_twice = isinstance(reply, StoreUnavailable) and replies[index].outcome == "unknown"
        # Whatever the retry returned, the first call may have been executed.
        replies[index] = StoreUnavailable(str(reply), outcome="unknown", reason=reply.reason) if failed_twice else reply
    return replies


def _should_retry(reply: Any) -> bool:
    """Return whether a failed call may succeed at once: its connection broke, or the primary moved."""
    if not isinstance(reply, StoreUnavailable):
        return False
    return (reply.outcome, reply.reason) == ("unknown", "unreachable") or reply.reason in REDIRECT_REASONS
