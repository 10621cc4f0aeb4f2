"""The query cache: a cached result always equals a fresh selection."""

import asyncio
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
from registry.service.discovery import fuzzy, query_cache
from registry.service.discovery.fuzzy import name_score
from registry.service.discovery.query_cache import CachedQuery, QueryCache, render_row
from registry.service.discovery.query_match import Matcher
from tests.support.builders import an_agent
from tests.support.fake_change_log import FakeChangeLog
from tests.support.reflectors import running_reflector


class Mesh:
    """A view and its change buffer that follow a fake change log."""

    def __init__(self, max_entries: int = 1000) -> None:
        self.log = FakeChangeLog()
        self.view = View(LogPosition(1, "h1"))
        self.buffer = ChangeBuffer(1, max_entries, 1 << 30)
        self.cache = QueryCache()

    def write(self, agent_id: str, status: Any = "healthy", **fields: Any) -> None:
        """Add or change an agent."""
        write(self.log, an_agent(agent_id, self.log.version + 1, status, **fields))
        self._follow()

    def remove(self, agent_id: str) -> None:
        """Remove an agent in its current state."""
        remove(self.log, agent_id)
        self._follow()

    def result(self, **query: Any) -> CachedQuery:
        """Return the cached result of a query."""
        return self.cache.get(AgentQuery(**query), self.view, self.buffer)

    def found(self, **query: Any) -> list[str]:
        """Return the ids in the cached result of a query."""
        return [record.agent.id for record in self.result(**query).records]

    def _follow(self) -> None:
        change = self.log.changes[-1]
        self.view.apply(change, time.monotonic())
        self.buffer.append(ChangeEntry(change))


def write(log: FakeChangeLog, agent: Agent) -> None:
    """Write an agent with the state before, as the scripts do."""
    before = log.agents.get(agent.id)
    if before is None:
        log.write(agent, "add")
    else:
        log.write_from(agent, status_before=before.status, spec_before=before.spec)


def remove(log: FakeChangeLog, agent_id: str) -> None:
    """Remove an agent in its current state."""
    agent = log.agents[agent_id]
    log.write(an_agent(agent_id, log.version + 1, agent.status, **_fields(agent)), "remove")


def _fields(agent: Agent) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(agent.spec)
    return {name: value for name, value in fields.items() if name not in ("id", "endpoint")}


def fresh_records(result: CachedQuery, view: View) -> list[Any]:
    """Return the expected records: a new selection, sorted."""
    matcher = Matcher(result.matcher.query)
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
async def test_a_cached_result_equals_a_fresh_selection(steps: list[Any], max_entries: int) -> None:
    """It has the same rows and bytes after any changes and queries, however short the change buffer is.

    `changed_version` is never before a change of the rows.
    """
    log, cache = FakeChangeLog(), QueryCache()
    async with running_reflector(log) as reflector:
        view = await reflector.wait_fresh()
        reflector.watch_history.buffer._max_entries = max_entries
        rows: dict[AgentQuery, tuple[int, list[Any]]] = {}
        for agent_id, state, queried in [*steps, ("z", None, set(range(len(QUERIES))))]:
            if state is not None:
                status = state["status"]
                fields = {name: value for name, value in state.items() if name != "status"}
                write(log, an_agent(agent_id, log.version + 1, status, **fields))
            elif agent_id in log.agents:
                remove(log, agent_id)
            assert await reflector.wait_fresh() is view
            for query in (QUERIES[at] for at in queried):
                result = cache.get(query, view, reflector.watch_history.buffer)
                assert (result.checked_version, result.records) == (view.version, fresh_records(result, view))
                assert result.rows_json() == b",".join(render_row(result, record) for record in result.records)
                now = [(record.agent.id, record.agent.version) for record in result.records]
                changed, before = rows.get(query, (-1, now))
                assert before == now or result.changed_version > changed
                rows[query] = (view.version, now)
                reached = result.unchanged_since(view.version - 1, reflector.watch_history.buffer)
                assert not reached or result.changed_version <= view.version - 1


def test_an_unrelated_change_leaves_a_result_untouched() -> None:
    """The version of its last change and its encoded rows stay."""
    mesh = Mesh()
    mesh.write("a", namespace="n1")
    result = mesh.result(namespace="n1")
    array, changed = result.rows_json(), result.changed_version

    mesh.write("b", namespace="n2")
    mesh.write("b", "degraded", namespace="n2")
    mesh.remove("b")
    same = mesh.result(namespace="n1")

    assert same is result
    assert same.cached_json is array
    assert (same.changed_version, same.checked_version) == (changed, mesh.view.version)


@pytest.mark.parametrize("status", ["degraded", "healthy"])
def test_a_related_change_updates_a_result(status: str) -> None:
    """The change is one of status or of the registration."""
    mesh = Mesh()
    mesh.write("a", namespace="n1")
    before = mesh.result(namespace="n1").rows_json()

    mesh.write("a", status, namespace="n1", name="another")
    result = mesh.result(namespace="n1")

    assert result.changed_version == mesh.view.version
    assert result.rows_json() != before


def test_an_agent_that_changes_namespace_moves_between_results() -> None:
    """The cached results of both namespaces are updated."""
    mesh = Mesh()
    mesh.write("a", namespace="n1")
    assert (mesh.found(namespace="n1"), mesh.found(namespace="n2")) == (["a"], [])

    mesh.write("a", namespace="n2")

    assert (mesh.found(namespace="n1"), mesh.found(namespace="n2")) == ([], ["a"])


def test_an_agent_that_was_removed_and_added_again_is_shown_once() -> None:
    """The result shows its new state."""
    mesh = Mesh()
    mesh.write("a")
    mesh.result()
    mesh.remove("a")
    mesh.write("a", name="new")

    assert mesh.found() == ["a"]
    assert mesh.result().records == [mesh.view.records["a"]]


def test_a_result_of_another_view_is_rebuilt() -> None:
    """A fill of the cache invalidates all results."""
    mesh = Mesh()
    mesh.write("a")
    before = mesh.result()
    mesh.view = View(LogPosition(mesh.view.version, "h2"))

    result = mesh.result()

    assert result is not before
    assert (result.records, result.changed_version) == ([], mesh.view.version)


def test_a_new_result_detects_that_it_has_not_changed() -> None:
    """It reads the change buffer; a related change or a discarded entry is never skipped."""
    mesh = Mesh(max_entries=3)
    mesh.write("a", namespace="n1")
    mesh.write("b", namespace="n2")
    mesh.write("c", namespace="n2")
    result = mesh.result(namespace="n1")
    assert result.changed_version == 4

    assert result.unchanged_since(3, mesh.buffer)
    assert not result.unchanged_since(1, mesh.buffer)
    assert result.unchanged_since(2, mesh.buffer)
    assert result.changed_version == 2
    mesh.write("d", namespace="n2")
    mesh.write("e", namespace="n2")
    assert not mesh.result(namespace="n2").unchanged_since(1, mesh.buffer)


def test_a_ranked_result_shows_its_scores_best_first() -> None:
    """The score has one decimal and is the last field of each agent."""
    mesh = Mesh()
    mesh.write("a", capabilities=[{"name": "file_search"}])
    mesh.write("b", capabilities=[{"name": "file"}])
    mesh.write("c", capabilities=[{"name": "my_file"}])

    rows = orjson.loads(b"[" + mesh.result(capabilities=("file",), fuzzy=True).rows_json() + b"]")

    assert [row["id"] for row in rows] == ["b", "a", "c"]
    assert rows[0]["score"] == 100.0
    assert all(list(row)[-1] == "score" and row["score"] == round(row["score"], 1) for row in rows)


def test_a_page_continues_after_a_removed_row() -> None:
    """The position is a sort key, not a row."""
    mesh = Mesh()
    for agent_id in "abc":
        mesh.write(agent_id)
    result = mesh.result()
    place = result.sort_key(result.records[1])

    mesh.remove("b")
    mesh.write("aa")
    result = mesh.result()

    assert [record.agent.id for record in result.records[result.index_after(place) :]] == ["c"]


def test_the_least_recently_used_results_are_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of queries is limited; a lookup makes a result recent again."""
    monkeypatch.setattr(query_cache, "_MAX_QUERY_BYTES", 2 * AgentQuery(namespace="n1").approximate_bytes)
    mesh = Mesh()
    first, second = mesh.result(namespace="n1"), mesh.result(namespace="n2")
    assert mesh.result(namespace="n1") is first
    mesh.result(namespace="n3")

    assert mesh.result(namespace="n1") is first
    assert mesh.result(namespace="n2") is not second


def test_encoded_lists_are_evicted_above_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used go first; the results themselves stay."""
    plain = Mesh()
    plain.write("a")
    monkeypatch.setattr(query_cache, "_MAX_JSON_BYTES", len(plain.result().rows_json()))
    mesh = Mesh()
    mesh.write("a")
    mesh.result().rows_json()
    newer = mesh.result(status="healthy")
    newer.rows_json()

    assert mesh.result().cached_json is None
    assert newer.cached_json is not None


def test_a_list_above_the_limit_is_cached_until_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each request for it would render it again."""
    monkeypatch.setattr(query_cache, "_MAX_JSON_BYTES", 10)
    mesh = Mesh()
    mesh.write("a")
    oversized = mesh.result()

    assert oversized.rows_json() is oversized.rows_json()
    mesh.result(status="healthy").rows_json()
    assert oversized.cached_json is None


def test_a_rebuilt_result_leaves_nothing_of_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The LRU cache held every rebuilt or evicted result until their lists alone weighed 64 MiB.

    A replica under churn grew by megabytes a minute.
    """
    monkeypatch.setattr(query_cache, "_MAX_QUERY_BYTES", 2 * AgentQuery(agent_id="a").approximate_bytes + 20)
    mesh = Mesh(max_entries=2)
    for number in range(50):
        mesh.write("a", labels={"round": str(number)})
        mesh.write("b", labels={"round": str(number)})
        mesh.write("c", labels={"round": str(number)})
        mesh.result(agent_id="a").rows_json()
        mesh.result(agent_id="b").rows_json()
        mesh.result(agent_id="c").rows_json()

    lru = mesh.cache._json_lru
    assert {id(result) for result, _ in mesh.cache._entries._entries.values()} == set(lru._entries)
    assert lru.weight == sum(len(result.rows_json()) for result, _ in mesh.cache._entries._entries.values())


def test_t15_the_size_of_cached_queries_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key counts with its texts, and the result with its references to agents."""
    monkeypatch.setattr(query_cache, "_MAX_QUERY_BYTES", 100_000)
    mesh = Mesh()
    for number in range(20):
        mesh.write(f"a{number}")
    for number in range(200):
        mesh.result(tags=tuple(f"{number}-{tag}" for tag in range(100)))
        mesh.result(selector=parse_selector(f"!absent-{number}"))

    weights = [
        query.approximate_bytes + 8 * len(result.records) for query, (result, _) in mesh.cache._entries._entries.items()
    ]
    assert mesh.cache._entries.weight == sum(weights) <= 100_000
    assert min(len(weights), max(weights)) > 10


class StepClock:
    """A clock that advances by a millisecond at each call, so that five steps take long enough to yield."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        self.now += 0.001
        return self.now


async def test_t15_a_ranked_query_yields_to_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of 60 kB once blocked it for more than a second; now few names are compared at a time.

    At the first selection, and also after many changes.
    """
    compared, most, before = 0, 0, 0

    def count(query: str, name: str) -> float | None:
        nonlocal compared
        compared += 1
        return name_score(query, name)

    async def observe() -> None:
        nonlocal most, before
        while True:
            most, before = max(most, compared - before), compared
            await asyncio.sleep(0)

    monkeypatch.setattr(fuzzy, "name_score", count)
    monkeypatch.setattr(time, "perf_counter", StepClock())
    mesh = Mesh(max_entries=10_000)
    names = [f"name-{number}" for number in range(10)]
    for number in range(100):
        mesh.write(f"a{number}", capabilities=[{"name": f"{name}-{number}"} for name in names])
    query = AgentQuery(capabilities=tuple(names), any_capability=True, fuzzy=True)
    observer = asyncio.create_task(observe())
    for _ in range(2):
        await mesh.cache.prepare(query, mesh.view, mesh.buffer)
        await asyncio.sleep(0)
        assert len(mesh.cache.get(query, mesh.view, mesh.buffer).records) == 100
        await asyncio.sleep(0)
        for number in range(100):
            mesh.write(f"a{number}", capabilities=[{"name": f"{name}-{number}-2"} for name in names])
    observer.cancel()

    assert compared >= 2 * 100 * 10 * 10
    # Five steps of a name and ten capabilities, or the changes of the last steps.
    assert most <= 100


async def test_few_changes_do_not_repeat_the_selection_of_a_ranked_query() -> None:
    """The result is updated in place."""
    mesh = Mesh()
    mesh.write("a", capabilities=[{"name": "weather"}])
    query = AgentQuery(capabilities=("weathre",), fuzzy=True)
    await mesh.cache.prepare(query, mesh.view, mesh.buffer)
    result = mesh.cache.get(query, mesh.view, mesh.buffer)
    mesh.write("b", capabilities=[{"name": "weather_report"}])
    mesh.write("c", capabilities=[{"name": "weathre"}])

    await asyncio.gather(*(mesh.cache.prepare(query, mesh.view, mesh.buffer) for _ in range(3)))

    assert mesh.cache.get(query, mesh.view, mesh.buffer) is result
    assert [record.agent.id for record in result.records] == ["c"]
    assert result.scores == {"c": 100.0}
    assert mesh.cache._selecting == {}
