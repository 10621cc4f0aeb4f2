"""The proxy variables and the certificate variables of the environment."""

import os
from pathlib import Path
from typing import Any

import pytest
from mcp_mesh_client import ClientError, InvalidData, RegistryClient, RegistryUnavailable, SyncRegistryClient
from mcp_mesh_client.network_environment import proxy_for

from tests.support.canned_server import CannedServer, http_response, json_response
from tests.support.ports import free_port

DESCRIPTION = {"service": "x"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the developer."""
    for name in tuple(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("SSL_CERT", "SSLKEYLOG")):
            monkeypatch.delenv(name)


async def describe(url: str) -> Any:
    """Call a registry with one attempt."""
    async with RegistryClient(url, max_rounds=1) as client:
        return dict(await client.describe())


@pytest.mark.parametrize(
    ("url", "no_proxy", "is_exempt"),
    [
        ("http://registry:8000", "", False),
        ("http://registry:8000", "registry", True),
        ("http://registry:8000", "other, registry:8000", True),
        ("http://registry:8000", "registry:80", False),
        ("http://registry:8000", "*", True),
        ("http://registry.mesh.svc", ".svc", True),
        ("http://registry.mesh.svc", "*.svc", True),
        ("http://registry.mesh.svc", "mesh.svc", True),
        ("http://registry.mesh.svc", "esh.svc", False),
        ("http://10.1.2.3:8000", "10.0.0.0/8", True),
        ("http://10.1.2.3:8000", "11.0.0.0/8,10.1.2.3", True),
        ("http://127.0.0.1:8000", "localhost", False),
        ("http://[::1]:8000", "::1", True),
        ("http://[::1]:8000", "[::1],::/200", True),
        ("https://registry", "http://registry", True),
    ],
)
def test_no_proxy_exempts_hosts(monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str, *, is_exempt: bool) -> None:
    """By name, domain, address, network, and port."""
    monkeypatch.setenv("all_proxy", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)

    assert (proxy_for(url) is None) is is_exempt


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "bogus://x"])
async def test_a_proxy_that_cannot_be_used_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    """SOCKS requires a package that is not installed. The error is not one of the HTTP library."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    url = "http://registry:8000"
    with pytest.raises(InvalidData, match=r"^ALL_PROXY: proxy .* cannot be used") as error:
        await describe(url)
    assert error.value.field == "ALL_PROXY"
    with SyncRegistryClient(url) as client, pytest.raises(ClientError, match="ALL_PROXY"):
        client.register_with_fallback({"id": "a", "endpoint": "http://a:1"})


async def test_a_proxy_is_only_resolved_for_urls_that_need_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong one has no effect on an exempt host, a wrong certificate file none on an http URL."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    async with CannedServer(json_response(**DESCRIPTION)) as server:
        assert await describe(server.url) == DESCRIPTION


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSLKEYLOGFILE"])
async def test_a_wrong_certificate_file_or_key_log_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """For https URLs."""
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv(name, str(tmp_path / "missing" / "file"))

    with pytest.raises(InvalidData, match=f"^{name}: .*/missing/file cannot be used: No such file"):
        await describe("https://127.0.0.1:1")


async def test_a_connection_error_names_the_proxy_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its credentials; a proxy that responds with an error is named, too."""
    monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{free_port()}")
    with pytest.raises(RegistryUnavailable) as refused:
        await describe("http://registry:8000")
    assert str(refused.value).startswith("http://registry:8000 through the proxy http://127.0.0.1:")
    assert "(HTTP_PROXY): " in str(refused.value)
    assert "secret" not in str(refused.value)

    async with CannedServer(http_response(503, b"<html>")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(RegistryUnavailable, match=r"through the proxy http://127.* \(HTTP_PROXY\): 503"):
            await describe("http://registry:8000")


async def test_all_urls_that_were_tried_are_named() -> None:
    """Each with its own error."""
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]

    with pytest.raises(RegistryUnavailable) as failed:
        await describe(",".join(urls))

    assert all(f"{url}: All connection attempts failed" in str(failed.value) for url in urls)
