"""One entry of the change log."""

from typing import Literal

import msgspec

from registry.model.agent import Agent, Status

ChangeKind = Literal["add", "modify", "remove", "new_timeline"]


class Change(msgspec.Struct, frozen=True, gc=False):
    """What happened, in order: `version` follows `prev` with nothing between them.

    `agent` is the whole agent after the change; for a removal the last one there was; None for `begin`, which opens a
    history. `heartbeat` is its last heartbeat in Redis-server milliseconds, None before the first. What differed before
    the change stands in the `…_before` fields, None where it did not.
    """

    version: int
    prev: int
    kind: ChangeKind
    reason: str
    agent: Agent | None
    heartbeat: int | None = None
    status_before: Status | None = None
    draining_before: bool | None = None
    spec_before: bytes | None = None


class LogPosition(msgspec.Struct, frozen=True, gc=False):
    """A point in a history: the resource version, and the id of the history it belongs to."""

    version: int
    timeline: str


class LogRead(msgspec.Struct, frozen=True, gc=False):
    """The answer to one look at the log.

    `version` and `timeline` as they were just before the log was read (0 and '' when absent); `contiguous` tells
    whether the
    entry asked from is still in the log, as it read before and over the connection on which the history was opened;
    `changes` are those after it, in order, perhaps not all. `last_entry` is how the last entry reads, for the next
    look.
    """

    version: int
    timeline: str
    contiguous: bool
    changes: tuple[Change, ...]
    last_entry: object = None
