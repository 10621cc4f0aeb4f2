"""Completion: commands, options and names, as bash asks for them; quick and quiet where no registry answers."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from mcp_mesh_client import SyncRegistryClient

from tests.cli.cli_process import EXECUTABLE, environment
from tests.cli.invoke import DATE_AGENT, READER_AGENT, invoke_cli
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.replica import Replica


def completed(line: str, url: str, directory: Path) -> list[str]:
    """Return what could come in the place of the last word."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_MCP_MESH_REGISTRY_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [EXECUTABLE],
        env=environment(directory, MCP_MESH_REGISTRY_URL=url, **asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=15,
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("mcp-mesh-registry agent re", ["reader"]),
        ("mcp-mesh-registry unregister reader ", ["dates", "reader"]),
        ("mcp-mesh-registry drain -n lib", ["library"]),
        ("mcp-mesh-registry agents --capability ", ["date_service", "read_file"]),
        ("mcp-mesh-registry resolve date", ["date_service"]),
        ("mcp-mesh-registry agents -o ", ["wide", "json", "yaml", "name"]),
        ("mcp-mesh-registry agents --namesp", ["--namespace"]),
        ("mcp-mesh-registry unr", ["unregister"]),
    ],
)
def test_words_are_completed(
    line: str, found: list[str], mesh: SyncRegistryClient, replica_of_worker: Replica, directory: Path
) -> None:
    """With names from the registry where a name is wanted; where it takes too long with none, so one tries again."""
    mesh.register_many([READER_AGENT, DATE_AGENT])
    url = replica_of_worker.url

    wait_until(lambda: completed(line, url, directory) == found, description=f"completed to {found}", timeout=20)


def test_all_commands_are_offered_at_first(directory: Path) -> None:
    """Though to give none is to serve."""
    assert {"agents", "serve", "watch", "completion"} <= set(completed("mcp-mesh-registry ", "http://x", directory))


def test_without_a_registry_nothing_is_offered_and_nothing_said(directory: Path) -> None:
    """Within moments, whether it refuses, is silent or has a strange name."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for url in (
            f"http://127.0.0.1:{free_port()}",
            f"http://127.0.0.1:{silent.getsockname()[1]}",
            "http://no.such.host.invalid",
            "nonsense",
        ):
            began = time.monotonic()
            assert completed("mcp-mesh-registry agent ", url, directory) == []
            assert time.monotonic() - began < 5, url


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str, tmp_path: Path) -> None:
    """Which the shell can read, where it is here."""
    done = invoke_cli("completion", shell, url=None)

    assert done.exit_code == 0
    assert "_MCP_MESH_REGISTRY_COMPLETE" in done.stdout
    if shutil.which(shell) is not None:
        script = tmp_path / "script"
        script.write_text(done.stdout)
        subprocess.run([shell, "-n", str(script)], check=True, timeout=15)
