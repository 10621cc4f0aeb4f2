"""Answers to queries, kept: the sorted matches of a query and their joined bytes, until a change concerns them."""

from bisect import bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass

from registry.cache.change_buffer import History
from registry.cache.view import Record, View
from registry.compat.mcpmesh.list_rows import Row, plain_row
from registry.model.query import AgentQuery
from registry.service.discovery.matching import Matcher

# How many answers are kept, and how many bytes of joined lists, whichever is reached first.
_MOST = 16_384
_MOST_BYTES = 64 * 1024 * 1024

Place = tuple[float, str, str]


@dataclass(slots=True, eq=False)
class Answer:
    """The matches of one query, sorted, as of the version `examined`.

    `changed` is a version since which this very answer is as it is: that of the last change that concerned it, or the
    one at which it was first made; of what agents in flat form are shown with it says nothing. `array` is the joined
    JSON without its brackets, joined when it was last asked for, at version `joined_at`; its last heartbeats are known
    as of `heard_at`, on the monotonic clock. It `moves` with any change where an agent in flat form is in it.
    """

    matcher: Matcher
    view: View
    records: list[Record]
    examined: int
    changed: int
    shelf: "Shelf"
    row: Row = plain_row
    array: bytes | None = None
    heard_at: float = 0.0
    joined_at: int = 0
    moves: bool = False

    def place(self, record: Record) -> Place:
        """Return what the answer is sorted by: the score where there is one, then namespace, then id."""
        score = -self.matcher.score(record.agent) if self.matcher.ranks else 0.0
        return (score, *record.order)

    def after(self, place: Place) -> int:
        """Return the index of the first record beyond a place."""
        return bisect_right(self.records, place, key=self.place)

    def reaches(self, version: int, history: History) -> bool:
        """Tell whether the answer is as it was at `version`, as far as the history tells; `changed` moves back to it.

        An answer that was made later than that, as on a replica that had not been asked before, may well be the same.
        """
        if version < self.changed and history.holds(version):
            for entry in reversed(history.since(version)):
                if entry.version <= self.changed and self.matcher.concerns(entry):
                    return False
            self.changed = version
        return self.changed <= version

    @property
    def is_joined(self) -> bool:
        """Whether all is written down as of the view's version."""
        return self.array is not None and not (self.moves and self.joined_at != self.view.version)

    def joined(self) -> bytes:
        """Return all records as JSON, joined anew where a change or newer heartbeats came in between.

        What an agent in flat form is shown with may be another by any change.
        """
        if self.array is None or not self.is_joined:
            self.array = b",".join([body_of(self, record) for record in self.records])
            self.moves = any(record.agent.profile.flat is not None for record in self.records)
            self.joined_at = self.view.version
            self.shelf.put(self, len(self.array))
        return self.array


def body_of(answer: Answer, record: Record) -> bytes:
    """Return one record as the answer shows it: with its score where the answer is ranked."""
    row = answer.row(answer.view, record)
    if not answer.matcher.ranks:
        return row
    return b'%s,"score":%.1f}' % (row[:-1], answer.matcher.score(record.agent))


class Shelf:
    """Bounds what all joined lists weigh together: the one joined longest ago is let go first."""

    def __init__(self) -> None:
        self._joined: OrderedDict[int, tuple[Answer, int]] = OrderedDict()
        self._weight = 0

    def put(self, answer: Answer, size: int) -> None:
        """Take note of a list that was joined just now."""
        self._weight += size - self._joined.pop(id(answer), (answer, 0))[1]
        self._joined[id(answer)] = (answer, size)
        while self._weight > _MOST_BYTES and len(self._joined) > 1:
            _, (oldest, freed) = self._joined.popitem(last=False)
            self._weight -= freed
            oldest.array = None

    def drop(self, answer: Answer) -> None:
        """Let go of an answer that nobody can ask for any more, and of the agents it holds."""
        _, freed = self._joined.pop(id(answer), (answer, 0))
        self._weight -= freed


class Answers:
    """Keeps the answers asked for lately. What it returns is always of the view's version."""

    def __init__(self, row: Row = plain_row) -> None:
        self._row = row
        self._answers: OrderedDict[AgentQuery, Answer] = OrderedDict()
        self._shelf = Shelf()

    def answer(self, query: AgentQuery, view: View, history: History) -> Answer:
        """Return the answer to a query, made anew only where changes since it was last asked for concern it."""
        answer = self._answers.get(query)
        if answer is None or answer.view is not view or not history.holds(answer.examined):
            matcher = Matcher(query) if answer is None else answer.matcher
            if answer is not None:
                self._shelf.drop(answer)
            records = matcher.select(view)
            now = view.version
            answer = self._answers[query] = Answer(matcher, view, records, now, now, self._shelf, self._row)
            answer.records.sort(key=answer.place)
        elif answer.examined != view.version:
            _follow(answer, view, history)
        self._answers.move_to_end(query)
        if len(self._answers) > _MOST:
            self._shelf.drop(self._answers.popitem(last=False)[1])
        return answer


def _follow(answer: Answer, view: View, history: History) -> None:
    """Bring an answer to the view's version by the changes since it was examined."""
    matcher = answer.matcher
    touched: set[str] = set()
    for entry in history.since(answer.examined):
        if matcher.concerns(entry):
            answer.changed = entry.version
            if entry.change.agent is not None:
                touched.add(entry.change.agent.id)
    answer.examined = view.version
    if not touched:
        return
    answer.array = None
    answer.records = [record for record in answer.records if record.agent.id not in touched]
    for agent_id in touched:
        record = view.records.get(agent_id)
        if record is not None and matcher.matches(record.agent):
            insort(answer.records, record, key=answer.place)
