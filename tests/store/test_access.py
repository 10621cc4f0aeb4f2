"""Access to Redis: TLS, unix sockets, a password file, and a user with minimal permissions."""

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from registry.config.settings import Settings
from registry.errors import StartupError, StoreUnavailable
from registry.store.keys import Keys
from registry.store.redis.access_guard import access_check
from registry.store.redis.connection import endpoint_from_url
from registry.store.redis.pipeline import Pipeline
from registry.store.redis_health import ServerHealth
from registry.store.scripts import lua_folder
from tests.support.certificates import CertificateAuthority
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.redis_sentinels import SentinelGroup
from tests.support.redis_server import RedisServer
from tests.support.served_registry import served_registry
from tests.support.source_code import ROOT

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@contextlib.asynccontextmanager
async def open_pipeline(url: str, **options: Any) -> AsyncIterator[Pipeline]:
    """Provide a pipeline to the server, and close it at the end."""
    pipeline = Pipeline(endpoint_from_url(url, **options).connect)
    try:
        yield pipeline
    finally:
        await pipeline.close()


async def reason(pipeline: Pipeline) -> str:
    """Return the reason with which an exchange fails."""
    with pytest.raises(StoreUnavailable) as caught:
        await pipeline.execute([("PING",)])
    return caught.value.reason


@needs_openssl
async def test_tls_with_an_own_authority_and_client_certificate(redis_url: str, tmp_path: Path) -> None:
    """The options of the URL set them; clients with another authority or without a certificate are rejected."""
    ours = CertificateAuthority(tmp_path)
    certificate, key = ours.sign("registry")
    other = CertificateAuthority(tmp_path, "other")
    async with FaultyTcpProxy(redis_url, ours.server_context()) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={ours.certificate}"
        shown = f"&ssl_certfile={certificate}&ssl_keyfile={key}"
        async with open_pipeline(url + shown) as pipeline:
            assert await pipeline.execute([("PING",)]) == [b"PONG"]
        for rejected in (url, url.replace(str(ours.certificate), str(other.certificate)) + shown):
            async with open_pipeline(rejected) as pipeline:
                assert await reason(pipeline) == "unreachable"


async def test_the_password_file_is_read_at_each_connect(dedicated_redis: RedisServer, tmp_path: Path) -> None:
    """A rotated password works at once; a missing file is an error of the credentials, not a crash."""
    file = tmp_path / "password"
    with redis.Redis.from_url(dedicated_redis.url) as client:
        client.config_set("requirepass", "first")
        file.write_text("first\n", encoding="utf-8")
        async with open_pipeline(dedicated_redis.url, password_file=file) as pipeline:
            assert await pipeline.execute([("PING",)]) == [b"PONG"]

            client.config_set("requirepass", "second")
            await pipeline._disconnect()
            assert await reason(pipeline) == "auth"
            file.write_text("second\n", encoding="utf-8")
            assert await pipeline.execute([("PING",)]) == [b"PONG"]

            file.unlink()
            await pipeline._disconnect()
            assert await reason(pipeline) == "auth"


async def test_the_password_file_takes_precedence_over_the_url(dedicated_redis: RedisServer, tmp_path: Path) -> None:
    """The user is the one in the URL."""
    file = tmp_path / "password"
    file.write_text("right", encoding="utf-8")
    with redis.Redis.from_url(dedicated_redis.url) as client:
        client.acl_setuser("app", enabled=True, passwords=["+right"], keys=["*"], categories=["+@all"])
    async with open_pipeline(
        dedicated_redis.url.replace("unix://", "unix://app:wrong@"), password_file=file
    ) as pipeline:
        assert await pipeline.execute([("ACL", "WHOAMI")]) == [b"app"]


def test_a_missing_password_file_stops_the_startup(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(StartupError, match=f"REGISTRY_REDIS_PASSWORD_FILE: the password file {tmp_path}/none cannot"):
        endpoint_from_url("redis://redis:6379", password_file=tmp_path / "none")


async def test_sentinels_have_their_own_passwords(tmp_path: Path) -> None:
    """They differ from those of the Redis servers."""
    file = tmp_path / "password"
    file.write_text("data", encoding="utf-8")
    with SentinelGroup() as guarded:
        for sentinel in guarded.sentinels:
            with redis.Redis.from_url(sentinel.url) as client:
                client.execute_command("ACL", "SETUSER", "default", "resetpass", ">watch")
        for each in (guarded.primary, guarded.replica):
            with redis.Redis.from_url(each.url) as client:
                client.config_set("requirepass", "data")
        async with open_pipeline(f"{guarded.url}?sentinel_password=watch", password_file=file) as pipeline:
            assert await pipeline.execute([("PING",)]) == [b"PONG"]
        async with open_pipeline(guarded.url, password_file=file) as pipeline:
            assert await reason(pipeline) == "unreachable"


def minimal_permissions() -> list[str]:
    """Return the ACL rule for the user of the registry from the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"ACL SETUSER registry (on .*?)\n```", text, re.DOTALL)
    assert found is not None
    return found[1].replace("\\\n", " ").replace("'", "").split()


async def test_the_permissions_in_the_readme_suffice(dedicated_redis: RedisServer) -> None:
    """They suffice for every operation of a registry; Redis logs no rejected command."""
    with redis.Redis.from_url(dedicated_redis.url, decode_responses=True) as client:
        client.execute_command("ACL", "SETUSER", "registry", *minimal_permissions())
        url = dedicated_redis.url.replace("unix://", "unix://registry:secret@")
        async with served_registry(url, write_acks=0, health_check_interval=Settings().retry_period) as served:
            await call_everything(served.client)
            await async_wait_until(
                lambda: served.registry.status.health()["change_notifications"] == "keyspace",
                description="keyspace notifications arrive",
            )
            await async_wait_until(
                lambda: served.registry.status.health()["leader"]["leading"], description="the replica is the leader"
            )
        assert client.acl_log() == []


async def call_everything(client: httpx2.AsyncClient) -> None:
    """Call every operation that uses the store."""
    body = {"id": "a", "endpoint": "http://a:1", "capabilities": ["x"]}
    calls = [
        await client.post("/agents", json=body),
        await client.post("/agents", json=body | {"name": "b"}),
        await client.post("/heartbeat", json={"agent_id": "a"}),
        await client.get("/agents"),
        await client.get("/agents/a"),
        await client.get("/health/a"),
        await client.get("/metrics"),
        await client.delete("/agents/a"),
    ]
    assert {call.status_code for call in calls} == {200}


async def is_ready(client: httpx2.AsyncClient) -> bool:
    """Return whether the replica is ready."""
    return (await client.get("/ready")).status_code == 200


@pytest.mark.parametrize("command", ["zadd", "hset", "time", "evalsha", "lrange"])
async def test_a_permission_that_is_removed_is_missed_until_it_is_restored(
    command: str, dedicated_redis: RedisServer
) -> None:
    """Requests are 503 with the reason `auth` and the command, inside scripts, too; the replica is not ready."""
    body = {"id": "a", "endpoint": "http://a:1"}
    with redis.Redis.from_url(dedicated_redis.url, decode_responses=True) as client:
        client.execute_command("ACL", "SETUSER", "registry", *minimal_permissions())
        url = dedicated_redis.url.replace("unix://", "unix://registry:secret@")
        async with served_registry(url, write_acks=0) as served:
            client.execute_command("ACL", "SETUSER", "registry", f"-{command}")
            if command != "lrange":
                response = await served.client.post("/agents", json=body)
                assert (response.status_code, response.json()["reason"]) == (503, "auth")
                assert command.upper() in response.json()["message"]
            # The check of all commands follows once a minute, and at once after a reconnect.
            client.client_kill_filter(_type="normal", skipme=True)
            await async_wait_until(
                lambda: command.upper() in str(served.registry.status.health()["warnings"]),
                description="the command is a warning",
            )
            assert not await is_ready(served.client)
            again = await served.client.post("/agents", json=body)
            assert (again.json()["reason"], again.json()["outcome"]) == ("auth", "not_sent")

            client.execute_command("ACL", "SETUSER", "registry", f"+{command}")
            await async_wait_until(lambda: is_ready(served.client), description="the replica is ready again")
            assert (await served.client.post("/agents", json=body)).status_code == 200


async def test_the_access_check_finds_a_refused_key(dedicated_redis: RedisServer) -> None:
    """Otherwise each check would clear the refusal that a script has found."""
    with redis.Redis.from_url(dedicated_redis.url) as client:
        client.execute_command("ACL", "SETUSER", "registry", *minimal_permissions())
        async with open_pipeline(dedicated_redis.url.replace("unix://", "unix://registry:secret@")) as pipeline:
            health = ServerHealth(Keys("mesh"), pipeline)
            await health.check_config()
            before = health.refused_commands
            client.execute_command("ACL", "SETUSER", "registry", "resetkeys", "~{mesh}:[!d]*")
            await health.check_config()

            assert (before, health.refused_commands) == ((), ("a key of the mesh",))


def test_the_access_check_includes_every_required_command() -> None:
    """All permitted commands, except those of maintenance and those for which there is another way."""
    optional = {"config|get", "config|set", "info", "ping", "role", "scan", "select", "subscribe", "xread"}
    checked = {str(command[0]).lower() for command in access_check(b"key", acks=1)}

    assert {name[1:] for name in minimal_permissions() if name[0] == "+"} - optional - {"cluster|slots"} == checked


# First elements of tuples that are not commands, commands of which only subcommands are permitted, and those for
# Sentinels, which have their own users.
NO_COMMANDS = {"byscore", "sentinel", "cluster", "config"}


def test_the_permissions_in_the_readme_include_every_command() -> None:
    """This includes commands that no short test can reach."""
    lua = "".join(path.read_text(encoding="utf-8") for path in lua_folder().rglob("*.lua"))
    ours = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "registry" / "store").glob("*.py"))
    found = re.findall(r"redis\.p?call\('([A-Z]+)'", lua) + re.findall(r"\(\"([A-Z]{3,12})\"", ours)
    commands = {name.lower() for name in found} - NO_COMMANDS

    assert len(commands) > 20
    assert {f"+{name}" for name in commands} - {*minimal_permissions()} == set()


@pytest.mark.parametrize("right", ["+xrange", "+wait", "+role", "&__keyspace@0__:{mesh}:log"])
def test_the_permissions_in_the_readme_are_minimal(right: str) -> None:
    """They include only the keys of the mesh."""
    rights = minimal_permissions()

    assert right in rights
    assert [each for each in rights if each.startswith("~")] == ["~{mesh}:*"]
    assert not [each for each in rights if each.startswith("+@")]


@contextlib.asynccontextmanager
async def replicated(dedicated_redis: RedisServer) -> AsyncIterator[RedisServer]:
    """Provide a synchronized replica of a server that listens on TCP."""
    with RedisServer(
        "--replicaof", "127.0.0.1", str(dedicated_redis.port), "--repl-diskless-sync-delay", "0", tcp=True
    ) as replica:
        with redis.Redis.from_url(replica.url) as client:
            await async_wait_until(
                lambda: client.info("replication")["master_link_status"] == "up",
                description="the replica is synchronized",
            )
        yield replica


async def test_a_write_without_replica_acknowledgement_is_unknown() -> None:
    """It was executed, but may be lost: 503 with an unknown outcome. Calls without a write do not wait."""
    body = {"id": "a", "endpoint": "http://a:1"}
    with RedisServer(tcp=True) as primary:
        async with replicated(primary) as replica, served_registry(primary.url, write_acks=1) as served:
            client = served.client
            assert (await client.post("/agents", json=body)).status_code == 200
            assert (await client.post("/heartbeat", json={"agent_id": "a"})).status_code == 200

            replica.pause()
            late, heartbeat = await asyncio.gather(
                client.post("/agents", json=body | {"id": "late"}),
                client.post("/heartbeat", json={"agent_id": "a"}),
            )
            stale = await client.post("/agents", json=body | {"resource_version": "1"})
            unknown = await client.delete("/agents/unknown")
            replica.resume()

            for answer in (late, heartbeat):
                assert answer.status_code == 503
                assert (answer.json()["reason"], answer.json()["outcome"]) == ("too_few_acks", "unknown")
            assert (stale.status_code, unknown.status_code) == (409, 404)
            assert (await client.get("/agents/late")).status_code == 200
            assert (await client.post("/agents", json=body | {"id": "late"})).status_code == 200


async def test_a_rejected_edge_does_not_wait_for_replicas(redis_url: str) -> None:
    """The first script call of a new edge writes nothing; the second one writes the agent, and its loss is possible."""
    requires = {"name": "a", "dependencies": [{"capability": "b", "required": True}]}
    async with in_process_registry(redis_url, write_acks=1) as client:
        response = await client.post("/agents", json={"id": "a", "endpoint": "http://a:1", "capabilities": [requires]})

        assert (response.status_code, response.json()["reason"]) == (503, "too_few_acks")
        assert (await client.get("/agents/a")).status_code == 200
