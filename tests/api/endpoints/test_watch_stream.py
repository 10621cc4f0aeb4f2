"""GET /agents?watch=true over a real socket, from the first header to the last chunk."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import httpx2
import pytest
import redis

from registry.api.endpoints import watch_stream as streams
from registry.service.watch import watch_service as watches
from tests.support.http_calls import REQUEST_TIMEOUT_S, expect_error, register, send_heartbeat
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.served_registry import ServedRegistry, served_registry
from tests.support.watch_client import WatchStream, open_watch

SSE = {"accept": "text/event-stream"}


async def unregister(client: httpx2.AsyncClient, agent_id: str = "a") -> None:
    """Unregister an agent."""
    assert (await client.delete(f"/agents/{agent_id}")).status_code == 200


async def wait_until_no_watch_is_left(served: ServedRegistry) -> None:
    """Wait until the replica has neither a watch nor a watch group."""
    watch_service = served.registry.watch_service
    await async_wait_until(
        lambda: not watch_service.watchers and not list(watch_service.fanout), description="no watch is left"
    )


async def test_the_headers_are_sent_before_the_first_event(served: ServedRegistry) -> None:
    """A client of a mesh without changes receives a response before the first event."""
    async with open_watch(served.url) as stream:
        assert stream.headers["content-type"] == "application/x-ndjson"
        assert stream.headers["transfer-encoding"] == "chunked"
        assert stream.headers["cache-control"] == "no-cache"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["x-request-id"]


async def test_each_change_of_an_agent_is_one_event(served: ServedRegistry) -> None:
    """Registered, first heartbeat, registered with another spec, unregistered."""
    async with open_watch(served.url) as stream:
        await register(served.client)
        await send_heartbeat(served.client)
        await send_heartbeat(served.client)
        await register(served.client, labels={"k": "1"})
        await unregister(served.client)

        events = await stream.next_events(4)
        assert [event.kind_and_id for event in events] == [
            ("ADDED", "a"),
            ("MODIFIED", "a"),
            ("MODIFIED", "a"),
            ("DELETED", "a"),
        ]
        assert [event.object["status"] for event in events] == ["pending", "healthy", "healthy", "healthy"]
        assert [event.object["labels"] for event in events] == [{}, {}, {"k": "1"}, {"k": "1"}]
        versions = [event.version for event in events]
        assert versions == sorted(set(versions))
        assert [int(event.object["resource_version"]) for event in events] == versions


async def test_an_event_has_the_same_agent_as_a_read(served: ServedRegistry) -> None:
    """Watches and reads return the same object."""
    async with open_watch(served.url) as stream:
        await register(served.client, annotations={"k": "ü"}, capabilities=["read"])
        (added,) = await stream.next_events(1)
        await send_heartbeat(served.client)
        (modified,) = await stream.next_events(1)

        assert modified.object == (await served.client.get("/agents/a")).json()
        assert added.object["last_heartbeat"] is None
        assert modified.object["last_heartbeat"] is not None
        assert added.timestamp.endswith("Z")


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json, text/event-stream;q=0.5"])
async def test_a_client_that_requests_server_sent_events_receives_them(served: ServedRegistry, accept: str) -> None:
    """With the version as event id, which browsers send when they reconnect."""
    async with open_watch(served.url, {"accept": accept}) as stream:
        version = await register(served.client)
        (event,) = await stream.next_events(1)

        assert stream.headers["content-type"].startswith("text/event-stream")
        assert event.sse_id == version == str(event.version)


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/*"])
async def test_any_other_client_receives_json_lines(served: ServedRegistry, accept: str | None) -> None:
    """`*/*` includes server-sent events, but does not name them."""
    async with open_watch(served.url, {"accept": accept} if accept else {}) as stream:
        assert stream.headers["content-type"] == "application/x-ndjson"


async def test_last_event_id_overrides_the_version_of_the_query(served: ServedRegistry) -> None:
    """A browser reconnects with its first URL, so the header is the newer of the two."""
    versions = [await register(served.client, f"a{number}") for number in range(4)]

    async with open_watch(served.url, SSE | {"last-event-id": versions[2]}, resource_version=versions[0]) as stream:
        assert [event.agent_id for event in await stream.next_events(1)] == ["a3"]
    async with open_watch(served.url, SSE | {"last-event-id": versions[2]}, send_initial="true") as stream:
        assert [event.kind_and_id for event in await stream.next_events(1)] == [("ADDED", "a3")]


async def test_last_event_id_is_ignored_for_json_lines(served: ServedRegistry) -> None:
    """In a stream of JSON lines the header has no meaning, and the query applies."""
    version = await register(served.client)

    async with open_watch(served.url, {"last-event-id": version}, send_initial="true") as stream:
        assert [event.kind_and_id for event in await stream.next_events(2)] == [("ADDED", "a"), ("BOOKMARK", "")]


async def test_a_resumed_watch_loses_and_repeats_no_event(served: ServedRegistry) -> None:
    """From every version of the log."""
    versions = [int(await register(served.client, f"a{number}")) for number in range(8)]

    async def received(since: int) -> list[int]:
        async with open_watch(served.url, resource_version=since, timeout="0.01s") as stream:
            *events, bookmark = await stream.remaining_events()
            assert (bookmark.kind, bookmark.version) == ("BOOKMARK", versions[-1])
            return [event.version for event in events]

    found = await asyncio.gather(*map(received, versions))
    assert found == [versions[at + 1 :] for at in range(len(versions))]


async def test_an_agent_that_starts_or_stops_matching_is_added_or_deleted(served: ServedRegistry) -> None:
    """For watches with that filter; a DELETED event also has the version of its object."""
    async with (
        open_watch(served.url, label_selector="k=1") as labelled,
        open_watch(served.url, status="pending") as pending,
    ):
        await register(served.client, labels={"k": "2"})
        await register(served.client, labels={"k": "1"})
        await register(served.client, labels={"k": "1"}, version="2.0.0")
        await send_heartbeat(served.client)
        await register(served.client, labels={"k": "2"})
        await register(served.client, "late", labels={"k": "1"})

        received = await labelled.next_events(5)
        assert [event.kind_and_id for event in received] == [
            ("ADDED", "a"),
            ("MODIFIED", "a"),
            ("MODIFIED", "a"),
            ("DELETED", "a"),
            ("ADDED", "late"),
        ]
        assert [int(event.object["resource_version"]) for event in received] == [event.version for event in received]
        kinds = [event.kind_and_id for event in await pending.next_events(5)]
        assert kinds == [("ADDED", "a"), ("MODIFIED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "late")]


@pytest.mark.parametrize(
    "query",
    [
        {"namespace": "n"},
        {"capability": "read"},
        {"capability": "rea", "fuzzy_match": "true"},
        {"capability_tags": "fast"},
        {"capability_category": "files", "version_constraint": ">=2"},
        {"label_selector": "tier in (web, api), !legacy"},
        {"agent_id": "a"},
    ],
    ids=lambda query: next(iter(query)),
)
async def test_watches_support_every_filter_of_lists(served: ServedRegistry, query: dict[str, str]) -> None:
    """None of them matches the other agent."""
    read = {"name": "read", "version": "2.1.0", "category": "files", "tags": ["fast"]}
    async with open_watch(served.url, **query) as stream:
        await register(served.client, "b", labels={"tier": "db"}, capabilities=["write"])
        await register(served.client, "a", namespace="n", labels={"tier": "web"}, capabilities=[read])

        assert [event.kind_and_id for event in await stream.next_events(1)] == [("ADDED", "a")]


async def test_a_version_that_is_not_in_the_log_is_410(
    served: ServedRegistry, redis_client: redis.Redis, redis_url: str
) -> None:
    """Too old or in the future: 410 before any stream, with the current version, from which the client continues."""
    old = await register(served.client, "a")
    await register(served.client, "b")
    redis_client.xtrim("{mesh}:log", maxlen=1, approximate=False)
    now = await register(served.client, "c")

    async with served_registry(redis_url) as fresh:
        refused = await fresh.client.get(f"/agents?watch=true&resource_version={old}")
        assert expect_error(refused, 410, "version_too_old")["resource_version"] == now
        future = await fresh.client.get(f"/agents?watch=true&resource_version={int(now) + 10**6}")
        assert expect_error(future, 410, "version_ahead")["resource_version"] == now
        unknown = await fresh.client.get(f"/agents?watch=true&resource_version={int(now) - 1}", headers=SSE)
        assert expect_error(unknown, 410, "version_too_old")["resource_version"] == now


async def test_the_state_is_sent_first_if_requested(served: ServedRegistry) -> None:
    """Sorted as in lists, then a bookmark with its version, then the changes."""
    await register(served.client, "b", namespace="n")
    await register(served.client, "a", namespace="n")
    last = await register(served.client, "c", namespace="m")
    await register(served.client, "other", namespace="x")

    async with open_watch(served.url, send_initial="true", label_selector="!no", namespace="n") as stream:
        state = await stream.next_events(3)
        await register(served.client, "d", namespace="n")
        (added,) = await stream.next_events(1)

    assert [event.kind_and_id for event in state] == [("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", "")]
    assert all(event.version == int(event.object["resource_version"]) for event in state)
    assert state[-1].version > int(last)
    assert added.kind_and_id == ("ADDED", "d")


async def test_events_of_the_state_have_no_ids(served: ServedRegistry) -> None:
    """Only the bookmark after it has one.

    A browser that was disconnected within the state had resumed from the version of one agent, and missed the others.
    """
    await register(served.client, "b")
    await register(served.client, "a")

    async with open_watch(served.url, SSE, send_initial="true") as stream:
        *state, bookmark = await stream.next_events(3)
        await register(served.client, "c")
        (added,) = await stream.next_events(1)

    assert [event.sse_id for event in state] == [None, None]
    assert bookmark.sse_id == str(bookmark.version)
    assert added.sse_id == str(added.version)


async def test_an_empty_state_is_a_bookmark(served: ServedRegistry) -> None:
    """So a client detects that its state is complete."""
    async with open_watch(served.url, send_initial="true") as stream:
        assert [event.kind for event in await stream.next_events(1)] == ["BOOKMARK"]


@pytest.mark.parametrize("headers", [{}, SSE], ids=["ndjson", "sse"])
async def test_a_stream_ends_with_a_bookmark_after_its_duration(
    served: ServedRegistry, headers: dict[str, str]
) -> None:
    """The end is clean, and the bookmark has the current version even if no event matched."""
    began = time.monotonic()
    async with open_watch(served.url, headers, timeout="1s", namespace="nowhere") as stream:
        version = await register(served.client)
        (bookmark,) = await stream.remaining_events()

        assert (bookmark.kind, bookmark.version) == ("BOOKMARK", int(version))
        assert bookmark.object == {"resource_version": version}
        assert bookmark.sse_id == (version if headers else None)
        assert stream.ended_cleanly
        assert time.monotonic() - began > 0.9


async def test_a_stream_ends_without_the_periodic_check_of_all_watches(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a timer of its own."""

    async def check_nothing(_service: watches.WatchService) -> None:
        return

    monkeypatch.setattr(watches.WatchService, "tick", check_nothing)
    async with served_registry(redis_url) as served, open_watch(served.url, timeout="0.2s") as stream:
        assert [event.kind for event in await stream.remaining_events()] == ["BOOKMARK"]


async def test_the_state_is_not_older_than_the_requested_version(served: ServedRegistry) -> None:
    """0 accepts any cached state; a version above the current one belongs to another timeline."""
    version = await register(served.client)
    for since in (version, "0"):
        async with open_watch(served.url, send_initial="true", resource_version=since) as stream:
            assert [event.kind for event in await stream.next_events(2)] == ["ADDED", "BOOKMARK"]

    response = await served.client.get("/agents?watch=true&send_initial=true&resource_version=99999999999999")

    expect_error(response, 410, "version_ahead")


@pytest.mark.parametrize(("headers", "line"), [({}, ""), (SSE, ": keep-alive")], ids=["ndjson", "sse"])
async def test_a_stream_without_events_sends_keep_alives(
    served: ServedRegistry, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], line: str
) -> None:
    """With data that readers of the format ignore: an empty line or a comment."""
    monkeypatch.setattr(streams, "_KEEP_ALIVE_INTERVAL_S", 0.1)

    async with open_watch(served.url, headers) as stream:
        assert set(await stream.wait_for_keep_alives(3)) == {line}


async def test_bookmarks_are_sent_periodically(served: ServedRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """They report the current version, even if no event matched."""
    monkeypatch.setattr(streams, "_BOOKMARK_INTERVAL_S", 0.2)

    async with open_watch(served.url, namespace="nowhere") as stream:
        await stream.next_events(1)
        version = await register(served.client)
        marks = await stream.next_events(2)

    assert {mark.kind for mark in marks} == {"BOOKMARK"}
    assert marks[-1].version == int(version)


async def test_every_stream_has_a_maximum_duration(served: ServedRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """So watches spread over replicas that started later."""
    monkeypatch.setattr(streams, "_MIN_STREAM_S", 0.05)
    monkeypatch.setattr(streams, "_MAX_STREAM_S", 0.1)

    async with open_watch(served.url, timeout="60s") as stream:
        assert [event.kind for event in await stream.remaining_events()] == ["BOOKMARK"]
        assert stream.ended_cleanly


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=1", "limit"),
        ("continue=x", "continue"),
        ("fields=id", "fields"),
        ("wait=1s", "wait"),
        ("resource_version=1&resource_version_match=Exact", "resource_version_match"),
        ("timeout=nan", "timeout"),
        ("timeout=2h", "timeout"),
        ("resource_version=abc", "resource_version"),
        ("namespaec=x", "namespaec"),
        ("label_selector=a%20in", "label_selector"),
    ],
)
async def test_parameters_of_lists_are_rejected_for_a_watch(served: ServedRegistry, query: str, field: str) -> None:
    """Before any stream, with the name of the parameter."""
    body = expect_error(await served.client.get(f"/agents?watch=true&{query}"), 400, "malformed_request")

    assert body["details"][0]["field"].startswith(field)


@pytest.mark.parametrize("query", ["timeout=1s", "send_initial=true"])
async def test_parameters_of_watches_are_rejected_for_a_list(served: ServedRegistry, query: str) -> None:
    """Otherwise a client could mistake a list for a watch."""
    expect_error(await served.client.get(f"/agents?{query}"), 400, "malformed_request")


async def test_head_of_a_watch_is_rejected(served: ServedRegistry) -> None:
    """The stream would have no content."""
    assert (await served.client.head("/agents?watch=true")).status_code == 400
    await wait_until_no_watch_is_left(served)


async def test_an_invalid_last_event_id_is_rejected(served: ServedRegistry) -> None:
    """The error names the header."""
    response = await served.client.get("/agents?watch=true", headers=SSE | {"last-event-id": "x"})

    assert expect_error(response, 400, "malformed_request")["details"][0]["field"] == "Last-Event-ID"


async def test_streams_are_not_compressed(served: ServedRegistry) -> None:
    """Compression would delay events."""
    for number in range(50):
        await register(served.client, f"a{number}", labels={"k": "x" * 50})

    async with open_watch(served.url, {"accept-encoding": "gzip, zstd"}, send_initial="true") as stream:
        assert "content-encoding" not in stream.headers
        assert len(await stream.next_events(51)) == 51


async def test_closed_watches_are_removed(served: ServedRegistry) -> None:
    """No watches and no groups, at any moment: before, during and after events."""
    async with AsyncExitStack() as stack:
        for number in range(20):
            stream = await stack.enter_async_context(open_watch(served.url, namespace=f"n{number % 4}"))
            if number % 2:
                await register(served.client, f"a{number}", namespace=f"n{number % 4}")
                await stream.next_events(1)
        assert len(served.registry.watch_service.watchers) == 20

    await wait_until_no_watch_is_left(served)


async def test_rejected_watches_are_removed(served: ServedRegistry) -> None:
    """The version is checked before the watch is created."""
    await served.client.get("/agents?watch=true&resource_version=99999999999999")

    await wait_until_no_watch_is_left(served)


async def change_repeatedly(client: httpx2.AsyncClient, stream: WatchStream, rounds: int) -> None:
    """Change one large agent repeatedly, and read each change from a stream."""
    for number in range(rounds):
        await register(client, "large", annotations={"text": f"{number} " + "x" * 60_000})
        await stream.next_events(1)


@asynccontextmanager
async def unread_watch(url: str) -> AsyncIterator[None]:
    """Open a watch of all agents without reading its events."""
    where, loop = urlsplit(url), asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await loop.sock_connect(connection, (where.hostname, where.port))
        await loop.sock_sendall(connection, b"GET /agents?watch=true HTTP/1.1\r\nhost: localhost\r\n\r\n")
        yield


async def test_a_client_that_never_reads_is_disconnected_without_effect_on_others(
    served: ServedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is aborted; the other watches receive every change in the meantime."""
    monkeypatch.setattr(watches, "_STALLED_CLIENT_TIMEOUT_S", 0.5)
    watch_service = served.registry.watch_service
    async with unread_watch(served.url), open_watch(served.url) as stream:
        await async_wait_until(lambda: len(watch_service.watchers) == 2, description="both watches are open")
        while len(watch_service.watchers) == 2:
            await change_repeatedly(served.client, stream, 10)

    await wait_until_no_watch_is_left(served)


async def test_a_watch_during_the_shutdown_is_rejected(served: ServedRegistry) -> None:
    """It would delay the shutdown; the client is to use another replica."""
    served.registry.watch_service.close()

    expect_error(await served.client.get("/agents?watch=true"), 503, "not_ready")


async def test_a_stopping_replica_sends_a_bookmark_on_each_stream(redis_url: str) -> None:
    """Fifty streams end cleanly, and the process exits with status 0."""
    with Replica(redis_url) as replica:
        async with (
            AsyncExitStack() as stack,
            httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client,
        ):
            opened = [
                await stack.enter_async_context(
                    open_watch(replica.url, SSE if number % 2 else {}, namespace=f"n{number}")
                )
                for number in range(50)
            ]
            version = await register(client, namespace="n7")
            added = await opened[7].next_event()

            stopping = asyncio.create_task(asyncio.to_thread(replica.stop))
            remaining = await asyncio.gather(*(stream.remaining_events() for stream in opened))
            await stopping

    assert all(stream.ended_cleanly for stream in opened)
    assert {end[-1].kind_and_id for end in remaining} == {("BOOKMARK", "")}
    assert added is not None
    assert added.kind_and_id == ("ADDED", "a")
    assert [event.version for event in remaining[7]] == [int(version)]


async def test_a_client_that_never_reads_does_not_delay_the_shutdown(redis_url: str) -> None:
    """It is disconnected after the time for requests in flight, and the process ends."""
    with Replica(redis_url) as replica:
        async with (
            httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client,
            unread_watch(replica.url),
            open_watch(replica.url) as stream,
        ):
            await change_repeatedly(client, stream, 100)
            await asyncio.to_thread(replica.stop)


async def test_a_stream_survives_a_frozen_and_a_killed_store() -> None:
    """With AOF the log continues: no event is lost or repeated, and the stream does not end."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        async with served_registry(server.url) as served, open_watch(served.url) as stream:
            versions = [int(await register(served.client, "a"))]
            server.pause()
            assert (await served.client.post("/heartbeat", json={"agent_id": "a"})).status_code == 503
            server.resume()
            await async_wait_until(lambda: served.registry.status.ready, description="the replica is ready again")
            versions.append(int(await register(served.client, "b")))
            server.kill()
            await async_wait_until(lambda: not served.registry.status.ready, description="the replica noticed")
            server.restart()
            await async_wait_until(lambda: served.registry.status.ready, description="the replica is ready again")
            versions.append(int(await register(served.client, "c")))

            events = await stream.next_events(3)
            while events[-1].agent_id != "c":
                events += await stream.next_events(1)

    # The heartbeat that failed may have been applied: then there is one more event.
    received = [event.version for event in events]
    assert received == sorted(set(received))
    assert set(versions) <= set(received)


async def test_old_versions_are_503_and_not_410_during_an_outage() -> None:
    """410 makes all clients list again at once; a version that cannot be checked now is 503."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        async with served_registry(server.url) as first:
            versions = [await register(first.client, f"a{number}") for number in range(3)]
        async with served_registry(server.url) as served:
            server.kill()
            refused = await served.client.get(f"/agents?watch=true&resource_version={versions[0]}")
            expect_error(refused, 503, "store_unavailable")
            server.restart()

            responses: set[int] = set()

            async def is_served_again() -> bool:
                target = f"/agents?watch=true&timeout=0.01s&resource_version={versions[0]}"
                responses.add((await served.client.get(target)).status_code)
                return 200 in responses

            await async_wait_until(is_served_again, description="the old version is served again")
    assert responses <= {200, 503}


@pytest.mark.parametrize("headers", [{}, SSE], ids=["ndjson", "sse"])
async def test_a_store_that_lost_its_data_ends_streams_with_an_error(
    served: ServedRegistry, redis_client: redis.Redis, headers: dict[str, str]
) -> None:
    """Code 410 and the current version: list again. No event of the new timeline is sent on the old stream."""
    await register(served.client)
    async with open_watch(served.url, headers) as stream:
        redis_client.flushall()
        events = await stream.remaining_events()

        assert [event.kind for event in events][-1:] == ["ERROR"]
        error = events[-1].object
        assert (error["code"], error["error"]) == (410, "version_too_old")
        assert events[-1].sse_id is None
        assert stream.ended_cleanly
    version = await register(served.client, "b")
    assert int(version) > int(error["resource_version"])
    async with open_watch(served.url, resource_version=error["resource_version"]) as stream:
        assert [event.agent_id for event in await stream.next_events(1)] == ["b"]
