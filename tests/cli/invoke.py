"""Calls of the command line in this process, and agents for the tests."""

from collections.abc import Sequence
from typing import Any

from click.testing import CliRunner, Result

from registry.cli.main import main

CLEARED_ENVIRONMENT = {"MCP_MESH_REGISTRY_URL": None, "MCP_MESH_REGISTRY_TOKEN": None, "AUTH_TOKEN": None}

READER_AGENT: dict[str, Any] = {
    "id": "reader",
    "namespace": "library",
    "endpoint": "http://reader:1",
    "labels": {"env": "prod"},
    "capabilities": [{"name": "read_file", "version": "1.2.0", "tags": ["io", "fs"], "description": "Reads a file"}],
}
DATE_AGENT: dict[str, Any] = {
    "agent_id": "dates",
    "metadata": {
        "endpoint": "http://dates:1",
        "tools": [{"function_name": "today", "capability": "date_service", "version": "1.5.0"}],
    },
}
GREETING_AGENT: dict[str, Any] = {
    "agent_id": "greeter",
    "metadata": {
        "endpoint": "http://greeter:1",
        "tools": [
            {"function_name": "greet", "capability": "greeting", "dependencies": ["date_service", "weather_report"]}
        ],
    },
}


def invoke_cli(*arguments: str, url: str | None, input: bytes | str | None = None, **environ: str) -> Result:  # noqa: A002 - as click has it
    """Call `mcp-mesh-registry` with these arguments, the URL of a registry and no other settings."""
    env: dict[str, str | None] = {**CLEARED_ENVIRONMENT, "MCP_MESH_REGISTRY_URL": url, **environ}
    return CliRunner().invoke(main, list(arguments), env=env, input=input)


def table_cells(result: Result) -> list[list[str]]:
    """Return the cells of a table, line by line, starting with the titles."""
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()]


def first_words(lines: str | Sequence[str]) -> list[str]:
    """Return the first word of each line."""
    return [line.split()[0] for line in (lines.splitlines() if isinstance(lines, str) else lines)]
