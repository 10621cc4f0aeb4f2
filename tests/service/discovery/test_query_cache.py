"""Answers that are kept are what a fresh selection would be, whatever happened since they were made."""

import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.cache.change_buffer import ChangeBuffer, ChangeEntry
from registry.cache.view import View
from registry.model.agent import Agent
from registry.model.change import LogPosition
from registry.model.label_selector import parse_selector
from registry.model.query import AgentQuery
from registry.service.discovery import query_cache
from registry.service.discovery.matching import Matcher
from registry.service.discovery.query_cache import CachedQuery, QueryCache, render_row
from tests.support.builders import an_agent
from tests.support.fake_change_log import FakeChangeLog
from tests.support.reflectors import running_reflector


class Mesh:
    """A view and the history of its changes, moved on by the entries of a plain log."""

    def __init__(self, most: int = 1000) -> None:
        self.log = FakeChangeLog()
        self.view = View(LogPosition(1, "h1"))
        self.history = ChangeBuffer(1, most, 1 << 30)
        self.answers = QueryCache()

    def write(self, agent_id: str, status: Any = "healthy", **fields: Any) -> None:
        """Add or change an agent."""
        write(self.log, an_agent(agent_id, self.log.version + 1, status, **fields))
        self._follow()

    def remove(self, agent_id: str) -> None:
        """Remove an agent, as it was."""
        remove(self.log, agent_id)
        self._follow()

    def answer(self, **query: Any) -> CachedQuery:
        """Return the kept answer to a query."""
        return self.answers.get(AgentQuery(**query), self.view, self.history)

    def found(self, **query: Any) -> list[str]:
        """Return the ids in the kept answer to a query."""
        return [record.agent.id for record in self.answer(**query).records]

    def _follow(self) -> None:
        change = self.log.changes[-1]
        self.view.apply(change, time.monotonic())
        self.history.append(ChangeEntry(change))


def write(log: FakeChangeLog, agent: Agent) -> None:
    """Write an agent with what differed before, as the scripts do."""
    before = log.agents.get(agent.id)
    if before is None:
        log.write(agent, "add")
    else:
        log.write_from(agent, status_before=before.status, spec_before=before.spec)


def remove(log: FakeChangeLog, agent_id: str) -> None:
    """Remove an agent, as it was."""
    agent = log.agents[agent_id]
    log.write(an_agent(agent_id, log.version + 1, agent.status, **_fields(agent)), "remove")


def _fields(agent: Agent) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(agent.spec)
    return {name: value for name, value in fields.items() if name not in ("id", "endpoint")}


def fresh(answer: CachedQuery, view: View) -> list[Any]:
    """Return what the answer must be: everything selected anew and sorted."""
    matcher = Matcher(answer.matcher.query)
    return sorted(
        matcher.select(view),
        key=lambda record: (-matcher.score(record.agent) if matcher.is_ranked else 0, *record.sort_key),
    )


QUERIES = (
    AgentQuery(),
    AgentQuery(namespace="n1"),
    AgentQuery(status="healthy"),
    AgentQuery(agent_id="a"),
    AgentQuery(capabilities=("read",)),
    AgentQuery(capabilities=("read", "write"), any_capability=True, status="unhealthy"),
    AgentQuery(capabilities=("read",), fuzzy=True),
    AgentQuery(capabilities=("read",), tags=("t",)),
    AgentQuery(selector=parse_selector("k=1")),
    AgentQuery(selector=parse_selector("k!=1")),
)
STEPS: st.SearchStrategy[list[Any]] = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.none()
        | st.fixed_dictionaries(
            {
                "status": st.sampled_from(["pending", "healthy", "degraded"]),
                "namespace": st.sampled_from(["n1", "n2"]),
                "labels": st.sampled_from([{}, {"k": "1"}, {"k": "2"}]),
                "capabilities": st.lists(
                    st.sampled_from(
                        [{"name": "read", "tags": ["t"]}, {"name": "read_files"}, {"name": "write", "tags": ["t"]}]
                    ),
                    max_size=3,
                    unique_by=orjson.dumps,
                ),
            }
        ),
        st.sets(st.integers(0, len(QUERIES) - 1)),
    ),
    max_size=20,
)


@given(STEPS, st.sampled_from([1000, 3]))
async def test_a_kept_answer_is_what_a_fresh_selection_is(steps: list[Any], most: int) -> None:
    """After any changes, whichever were asked for in between, and however short the history: same rows, same bytes.

    And `changed` is never before a change of the rows.
    """
    log, held = FakeChangeLog(), QueryCache()
    async with running_reflector(log) as feed:
        view = await feed.wait_fresh()
        feed.watch_history.buffer._max_entries = most
        rows: dict[AgentQuery, tuple[int, list[Any]]] = {}
        for agent_id, state, asked in [*steps, ("z", None, set(range(len(QUERIES))))]:
            if state is not None:
                status = state["status"]
                fields = {name: value for name, value in state.items() if name != "status"}
                write(log, an_agent(agent_id, log.version + 1, status, **fields))
            elif agent_id in log.agents:
                remove(log, agent_id)
            assert await feed.wait_fresh() is view
            for query in (QUERIES[at] for at in asked):
                answer = held.get(query, view, feed.watch_history.buffer)
                assert (answer.checked_version, answer.records) == (view.version, fresh(answer, view))
                assert answer.rows_json() == b",".join(render_row(answer, record) for record in answer.records)
                now = [(record.agent.id, record.agent.version) for record in answer.records]
                changed, before = rows.get(query, (-1, now))
                assert before == now or answer.changed_version > changed
                rows[query] = (view.version, now)
                reached = answer.unchanged_since(view.version - 1, feed.watch_history.buffer)
                assert not reached or answer.changed_version <= view.version - 1


def test_what_does_not_concern_an_answer_leaves_it_alone() -> None:
    """The version it changed at stays, and so do the joined bytes."""
    mesh = Mesh()
    mesh.write("a", namespace="n1")
    answer = mesh.answer(namespace="n1")
    array, changed = answer.rows_json(), answer.changed_version

    mesh.write("b", namespace="n2")
    mesh.write("b", "degraded", namespace="n2")
    mesh.remove("b")
    same = mesh.answer(namespace="n1")

    assert same is answer
    assert same.cached_json is array
    assert (same.changed_version, same.checked_version) == (changed, mesh.view.version)


@pytest.mark.parametrize("status", ["degraded", "healthy"])
def test_what_concerns_an_answer_moves_it(status: str) -> None:
    """A change of status or of what the agent says, once to each that shows it."""
    mesh = Mesh()
    mesh.write("a", namespace="n1")
    before = mesh.answer(namespace="n1").rows_json()

    mesh.write("a", status, namespace="n1", name="another")
    answer = mesh.answer(namespace="n1")

    assert answer.changed_version == mesh.view.version
    assert answer.rows_json() != before


def test_an_agent_that_goes_elsewhere_is_gone_from_one_and_new_in_the_other() -> None:
    """Kept answers under both namespaces are told of the move."""
    mesh = Mesh()
    mesh.write("a", namespace="n1")
    assert (mesh.found(namespace="n1"), mesh.found(namespace="n2")) == (["a"], [])

    mesh.write("a", namespace="n2")

    assert (mesh.found(namespace="n1"), mesh.found(namespace="n2")) == ([], ["a"])


def test_an_agent_that_was_removed_and_came_back_is_shown_once() -> None:
    """As it is now."""
    mesh = Mesh()
    mesh.write("a")
    mesh.answer()
    mesh.remove("a")
    mesh.write("a", name="new")

    assert mesh.found() == ["a"]
    assert mesh.answer().records == [mesh.view.records["a"]]


def test_an_answer_of_another_view_is_made_anew() -> None:
    """After a fill nothing that was kept is trusted."""
    mesh = Mesh()
    mesh.write("a")
    before = mesh.answer()
    mesh.view = View(LogPosition(mesh.view.version, "h2"))

    answer = mesh.answer()

    assert answer is not before
    assert (answer.records, answer.changed_version) == ([], mesh.view.version)


def test_an_answer_made_late_is_told_to_be_as_it_was() -> None:
    """Where the history says that nothing since concerned it; what did, or what is forgotten, is never passed over."""
    mesh = Mesh(most=3)
    mesh.write("a", namespace="n1")
    mesh.write("b", namespace="n2")
    mesh.write("c", namespace="n2")
    answer = mesh.answer(namespace="n1")
    assert answer.changed_version == 4

    assert answer.unchanged_since(3, mesh.history)
    assert not answer.unchanged_since(1, mesh.history)
    assert answer.unchanged_since(2, mesh.history)
    assert answer.changed_version == 2
    mesh.write("d", namespace="n2")
    mesh.write("e", namespace="n2")
    assert not mesh.answer(namespace="n2").unchanged_since(1, mesh.history)


def test_a_ranked_answer_shows_its_scores_best_first() -> None:
    """With one decimal, at the end of each agent."""
    mesh = Mesh()
    mesh.write("a", capabilities=[{"name": "file_search"}])
    mesh.write("b", capabilities=[{"name": "file"}])
    mesh.write("c", capabilities=[{"name": "my_file"}])

    rows = orjson.loads(b"[" + mesh.answer(capabilities=("file",), fuzzy=True).rows_json() + b"]")

    assert [row["id"] for row in rows] == ["b", "a", "c"]
    assert rows[0]["score"] == 100.0
    assert all(list(row)[-1] == "score" and row["score"] == round(row["score"], 1) for row in rows)


def test_a_page_goes_on_after_a_place_that_is_gone() -> None:
    """The place is kept, not the row."""
    mesh = Mesh()
    for agent_id in "abc":
        mesh.write(agent_id)
    answer = mesh.answer()
    place = answer.sort_key(answer.records[1])

    mesh.remove("b")
    mesh.write("aa")
    answer = mesh.answer()

    assert [record.agent.id for record in answer.records[answer.index_after(place) :]] == ["c"]


def test_the_answers_asked_for_longest_ago_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number; each that was asked for again counts as new."""
    monkeypatch.setattr(query_cache, "_MAX_QUERIES", 2)
    mesh = Mesh()
    first, second = mesh.answer(namespace="n1"), mesh.answer(namespace="n2")
    assert mesh.answer(namespace="n1") is first
    mesh.answer(namespace="n3")

    assert mesh.answer(namespace="n1") is first
    assert mesh.answer(namespace="n2") is not second


def test_joined_lists_are_let_go_when_they_weigh_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those asked for longest ago first; the answers themselves stay."""
    plain = Mesh()
    plain.write("a")
    monkeypatch.setattr(query_cache, "_MAX_JSON_BYTES", len(plain.answer().rows_json()))
    mesh = Mesh()
    mesh.write("a")
    mesh.answer().rows_json()
    newer = mesh.answer(status="healthy")
    newer.rows_json()

    assert mesh.answer().cached_json is None
    assert newer.cached_json is not None


def test_a_list_above_the_limit_is_rendered_and_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """It evicts no other list."""
    monkeypatch.setattr(query_cache, "_MAX_JSON_BYTES", 10)
    mesh = Mesh()
    mesh.write("a")

    assert b'"a"' in mesh.answer().rows_json()
    assert mesh.answer().cached_json is None


def test_an_answer_made_anew_leaves_nothing_of_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The LRU held every joined answer that was made anew or let go, until their lists alone weighed 64 MiB.

    A replica under churn grew by megabytes a minute.
    """
    monkeypatch.setattr(query_cache, "_MAX_QUERIES", 2)
    mesh = Mesh(most=2)
    for number in range(50):
        mesh.write("a", labels={"turn": str(number)})
        mesh.write("b", labels={"turn": str(number)})
        mesh.write("c", labels={"turn": str(number)})
        mesh.answer(agent_id="a").rows_json()
        mesh.answer(agent_id="b").rows_json()
        mesh.answer(agent_id="c").rows_json()

    lru = mesh.answers._json_lru
    assert {id(answer) for answer in mesh.answers._entries.values()} == set(lru._entries)
    assert lru.weight == sum(len(answer.rows_json()) for answer in mesh.answers._entries.values())
