"""Answers that are kept: the sorted matches of a query and their joined bytes, until a change concerns them."""

import time
from bisect import insort
from collections import OrderedDict
from dataclasses import dataclass

from registry.cache.history import Entry, History
from registry.cache.view import Record, View
from registry.model.query import AgentQuery
from registry.service.matching import Matcher

# How many answers are kept, and how many bytes of them, whichever is less.
_MOST = 1024
_MOST_BYTES = 64 * 1024 * 1024
# How old a last heartbeat in a list may be, in seconds.
_FRESH = 1.0


@dataclass(slots=True, eq=False)
class Answer:
    """The matches of one query, sorted, as of `examined`.

    `changed` is a version since which this very answer is as it is: the last change that concerned it, or the one at
    which it was made. `array` is the joined JSON, made when first asked for, of heartbeats learnt at `joined_at`.
    """

    matcher: Matcher
    view: View
    records: list[Record]
    examined: int
    changed: int
    array: bytes | None = None
    joined_at: float = 0.0

    def join(self) -> bytes:
        """Return the records as they are, as a JSON array without its brackets."""
        if self.array is None or time.monotonic() - self.joined_at > _FRESH:
            self.array = b",".join([record.body for record in self.records])
            self.joined_at = time.monotonic()
        return self.array


class Kept:
    """Keeps the answers asked for lately. What it returns is always of the view's version."""

    def __init__(self) -> None:
        self._answers: OrderedDict[AgentQuery, Answer] = OrderedDict()
        self._bytes = 0

    def answer(self, query: AgentQuery, view: View, history: History) -> Answer:
        """Return the answer to a query, made anew only where changes since it was last asked for concern it."""
        answer = self._answers.get(query)
        if answer is None or answer.view is not view or not history.holds(answer.examined):
            matcher = Matcher(query) if answer is None else answer.matcher
            records = matcher.select(view)
            records.sort(key=_order)
            answer = self._answers[query] = Answer(matcher, view, records, view.version, view.version)
        elif answer.examined != view.version:
            _follow(answer, view, history)
        self._answers.move_to_end(query)
        if len(self._answers) > _MOST:
            self._answers.popitem(last=False)
        return answer


def _follow(answer: Answer, view: View, history: History) -> None:
    """Bring an answer to the view's version by the changes since it was examined."""
    key, matcher = answer.matcher.key, answer.matcher
    concerned: list[Entry] = [
        entry
        for entry in history.since(answer.examined)
        if (key is None or key in entry.keys) and matcher.kind(entry) is not None
    ]
    answer.examined = view.version
    if not concerned:
        return
    answer.changed = concerned[-1].version
    answer.array = None
    touched = {entry.change.agent.id for entry in concerned if entry.change.agent is not None}
    answer.records = [record for record in answer.records if record.agent.id not in touched]
    for agent_id in touched:
        record = view.records.get(agent_id)
        if record is not None and matcher.matches(record.agent):
            insort(answer.records, record, key=_order)


def _order(record: Record) -> tuple[str, str]:
    return record.order
