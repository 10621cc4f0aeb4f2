"""The sync twin: the same calls, from any thread, inside a running event loop or a forked process as well."""

import asyncio
import inspect
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from mcp_mesh_client import (
    ClientClosed,
    RegistryClient,
    RequestRejected,
    SyncRegistryClient,
    SyncWatch,
    Watch,
    WatchEvent,
)

from tests.client.client_setup import REGISTRATION, agent_ids, expect_success
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.replica import Replica


@pytest.fixture
def url(redis_url: str) -> Iterator[str]:
    """Provide a replica of its own process, for these tests block."""
    with Replica(redis_url) as replica:
        yield replica.url


def face(kind: type) -> dict[str, tuple[Any, ...]]:
    """Return the parameters of each public method, with the one that makes it."""
    members = inspect.getmembers(kind, inspect.isfunction)
    return {
        name: tuple(inspect.signature(member).parameters.values())
        for name, member in members
        if not name.startswith("_") or name == "__init__"
    }


def test_the_twins_have_the_same_face() -> None:
    """Every method with the same parameters, kinds, defaults and types; and the same properties."""
    assert face(SyncRegistryClient) == face(RegistryClient)
    assert face(SyncWatch).keys() - {"__init__"} == face(Watch).keys() - {"__init__"}
    for twins in ((RegistryClient, SyncRegistryClient), (Watch, SyncWatch)):
        one, other = (
            {name for name, _ in inspect.getmembers(kind, lambda it: isinstance(it, property))} for kind in twins
        )
        assert one - {"resource_version"} == other - {"resource_version"}


def test_the_twins_answer_the_same() -> None:
    """By their annotations, but for the watch."""
    for name in face(RegistryClient).keys() - {"__init__", "watch"}:
        one, other = (
            inspect.signature(getattr(kind, name)).return_annotation for kind in (RegistryClient, SyncRegistryClient)
        )
        assert one == other, name


def test_the_twins_say_the_same_of_each_method() -> None:
    """The first sentence of the one is the docstring of the other."""
    for name in face(RegistryClient).keys() - {"__init__"}:
        one, other = (inspect.getdoc(getattr(kind, name)) or "" for kind in (RegistryClient, SyncRegistryClient))
        assert one.startswith(other.split("\n", maxsplit=1)[0].rstrip(".")), name


def test_every_call_works_without_await(url: str) -> None:
    """Each gives what the async one gives."""
    with SyncRegistryClient(url) as client:
        assert client.state == "unknown"
        expect_success(client.register_agent(REGISTRATION))
        assert agent_ids(client.agents()) == ["a"]
        expect_success(client.register_with_fallback(REGISTRATION))
        expect_success(client.register_many([REGISTRATION]))
        expect_success(client.heartbeat("a", metadata={"x": 1}))
        expect_success(client.heartbeats(["a"]))
        assert agent_ids(client.agents(capability="greeting")) == agent_ids(client.discover_services({})) == ["a"]
        assert [agent["id"] for agent in client.wait_for("greeting", timeout=5)] == ["a"]
        answers: list[Any] = [
            client.agent("a"),
            client.agent_status("a"),
            client.agent_health("a"),
            client.health(),
        ]
        assert {answer["status"] for answer in answers} == {"healthy"}
        assert client.ready() == {"status": "ready"}
        mesh: list[Any] = [client.metrics(), client.capabilities(), client.tools(), client.describe(), client.openapi()]
        assert [len(answer) > 0 for answer in mesh] == [True] * 5
        assert "mcp_registry_agents_total" in str(client.metrics_text())
        assert expect_success(client.select_agent("greeting"))["agent_id"] == "a"
        assert client.dependents("a")["count"] == client.dependency_graph()["count"] == 0  # type: ignore[typeddict-item]
        assert client.dependencies("a")["agent_id"] == "a"  # type: ignore[typeddict-item]
        expect_success(client.drain("a"))
        expect_success(client.undrain("a"))
        expect_success(client.drain_many(namespace="default"))
        expect_success(client.undrain_many(label_selector="!env"))
        expect_success(client.end_self_preservation())
        expect_success(client.unregister_agent("a"))
        assert repr(client) == f"SyncRegistryClient({url}; online)"
    with pytest.raises(ClientClosed):
        client.agents()


async def test_it_works_inside_a_running_loop(url: str) -> None:
    """Where `asyncio.run` would refuse."""
    with SyncRegistryClient(url) as client:
        expect_success(client.register_agent(REGISTRATION))


def test_errors_are_those_of_the_async_one() -> None:
    """In the calling thread."""
    with SyncRegistryClient(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(ConnectionError):
            client.heartbeat("a")
        with pytest.raises(ValueError, match=r"^agent_id: "):
            client.heartbeat("")
        assert client.register_with_fallback(REGISTRATION) == {"status": "offline", "message": "Registry unavailable"}


def test_a_watch_is_a_loop(url: str) -> None:
    """It ends when another thread closes it."""
    seen: list[WatchEvent] = []

    def follow(watch: SyncWatch) -> None:
        for event in watch:
            seen.append(event)  # noqa: PERF402 - one by one, as they come

    with SyncRegistryClient(url) as client:
        expect_success(client.register_agent(REGISTRATION))
        with client.watch(send_initial=True) as watch:
            thread = threading.Thread(target=follow, args=(watch,))
            thread.start()
            expect_success(client.heartbeat("a"))
            expect_success(client.unregister_agent("a"))
            wait_until(lambda: len(seen) == 3, description="all events came")
            assert watch.resource_version == seen[-1]["resource_version"]
            watch.close()
            thread.join(5)

            assert not thread.is_alive()
        with pytest.raises(RequestRejected), client.watch(label_selector="=="):
            pass

    assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]


def test_many_threads_share_one_client(url: str) -> None:
    """Each gets its own answer."""
    answers: list[Any] = []
    with SyncRegistryClient(url) as client:
        threads = [
            threading.Thread(
                target=lambda at=at: answers.append(client.register_agent(REGISTRATION | {"id": f"a{at}"}))
            )
            for at in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert {answer["agent_id"] for answer in answers} == {f"a{at}" for at in range(20)}


def test_a_forked_process_has_a_loop_of_its_own(url: str) -> None:
    """The thread of the parent is not there; the client works all the same."""
    with SyncRegistryClient(url) as client:
        expect_success(client.register_agent(REGISTRATION))
        child = os.fork()
        if child == 0:
            answer = client.heartbeat("a")
            os._exit(0 if answer["status"] == "success" else 1)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        expect_success(client.heartbeat("a"))


def test_closing_leaves_no_thread_behind(url: str) -> None:
    """And a client that was never used has none."""
    before = threading.active_count()
    with SyncRegistryClient(url) as client:
        assert threading.active_count() == before
        expect_success(client.register_agent(REGISTRATION))
        assert threading.active_count() == before + 1

    assert threading.active_count() == before


def test_closing_ends_what_waits_in_other_threads(url: str) -> None:
    """A call is told that the client was closed, a loop over a watch ends."""
    ends: list[str] = []
    client = SyncRegistryClient(url)
    watch = client.watch()
    watch.__enter__()

    def wait() -> None:
        try:
            client.wait_for("nothing", timeout=60)
        except ClientClosed:
            ends.append("call")

    def follow() -> None:
        ends.extend("watch" for _ in [list(watch)])

    threads = [threading.Thread(target=wait), threading.Thread(target=follow)]
    for thread in threads:
        thread.start()
    loop = client._thread._ensure_loop()
    wait_until(lambda: len(asyncio.all_tasks(loop)) == 3, description="both wait, and the watch reads")
    client.close()
    for thread in threads:
        thread.join(5)

    assert sorted(ends) == ["call", "watch"]
    watch.close()
    client.close()


def test_an_interrupted_wait_cancels_the_call(url: str) -> None:
    """What waits in the thread does not go on for nobody."""
    with SyncRegistryClient(url) as client:
        expect_success(client.register_agent(REGISTRATION))
        loop = client._thread._ensure_loop()

        class Interrupted(BaseException):
            pass

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("concurrent.futures.Future.result", _raiser(Interrupted))
            with pytest.raises(Interrupted):
                client.wait_for("nothing", timeout=60)
        wait_until(lambda: len(asyncio.all_tasks(loop)) == 0, description="the call is over")


def _raiser(kind: type[BaseException]) -> Any:
    def raising(_future: object, timeout: float | None = None) -> None:
        raise kind(timeout)

    return raising
