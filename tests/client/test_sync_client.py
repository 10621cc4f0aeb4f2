"""The synchronous client has the same calls, from any thread, in a running event loop and in a forked process."""

import asyncio
import inspect
import os
import runpy
import threading
from collections.abc import Iterator
from pathlib import Path
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

_CLIENT = Path(__file__).parents[2] / "client"


@pytest.fixture
def url(redis_url: str) -> Iterator[str]:
    """Start a replica as a process, because these tests block."""
    with Replica(redis_url) as replica:
        yield replica.url


def public_methods(cls: type) -> dict[str, tuple[Any, ...]]:
    """Return the parameters of each public method and of the constructor."""
    members = inspect.getmembers(cls, inspect.isfunction)
    return {
        name: tuple(inspect.signature(member).parameters.values())
        for name, member in members
        if not name.startswith("_") or name == "__init__"
    }


def test_the_generated_file_is_current() -> None:
    """`sync_client.py` is the output of generate_sync.py for `client.py`; an editable install does not rewrite it."""
    generate = runpy.run_path(str(_CLIENT / "generate_sync.py"))["generate"]
    package = _CLIENT / "mcp_mesh_client"

    assert (package / "sync_client.py").read_text() == generate((package / "client.py").read_text()), (
        "sync_client.py is not current: run `make generate`"
    )


def test_a_long_call_has_one_argument_on_each_line() -> None:
    """The generator splits a call that is too long for one line."""
    names = ", ".join(f"a_long_name_{number}: int" for number in range(8))
    source = f'''class RegistryClient:
    async def call(self, {names}) -> int:
        """Call."""
        return 1
'''
    generated = runpy.run_path(str(_CLIENT / "generate_sync.py"))["generate"](source)

    assert max(len(line) for line in generated.splitlines() if "def " not in line) <= 120
    compile(generated, "generated", "exec")


def test_both_clients_have_the_same_methods() -> None:
    """Parameters, kinds, defaults and types are equal, too; session and watch are written by hand."""
    assert public_methods(SyncRegistryClient) == public_methods(RegistryClient)
    assert public_methods(SyncWatch).keys() - {"__init__"} == public_methods(Watch).keys() - {"__init__"}
    for kinds in ((RegistryClient, SyncRegistryClient), (Watch, SyncWatch)):
        names, sync_names = (
            {name for name, _ in inspect.getmembers(cls, lambda it: isinstance(it, property))} for cls in kinds
        )
        assert names - {"resource_version"} == sync_names - {"resource_version"}


def test_every_call_works_without_await(url: str) -> None:
    """The results are those of the asynchronous client."""
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
        responses: list[Any] = [
            client.agent("a"),
            client.agent_status("a"),
            client.agent_health("a"),
            client.health(),
        ]
        assert {response["status"] for response in responses} == {"healthy"}
        assert client.ready() == {"status": "ready"}
        mesh: list[Any] = [client.metrics(), client.capabilities(), client.tools(), client.describe(), client.openapi()]
        assert [len(response) > 0 for response in mesh] == [True] * 5
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
    """`asyncio.run` would raise an error there."""
    with SyncRegistryClient(url) as client:
        expect_success(client.register_agent(REGISTRATION))


def test_the_errors_are_those_of_the_async_client() -> None:
    """They are raised in the calling thread."""
    with SyncRegistryClient(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(ConnectionError):
            client.heartbeat("a")
        with pytest.raises(ValueError, match=r"^agent_id: "):
            client.heartbeat("")
        assert client.register_with_fallback(REGISTRATION) == {"status": "offline", "message": "Registry unavailable"}


def test_a_watch_is_an_iterator(url: str) -> None:
    """The loop ends when another thread closes the watch."""
    events: list[WatchEvent] = []

    def follow(watch: SyncWatch) -> None:
        for event in watch:
            events.append(event)  # noqa: PERF402 - one by one, as they come

    with SyncRegistryClient(url) as client:
        expect_success(client.register_agent(REGISTRATION))
        with client.watch(send_initial=True) as watch:
            thread = threading.Thread(target=follow, args=(watch,))
            thread.start()
            expect_success(client.heartbeat("a"))
            expect_success(client.unregister_agent("a"))
            wait_until(lambda: len(events) == 3, description="all events arrived")
            assert watch.resource_version == events[-1]["resource_version"]
            watch.close()
            thread.join()
        with pytest.raises(RequestRejected), client.watch(label_selector="=="):
            pass

    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]


def test_many_threads_share_one_client(url: str) -> None:
    """Each thread gets its own response."""
    responses: list[Any] = []
    with SyncRegistryClient(url) as client:
        threads = [
            threading.Thread(
                target=lambda number=number: responses.append(
                    client.register_agent(REGISTRATION | {"id": f"a{number}"})
                )
            )
            for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert {response["agent_id"] for response in responses} == {f"a{number}" for number in range(20)}


def test_a_forked_process_has_its_own_event_loop(url: str) -> None:
    """The thread of the parent does not exist in the child, which starts a new one."""
    with SyncRegistryClient(url) as client:
        expect_success(client.register_agent(REGISTRATION))
        child = os.fork()
        if child == 0:
            response = client.heartbeat("a")
            os._exit(0 if response["status"] == "success" else 1)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        expect_success(client.heartbeat("a"))


def test_closing_leaves_no_thread_behind(url: str) -> None:
    """A client that was never used has no thread."""
    before = threading.active_count()
    with SyncRegistryClient(url) as client:
        assert threading.active_count() == before
        expect_success(client.register_agent(REGISTRATION))
        assert threading.active_count() == before + 1

    assert threading.active_count() == before


def test_closing_ends_waits_in_other_threads(url: str) -> None:
    """A call raises ClientClosed, and a loop over a watch ends."""
    ends: list[str] = []
    client = SyncRegistryClient(url)
    watch = client.watch()
    watch.__enter__()

    def wait() -> None:
        try:
            client.wait_for("nothing", timeout=3600)
        except ClientClosed:
            ends.append("call")

    def follow() -> None:
        ends.extend("watch" for _ in [list(watch)])

    threads = [threading.Thread(target=wait), threading.Thread(target=follow)]
    for thread in threads:
        thread.start()
    loop = client._thread._ensure_loop()
    wait_until(lambda: len(asyncio.all_tasks(loop)) == 3, description="both threads wait, and the watch reads")
    client.close()
    for thread in threads:
        thread.join()

    assert sorted(ends) == ["call", "watch"]
    watch.close()
    client.close()


def test_an_interrupted_wait_cancels_the_call(url: str) -> None:
    """The coroutine in the event loop thread does not continue after its caller was interrupted."""
    with SyncRegistryClient(url) as client:
        expect_success(client.register_agent(REGISTRATION))
        loop = client._thread._ensure_loop()

        class Interrupted(BaseException):
            pass

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("concurrent.futures.Future.result", _raiser(Interrupted))
            with pytest.raises(Interrupted):
                client.wait_for("nothing", timeout=3600)
        wait_until(lambda: len(asyncio.all_tasks(loop)) == 0, description="the call is over")


def _raiser(cls: type[BaseException]) -> Any:
    def raise_it(_future: object, timeout: float | None = None) -> None:
        raise cls(timeout)

    return raise_it
