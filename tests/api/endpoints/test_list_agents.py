"""Lists: filters, pages, fields, ETags, compression, versions, and waiting for a change."""

import asyncio
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Awaitable
from typing import Any

import httpx2
import pytest
import zstandard

from registry.service.watch.watch_service import WatchService
from tests.support.http_calls import (
    error_fields,
    expect_error,
    expect_success,
    list_agent_ids,
    register,
    send_heartbeat,
)
from tests.support.in_process_registry import in_process_registry
from tests.support.machine_speed import scaled

# The longest wait that a request may ask for.
LONG_WAIT = "300s"

AGENTS: dict[str, dict[str, Any]] = {
    "files": {
        "namespace": "system",
        "labels": {"env": "prod", "tier": "web"},
        "capabilities": [
            {
                "name": "read_file",
                "version": "1.2.0",
                "category": "file_operations",
                "tags": ["io", "filesystem"],
                "description": "Reads a File",
            },
            {
                "name": "write_file",
                "version": "2.0.0",
                "category": "file_operations",
                "tags": ["io"],
                "stability": "beta",
            },
        ],
    },
    "mail": {
        "labels": {"env": "dev"},
        "capabilities": [
            {"name": "send_mail", "version": "2.1.0-rc.1", "tags": ["net", "io"], "description": "Sends letters"},
            {"name": "read_file", "version": "0.9.0", "stability": "deprecated"},
        ],
    },
    "idle": {"namespace": "system", "labels": {"env": "prod", "legacy": ""}},
}


async def register_agents(client: httpx2.AsyncClient) -> None:
    """Register the agents; only `files` has sent a heartbeat, the others are pending."""
    for agent_id, fields in AGENTS.items():
        await register(client, agent_id, **fields)
    await send_heartbeat(client, "files")


# Query objects of the tool, and the matches among mail (default), files and idle (system) with status any.
QUERIES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["mail", "files", "idle"]),
    ({"namespace": "system"}, ["files", "idle"]),
    ({"agent_id": "mail"}, ["mail"]),
    ({"agent_id": "mail", "namespace": "system"}, []),
    ({"status": "healthy"}, ["files"]),
    ({"status": "pending"}, ["mail", "idle"]),
    ({"status": "unhealthy"}, []),
    ({"status": "offline"}, []),
    ({"capability": "read_file"}, ["mail", "files"]),
    ({"capabilities": ["read_file", "write_file"]}, ["files"]),
    ({"capabilities": ["send_mail", "write_file"]}, []),
    ({"capabilities": ["send_mail", "write_file"], "match": "any"}, ["mail", "files"]),
    ({"capability_category": "file_operations"}, ["files"]),
    ({"capability_stability": "deprecated"}, ["mail"]),
    ({"capability_tags": ["io"]}, ["mail", "files"]),
    ({"capability_tags": ["io", "filesystem"]}, ["files"]),
    # Each condition matches a capability of the agent, but no capability satisfies all of them.
    ({"capability_tags": ["filesystem"], "capability_stability": "beta"}, []),
    ({"capability_tags": ["net"], "capability_stability": "deprecated"}, []),
    ({"capability": "read_file", "capability_category": "file_operations"}, ["files"]),
    ({"capabilities": ["read_file", "write_file"], "capability_tags": ["filesystem"]}, []),
    ({"capabilities": ["read_file", "write_file"], "capability_tags": ["io"]}, ["files"]),
    ({"capabilities": ["read_file", "send_mail"], "capability_stability": "beta", "match": "any"}, []),
    ({"capability": "read_file", "version_constraint": ">=1.0.0"}, ["files"]),
    ({"version_constraint": "^2"}, ["files"]),
    ({"version_constraint": "^2.1.0-rc.0"}, ["mail"]),
    ({"version_constraint": "~1.2 || <1"}, ["mail", "files"]),
    ({"version_constraint": ">=1,<2"}, ["files"]),
    ({"version_constraint": "1.x"}, ["files"]),
    ({"version_constraint": ">=0 <0.9"}, []),
    ({"label_selector": "env=prod"}, ["files", "idle"]),
    ({"label_selector": "env==prod,tier"}, ["files"]),
    ({"label_selector": "tier!=web"}, ["mail", "idle"]),
    ({"label_selector": "env in (dev, test)"}, ["mail"]),
    ({"label_selector": "env notin (dev),!legacy"}, ["files"]),
    ({"label_selector": "legacy="}, ["idle"]),
    ({"label_selector": "!env"}, []),
    ({"fuzzy_match": True, "capability": "FILE"}, ["mail", "files"]),
    ({"fuzzy_match": True, "capability": "sned_mail"}, ["mail"]),
    ({"fuzzy_match": True, "capability": "sned"}, []),
    ({"fuzzy_match": True, "capability": "write"}, ["files"]),
]


@pytest.mark.parametrize(("query", "found"), QUERIES, ids=[str(query) for query, _ in QUERIES])
async def test_a_filter_matches_the_same_agents_in_every_form(
    client: httpx2.AsyncClient, query: dict[str, Any], found: list[str]
) -> None:
    """As a query string with repeated or comma-separated values, and as a query object."""
    await register_agents(client)
    parameters = {"capability" if name == "capabilities" else name: value for name, value in query.items()}
    parameters |= {"fuzzy_match": "true"} if "fuzzy_match" in query else {}
    tags = parameters.get("capability_tags")
    joined = parameters | ({"capability_tags": ",".join(tags)} if isinstance(tags, list) else {})

    assert await list_agent_ids(client, **parameters) == found
    assert await list_agent_ids(client, **joined) == found
    response = expect_success(
        await client.post("/mcp/tools/discover_services", json={"query": {"status": "any"} | query}),
    )
    assert [agent["id"] for agent in response["agents"]] == found


async def test_the_tool_finds_healthy_agents_and_combines_labels_with_the_selector(
    client: httpx2.AsyncClient,
) -> None:
    """Unless the query has a status."""
    await register_agents(client)

    for query, found in (
        ({}, ["files"]),
        ({"status": "any"}, ["mail", "files", "idle"]),
        ({"status": None, "labels": {"env": "prod"}}, ["files"]),
        ({"status": "any", "labels": {"env": "prod"}, "label_selector": "!tier"}, ["idle"]),
    ):
        response = expect_success(await client.post("/mcp/tools/discover_services", json={"query": query}))
        assert [agent["id"] for agent in response["agents"]] == found


CAPABILITIES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["mail.send_mail", "files.read_file", "files.write_file"]),
    ({"include_deprecated": "true"}, ["mail.send_mail", "mail.read_file", "files.read_file", "files.write_file"]),
    ({"stability": "deprecated"}, ["mail.read_file"]),
    ({"stability": "beta"}, ["files.write_file"]),
    ({"name": "read_file"}, ["files.read_file"]),
    ({"name": "read"}, []),
    ({"name": "read", "fuzzy_match": "true"}, ["files.read_file"]),
    ({"name": "READ_FIEL", "fuzzy_match": "true"}, ["files.read_file"]),
    (
        {"name": "file", "fuzzy_match": "1", "include_deprecated": "1"},
        ["mail.read_file", "files.read_file", "files.write_file"],
    ),
    ({"description_contains": "a file"}, ["files.read_file"]),
    ({"category": "file_operations"}, ["files.read_file", "files.write_file"]),
    ({"tags": "io"}, ["mail.send_mail", "files.read_file", "files.write_file"]),
    ({"tags": "io,net"}, ["mail.send_mail"]),
    ({"tags": ["io", "filesystem"]}, ["files.read_file"]),
    ({"version_constraint": ">=1.2 <2.0.1"}, ["files.read_file", "files.write_file"]),
    ({"agent_namespace": "system", "tags": "filesystem"}, ["files.read_file"]),
    ({"agent_status": "pending"}, ["mail.send_mail"]),
    ({"agent_status": "any", "agent_id": "files"}, ["files.read_file", "files.write_file"]),
    ({"q": "letters"}, ["mail.send_mail"]),
    ({"q": "filesystem"}, ["files.read_file"]),
    ({"q": "filesytsem"}, ["files.read_file"]),
    ({"q": "MAIL"}, ["mail.send_mail"]),
    ({"q": "nothing"}, []),
]


@pytest.mark.parametrize(("query", "found"), CAPABILITIES, ids=[str(query) for query, _ in CAPABILITIES])
async def test_capabilities_are_filtered(client: httpx2.AsyncClient, query: dict[str, Any], found: list[str]) -> None:
    """Every condition applies to the row itself; a fuzzy match has a score."""
    await register_agents(client)
    response = await client.get("/capabilities", params=query)
    assert response.status_code == 200, response.text
    rows = response.json()["capabilities"]

    assert [f"{row['agent_id']}.{row['name']}" for row in rows] == found
    assert response.json()["count"] == len(found)
    ranked = "q" in query or "fuzzy_match" in query
    assert all(("score" in row) is ranked for row in rows)
    assert response.headers["x-resource-version"] == response.json()["resource_version"]


async def test_the_best_match_comes_first_with_its_score(client: httpx2.AsyncClient) -> None:
    """The exact name, then names with it as prefix, then names that contain it, then names with a typo."""
    for agent_id, name in (
        ("a", "get_translation"),
        ("b", "transaltion"),
        ("c", "translation_of"),
        ("d", "translation"),
    ):
        await register(client, agent_id, capabilities=[name])

    rows = (await client.get("/agents?fuzzy_match=true&capability=Translation")).json()["agents"]
    assert [row["id"] for row in rows] == ["d", "c", "a", "b"]
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert (scores[0], 85 <= scores[-1] < 100) == (100.0, True)

    rows = (await client.get("/capabilities?fuzzy_match=true&name=translation")).json()["capabilities"]
    assert [row["agent_id"] for row in rows] == ["d", "c", "a", "b"]
    assert [row["score"] for row in rows] == scores


async def test_nested_fields_are_returned_unchanged(client: httpx2.AsyncClient) -> None:
    """Schemas and annotations with any content."""
    schema = {"type": "object", "properties": {"ü": {"type": ["string", "null"]}}, "x-order": [1, 2.5, None]}
    notes = {"note": "any text; with, commas = and (brackets)"}
    await register(client, capabilities=[{"name": "x", "input_schema": schema}], annotations=notes)

    (agent,) = (await client.get("/agents")).json()["agents"]
    (row,) = (await client.get("/capabilities")).json()["capabilities"]

    assert (agent["annotations"], agent["capabilities"][0]["input_schema"]) == (notes, schema)
    assert row["input_schema"] == schema


async def test_a_walk_lists_each_agent_once_and_has_the_version_of_its_start(client: httpx2.AsyncClient) -> None:
    """Despite changes in between, which a watch from that version returns completely."""
    for n in range(10):
        await register(client, f"a{n}")
    asked: dict[str, Any] = {"limit": "4"}
    found, versions = [], []
    for n in range(3):
        body = (await client.get("/agents", params=asked)).json()
        found += [agent["id"] for agent in body["agents"]]
        versions.append(body["resource_version"])
        assert body["count"] == len(body["agents"])
        assert ("continue" in body) is (n < 2)
        if n == 0:
            await register(client, "a0", name="changed")
            await register(client, "a00")
            await client.delete("/agents/a5")
            await register(client, "a8b")
        asked["continue"] = body.get("continue")

    assert found == ["a0", "a1", "a2", "a3", "a4", "a6", "a7", "a8", "a8b", "a9"]
    assert len(set(versions)) == 1
    stream = await client.get(f"/agents?watch=true&timeout=0.5s&resource_version={versions[0]}")
    events = [line for line in stream.text.splitlines() if line]
    assert [sum(f'"{kind}"' in line for line in events) for kind in ("MODIFIED", "ADDED", "DELETED")] == [1, 2, 1]


async def test_a_walk_may_continue_on_another_replica(redis_url: str) -> None:
    """Also on a replica that started later; the token contains the whole query, even a selector with several values."""
    query = "label_selector=env in (dev,prod,test)&fuzzy_match=true&capability=read&limit=1"
    async with in_process_registry(redis_url) as one:
        await register_agents(one)
        first = await one.get(f"/agents?{query}")
        await register(one, "new")
        async with in_process_registry(redis_url) as two:
            second = await two.get(f"/agents?{query}&continue={first.json()['continue']}")

    assert second.status_code == 200, second.text
    assert [page.json()["agents"][0]["id"] for page in (first, second)] == ["mail", "files"]
    assert second.json()["resource_version"] == first.json()["resource_version"]
    assert second.headers["x-resource-version"] == first.json()["resource_version"]


def test_a_query_has_the_same_digest_in_every_process() -> None:
    """Each process prints sets in another order, so the next replica had rejected the token."""
    code = (
        "from registry.api.request.query_parsers import parse_list_agents;"
        "print(parse_list_agents(b'label_selector=a+in+(b,c,d,e),f+notin+(g,h)&capability_tags=x,y&fields=id').digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in range(4)
    }

    assert len(digests) == 1


async def test_a_token_belongs_to_its_query(client: httpx2.AsyncClient) -> None:
    """With other filters or fields, or damaged, it is rejected; the limit may change."""
    await register_agents(client)
    token = (await client.get("/agents?limit=1")).json()["continue"]

    assert (await client.get(f"/agents?limit=2&continue={token}")).json()["count"] == 2
    for rest in (f"namespace=system&continue={token}", f"fields=id&continue={token}", f"continue={token[:-8]}"):
        body = expect_error(await client.get(f"/agents?limit=1&{rest}"), 400, "malformed_request")
        assert body["details"][0]["field"] == "continue"
    for garbage in ("!", "AAAA", "bnVsbA", "e30", "W10", "%C3%BC", "W251bGxd", "WyIiLDEsMSwxXQ"):
        expect_error(await client.get(f"/agents?limit=1&continue={garbage}"), 400, "malformed_request")


async def test_a_walk_ends_if_its_version_is_no_longer_in_the_log(redis_url: str) -> None:
    """410 with the current version: a watch could no longer return the changes during the walk."""
    async with in_process_registry(redis_url, watch_history=100) as client:
        await register_agents(client)
        token = (await client.get("/agents?limit=1")).json()["continue"]
        for n in range(5):
            agents = [{"id": f"x{n}-{k}", "endpoint": "http://x:1"} for k in range(100)]
            expect_success(await client.post("/agents/batch", json={"agents": agents}))

        body = expect_error(await client.get(f"/agents?limit=1&continue={token}"), 410, "version_too_old")
        now = (await client.get("/agents?limit=1")).json()["resource_version"]

    assert body["resource_version"] == now


async def test_a_list_can_be_limited_to_some_fields(client: httpx2.AsyncClient) -> None:
    """In the order requested, without fields the agent does not have; the score is one of the fields."""
    await register_agents(client)

    agents = (await client.get("/agents?fields=status,id,nothing&agent_id=files")).json()["agents"]
    assert [list(agent.items()) for agent in agents] == [[("status", "healthy"), ("id", "files")]]
    body = (await client.get("/agents?fields=id&fields=score&capability=read_file&fuzzy_match=true")).json()
    assert body["agents"] == [{"id": "mail", "score": 100.0}, {"id": "files", "score": 100.0}]
    assert body["count"] == 2


async def test_an_unchanged_list_is_304(client: httpx2.AsyncClient) -> None:
    """Heartbeats and unrelated changes preserve the ETag, related ones do not; it is not valid for other queries."""
    await register_agents(client)
    path = "/agents?namespace=system"
    tag = (await client.get(path)).headers["etag"]
    assert tag.startswith('W/"')

    await register(client, "elsewhere")
    await send_heartbeat(client, "files")
    now = (await client.get("/agents/elsewhere")).json()["resource_version"]
    for header in (tag, f'"other", {tag}', tag.removeprefix("W/")):
        response = await client.get(path, headers={"if-none-match": header})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag
        assert response.headers["vary"] == "accept-encoding"
        assert response.headers["x-resource-version"] == now

    for other in ("/agents", f"{path}&status=healthy", f"{path}&fields=id"):
        assert (await client.get(other, headers={"if-none-match": tag})).status_code == 200
    await register(client, "new", namespace="system")
    response = await client.get(path, headers={"if-none-match": tag})
    assert response.status_code == 200
    assert response.headers["etag"] != tag


async def test_an_etag_is_valid_on_every_replica(redis_url: str) -> None:
    """Also on a replica that has not served the query yet, after unrelated changes; a related one invalidates it."""
    async with in_process_registry(redis_url) as one, in_process_registry(redis_url) as two:
        await register_agents(one)
        path = "/agents?namespace=system&label_selector=env in (prod,dev)"
        tag = (await one.get(path)).headers["etag"]
        await register(two, "elsewhere")

        assert (await two.get(path, headers={"if-none-match": tag})).status_code == 304
        assert (await one.get(path, headers={"if-none-match": tag})).status_code == 304
        await send_heartbeat(one, "idle")
        for replica in (one, two):
            response = await replica.get(path, headers={"if-none-match": tag})
            assert response.status_code == 200
            assert {agent["status"] for agent in response.json()["agents"]} == {"healthy"}


async def test_an_etag_of_another_timeline_is_invalid(client: httpx2.AsyncClient) -> None:
    """Its version has no meaning in the current timeline."""
    await register_agents(client)
    tag = (await client.get("/agents")).headers["etag"]
    digest, history, version = tag[3:-1].split("-")
    other = "".join("0" if letter != "0" else "1" for letter in history)

    for foreign in (f'W/"{digest}-{other}-{version}"', f'W/"{digest}-{history}-{int(version) + 10**6}"'):
        assert (await client.get("/agents", headers={"if-none-match": foreign})).status_code == 200


async def test_version_match_limits_the_age_of_a_list(client: httpx2.AsyncClient) -> None:
    """`NotOlderThan` accepts any later state, `Exact` only that version; the header has the version."""
    await register_agents(client)
    before = (await client.get("/agents")).headers["x-resource-version"]
    await register(client, "new")
    system = f"/agents?namespace=system&resource_version={before}&resource_version_match"
    every = f"/agents?resource_version={before}&resource_version_match"

    assert (await client.get("/agents")).headers["x-resource-version"] > before

    exact = await client.get(f"{system}=Exact")
    assert exact.status_code == 200, exact.text
    assert exact.headers["x-resource-version"] == exact.json()["resource_version"] == before
    later = await client.get(f"{every}=NotOlderThan")
    assert int(later.headers["x-resource-version"]) > int(before)
    expect_error(await client.get(f"{every}=Exact"), 410, "version_too_old")
    expect_error(await client.get(f"{every.replace('agents', 'capabilities')}=Exact"), 410, "version_too_old")
    expect_error(await client.get(f"/agents?resource_version={int(before) + 10**9}"), 503, "store_unavailable")


async def test_head_is_get_without_the_body(client: httpx2.AsyncClient) -> None:
    """The same headers, for the list and for 304; HEAD of a watch is not supported."""
    await register_agents(client)
    for path in ("/agents", "/agents?limit=1", "/agents?fields=id", "/capabilities"):
        got, head = await client.get(path), await client.head(path)
        assert head.status_code == 200
        for name in ("etag", "content-length", "x-resource-version", "content-type"):
            assert head.headers.get(name) == got.headers.get(name)
    tag = (await client.get("/agents")).headers["etag"]
    assert (await client.head("/agents", headers={"if-none-match": tag})).status_code == 304
    assert (await client.head("/agents?watch=true")).status_code == 400


async def raw_get(client: httpx2.AsyncClient, accept: str) -> tuple[httpx2.Response, bytes]:
    """Return the response to GET /agents and its undecoded body."""
    async with client.stream("GET", "/agents", headers={"accept-encoding": accept}) as response:
        return response, b"".join([part async for part in response.aiter_raw()])


@pytest.mark.parametrize("many", [60, 1200], ids=["large", "larger than what is packed at once"])
async def test_a_large_list_is_compressed_if_the_client_accepts_it(client: httpx2.AsyncClient, many: int) -> None:
    """Zstd if accepted, otherwise gzip if accepted; the decompressed body is the list."""
    for n in range(0, many, 60):
        agents = [{"id": f"a{n + k:05}", "endpoint": "http://a:1"} for k in range(60)]
        expect_success(await client.post("/agents/batch", json={"agents": agents}))
    plain, body = await raw_get(client, "identity")
    assert "content-encoding" not in plain.headers
    rows = body[: body.index(b'"timestamp"')]

    for accept, coding in (("gzip", "gzip"), ("gzip, zstd", "zstd"), ("GZIP;q=0.5, zstd;q=0", "gzip")):
        response, packed = await raw_get(client, accept)
        unpacked = zstandard.decompress(packed) if coding == "zstd" else gzip.decompress(packed)
        assert response.headers["content-encoding"] == coding
        assert response.headers["vary"] == "accept-encoding"
        assert int(response.headers["content-length"]) == len(packed) < len(body) / 4
        assert unpacked.startswith(rows)
    for accept in ("br", "", "gzip;q=0, zstd;q=0.0"):
        response, same = await raw_get(client, accept)
        assert "content-encoding" not in response.headers
        assert same.startswith(rows)


async def test_a_small_list_is_not_compressed(client: httpx2.AsyncClient) -> None:
    """Compression would take more time than it saves; the discovery tool never compresses."""
    await register_agents(client)
    response, _ = await raw_get(client, "gzip, zstd")

    assert "content-encoding" not in response.headers


async def at_once(call: Awaitable[httpx2.Response]) -> httpx2.Response:
    """Return a response that does not wait; it takes less time than the long wait, however slow the machine is."""
    async with asyncio.timeout(scaled(60)):
        return await call


async def test_waiting_ends_when_the_list_changes(client: httpx2.AsyncClient) -> None:
    """An unrelated change does not end it."""
    await register_agents(client)
    version = (await client.get("/agents")).json()["resource_version"]
    path = f"/agents?namespace=system&status=healthy&wait={LONG_WAIT}&resource_version={version}"

    waiting = asyncio.create_task(client.get(path))
    await register(client, "elsewhere")
    await register(client, "files", **(AGENTS["idle"] | {"namespace": "other"}))
    response = await at_once(waiting)
    assert response.json()["agents"] == []

    await at_once(client.get(path))


async def test_waiting_ends_after_the_requested_time(client: httpx2.AsyncClient) -> None:
    """Unrelated changes do not end it earlier; then the response is the unchanged list, or 304."""
    await register_agents(client)
    first = await client.get("/agents?namespace=system")
    version, tag = first.json()["resource_version"], first.headers["etag"]
    path = f"/agents?namespace=system&wait=500ms&resource_version={version}"

    began = time.monotonic()
    waiting = asyncio.create_task(client.get(path))
    for n in range(3):
        await register(client, f"elsewhere-{n}")
    response = await waiting
    assert time.monotonic() - began >= 0.5
    assert [agent["id"] for agent in response.json()["agents"]] == ["files", "idle"]
    assert int(response.json()["resource_version"]) > int(version)
    assert (await client.get(path, headers={"if-none-match": tag})).status_code == 304


@pytest.mark.parametrize("version", ["", "&resource_version=0", "&resource_version=1"])
async def test_a_call_without_a_known_version_does_not_wait(client: httpx2.AsyncClient, version: str) -> None:
    """The first call of a loop, and a call after a long pause, return the current list at once."""
    await register_agents(client)

    response = await at_once(client.get(f"/agents?wait={LONG_WAIT}{version}"))

    assert response.json()["count"] == 3


async def test_waiting_ends_without_the_periodic_check_of_all_watches(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a timer of its own."""

    async def check_nothing(_service: WatchService) -> None:
        return

    monkeypatch.setattr(WatchService, "tick", check_nothing)
    async with in_process_registry(redis_url) as client:
        await register_agents(client)
        version = (await client.get("/agents")).json()["resource_version"]

        await at_once(client.get(f"/agents?wait=160ms&resource_version={version}"))


async def test_waiting_ends_at_once_if_the_list_has_changed_already(client: httpx2.AsyncClient) -> None:
    """A caller that was disconnected for a moment misses no change."""
    await register_agents(client)
    version = (await client.get("/agents")).json()["resource_version"]
    await register(client, "late", namespace="system")

    response = await at_once(client.get(f"/agents?namespace=system&wait={LONG_WAIT}&resource_version={version}"))

    assert [agent["id"] for agent in response.json()["agents"]] == ["files", "idle", "late"]


async def test_a_version_of_another_timeline_is_not_waited_for(client: httpx2.AsyncClient) -> None:
    """It is above the current version: the current list at once, with the version to continue from."""
    await register_agents(client)

    response = await at_once(client.get(f"/agents?wait={LONG_WAIT}&resource_version=99999999999999"))

    assert int(response.json()["resource_version"]) < 99999999999999


async def test_waiting_rejects_a_version_match(client: httpx2.AsyncClient) -> None:
    """The response is always the newest state."""
    response = await client.get("/agents?wait=1s&resource_version=5&resource_version_match=Exact")

    assert error_fields(expect_error(response, 400, "malformed_request")) == ["resource_version_match"]


async def test_a_name_may_contain_a_comma(client: httpx2.AsyncClient) -> None:
    """Commas separate tags and fields in query strings only, not in the lists of query objects."""
    await register(client, "a", capabilities=[{"name": "add,subtract", "tags": ["x,y"]}])

    assert await list_agent_ids(client, capability="add,subtract") == ["a"]
    response = await client.post(
        "/mcp/tools/discover_services", json={"query": {"status": "any", "capability_tags": ["x,y"]}}
    )
    assert [agent["id"] for agent in expect_success(response)["agents"]] == ["a"]
