"""Settings of mcp-mesh's registry: ignored ones cause a warning, the others work."""

import json

import httpx2
import pytest

from registry.compat.mcpmesh.upstream_settings import find_ignored_settings
from registry.config.env import load_settings
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.replica import Replica

TLS = {"MCP_MESH_TLS_MODE": "auto", "MCP_MESH_TLS_CERT": "/tls/registry.pem", "MCP_MESH_TLS_KEY": "/tls/registry.key"}


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        (TLS, ["MCP_MESH_TLS_CERT", "MCP_MESH_TLS_MODE", "REGISTRY_TLS_CERT"]),
        ({"MCP_MESH_TLS_MODE": "strict"}, ["MCP_MESH_TLS_MODE", "REGISTRY_TLS_CLIENT_CA"]),
        ({"MCP_MESH_TLS_CA": "/tls/ca.pem"}, ["MCP_MESH_TLS_CA"]),
        ({"MCP_MESH_ADMIN_PORT": "8001"}, ["MCP_MESH_ADMIN_PORT", "REGISTRY_ADMIN_PORT"]),
        ({"MCP_MESH_PUBLIC_URL_PREFIX": "https://agents.example"}, ["MCP_MESH_PUBLIC_URL_PREFIX"]),
    ],
)
def test_an_ignored_setting_causes_a_warning(environ: dict[str, str], names: list[str]) -> None:
    """It names the setting to use instead where there is one."""
    (warning,) = find_ignored_settings(environ)

    assert all(name in warning for name in names)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"MCP_MESH_TLS_MODE": "off", "MCP_MESH_TLS_CA": "/tls/ca.pem", "MCP_MESH_ADMIN_PORT": "0"},
        {"MCP_MESH_ADMIN_PORT": "8001", "REGISTRY_ADMIN_PORT": "8001"},
        {"MCP_MESH_TLS_MODE": "", "MCP_MESH_ADMIN_PORT": "", "MCP_MESH_REGISTRY_URL": "http://localhost:8000"},
    ],
)
def test_settings_that_change_nothing_cause_no_warning(environ: dict[str, str]) -> None:
    """So do settings of agents."""
    assert list(find_ignored_settings(environ)) == []


def test_the_warning_is_in_the_log_and_in_health(redis_url: str) -> None:
    """`meshctl start --tls-auto` sets these variables."""
    with Replica(redis_url, REGISTRY_LOG_FORMAT="json", **TLS) as replica:
        warnings = httpx2.get(f"{replica.url}/health", timeout=REQUEST_TIMEOUT_S).json()["warnings"]
        lines = [json.loads(line) for line in replica.output.splitlines() if line.startswith("{")]

    assert any("MCP_MESH_TLS_MODE" in warning for warning in warnings)
    assert any("MCP_MESH_TLS_MODE" in line.get("warning", "") for line in lines)


def test_the_settings_that_meshctl_exports_are_accepted() -> None:
    """Its health check interval is a number of seconds."""
    exported = {
        "HOST": "localhost",
        "PORT": "8000",
        "DATABASE_URL": "mcp_mesh_registry.db",
        "MCP_MESH_LOG_LEVEL": "INFO",
        "MCP_MESH_DEBUG_MODE": "false",
        "HEALTH_CHECK_INTERVAL": "10",
    }

    settings, _ = load_settings(exported)

    assert settings.health_check_interval.total_seconds() == 10
