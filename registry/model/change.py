"""Entries of the change log, positions in the log, and the result of reading it."""

from typing import Literal

import msgspec

from registry.model.agent import Agent, Status

ChangeKind = Literal["add", "modify", "remove", "new_timeline"]


class Change(msgspec.Struct, frozen=True, gc=False):
    """One entry of the change log. `prev` is the resource version of the mesh before the change.

    `agent` is the agent after the change, for `remove` the removed agent; None for `new_timeline`, the first entry of a
    timeline. `heartbeat` is the last heartbeat in Redis-server milliseconds, None before the first one. The fields
    `…_before` have the former value, None if it did not change.
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
    updated_before: int | None = None


class LogPosition(msgspec.Struct, frozen=True, gc=False):
    """A position in the change log: a resource version and the id of the timeline it belongs to."""

    version: int
    timeline: str


class LogRead(msgspec.Struct, frozen=True, gc=False):
    """The result of reading the change log after one entry.

    `version` and `timeline` are those just before the log was read (0 and '' if absent). `contiguous` is True if that
    entry is still in the log, is unchanged, and was read over the connection on which the timeline was opened.
    `changes` are entries after it, in order, perhaps not all. `last_entry` is the last entry as read, for the next
    read.
    """

    version: int
    timeline: str
    contiguous: bool
    changes: tuple[Change, ...]
    last_entry: object = None
