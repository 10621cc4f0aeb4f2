"""The environment variables of an agent, and the rejection of wrong values."""

import socket

import pytest
from mcp_mesh_client import InvalidData
from mcp_mesh_client.agent.env import check_endpoint, listening_host, read_environment


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, None),
        ({"MCP_MESH_HTTP_PORT": "8080"}, None),
        ({"MCP_MESH_HTTP_HOST": "me"}, None),
        ({"MCP_MESH_HTTP_HOST": "me", "MCP_MESH_HTTP_PORT": "8080"}, "http://me:8080"),
        ({"MCP_MESH_HTTP_HOST": "::1", "MCP_MESH_HTTP_PORT": "8080"}, "http://[::1]:8080"),
        ({"MCP_MESH_HTTP_HOST": "me", "MCP_MESH_ENDPOINT": "https://me/mcp"}, "https://me/mcp"),
    ],
)
def test_the_endpoint_of_an_agent(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str | None
) -> None:
    """It is a URL, or a host and a port."""
    for name in ("MCP_MESH_HTTP_HOST", "MCP_MESH_HTTP_PORT", "MCP_MESH_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert read_environment().endpoint == endpoint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MCP_MESH_AGENT_ID", "my agent"),
        ("MCP_MESH_AGENT_NAME", "my\nagent"),
        ("MCP_MESH_NAMESPACE", "My Team"),
        ("MCP_MESH_LABELS", "team"),
        ("MCP_MESH_LABELS", '{"team": '),
        ("MCP_MESH_LABELS", "team=a b"),
        ("MCP_MESH_ANNOTATIONS", "[1]"),
        ("MCP_MESH_METADATA", "1"),
        ("MCP_MESH_LOAD", "high"),
        ("MCP_MESH_LOAD", "-1"),
        ("MCP_MESH_ZONE", "a b"),
        ("MCP_MESH_OVERRIDE", "perhaps"),
        ("MCP_MESH_REGISTRY_URL", "localhost:8000"),
        ("MCP_MESH_REGISTRY_URL", "http://one:8000,two:8000"),
        ("MCP_MESH_REGISTRY_TOKEN", "a b"),
        ("MCP_MESH_HTTP_PORT", "0"),
        ("MCP_MESH_HTTP_HOST", "[::1]"),
        ("MCP_MESH_HTTP_PORT", "http"),
        ("MCP_MESH_ENDPOINT", "localhost:8080"),
        ("MCP_MESH_HEALTH_INTERVAL", "soon"),
        ("MCP_MESH_HEALTH_INTERVAL", "0"),
        ("MCP_MESH_HEALTH_INTERVAL", "nan"),
        ("MCP_MESH_CALL_TIMEOUT", "-1"),
        ("MCP_MESH_AUTO_RUN", "perhaps"),
    ],
)
def test_a_wrong_variable_is_rejected_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The error has the name of the variable as its field."""
    monkeypatch.setenv(name, value)

    with pytest.raises(InvalidData, match=rf"^{name}(\[\w+\])?: expected") as error:
        read_environment()
    assert error.value.field.startswith(name)


@pytest.mark.parametrize("endpoint", [None, 5, "", "me:8080", "ftp://me", "http://", "http://[::1"])
def test_an_endpoint_is_an_http_url(endpoint: object) -> None:
    """It needs a host."""
    with pytest.raises(InvalidData, match=r"^endpoint: expected http or https and a host"):
        check_endpoint(endpoint, "endpoint")


@pytest.mark.parametrize(
    "endpoint", ["http://u:s3cret@me", "https://s3cret@me:1/mcp", "u:s3cret@me", "http://[s3cret@me"]
)
def test_an_endpoint_has_no_password(endpoint: str) -> None:
    """T23: everyone can read it; the error does not repeat the password."""
    with pytest.raises(InvalidData, match=r"^endpoint: expected http or https and a host, without user") as error:
        check_endpoint(endpoint, "endpoint")

    assert "s3cret" not in str(error.value)


def test_an_agent_with_a_public_host_listens_on_all_interfaces() -> None:
    """Otherwise it listens on loopback only."""
    assert {listening_host(each) for each in (None, "localhost", "127.0.0.1")} == {"127.0.0.1"}
    assert listening_host("::1") == "::1"
    assert listening_host("greeting.default.svc") == ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")  # noqa: S104
