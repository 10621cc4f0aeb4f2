"""Shell completion of commands, options and names; it is fast and prints no error if the registry is unreachable."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mcp_mesh_client import SyncRegistryClient

from tests.cli.cli_process import EXECUTABLE, environment
from tests.cli.invoke import DATE_AGENT, READER_AGENT, invoke_cli
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.replica import Replica

# Completes with time limits for a busy machine.
UNHURRIED_COMMAND = """
import sys
from registry.cli import completers
from registry.cli.main import main

sys.argv[0] = "mcp-mesh-registry"
completers._CALL_TIMEOUT_S = completers._COMPLETION_TIMEOUT_S = 60.0
main()
"""


def completions(line: str, url: str, directory: Path, *, unhurried: bool = False) -> list[str]:
    """Return the completions of the last word."""
    words = line.split(" ")
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_MCP_MESH_REGISTRY_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", UNHURRIED_COMMAND] if unhurried else [EXECUTABLE],
        env=environment(directory, MCP_MESH_REGISTRY_URL=url, **variables),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("line", "expected"),
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
    line: str, expected: list[str], mesh: SyncRegistryClient, worker_replica: Replica, directory: Path
) -> None:
    """Names come from the cache of the replica, which may not have the agents yet, so the test retries."""
    mesh.register_many([READER_AGENT, DATE_AGENT])
    url = worker_replica.url

    wait_until(
        lambda: completions(line, url, directory, unhurried=True) == expected, description=f"completion to {expected}"
    )


def test_the_first_word_completes_to_all_commands(directory: Path) -> None:
    """A call without a command means `serve`, but the commands are completed nevertheless."""
    assert {"agents", "serve", "watch", "completion"} <= set(completions("mcp-mesh-registry ", "http://x", directory))


def test_without_a_registry_there_are_no_completions_and_no_errors(directory: Path) -> None:
    """The command ends if the connection is refused, hangs, or the host name is wrong."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        for url in (
            f"http://127.0.0.1:{free_port()}",
            f"http://127.0.0.1:{hanging.getsockname()[1]}",
            "http://no.such.host.invalid",
            "nonsense",
        ):
            assert completions("mcp-mesh-registry agent ", url, directory) == [], url


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_completion_script(shell: str, tmp_path: Path) -> None:
    """An installed shell can parse its script."""
    done = invoke_cli("completion", shell, url=None)

    assert done.exit_code == 0
    assert "_MCP_MESH_REGISTRY_COMPLETE" in done.stdout
    if shutil.which(shell) is not None:
        script = tmp_path / "script"
        script.write_text(done.stdout)
        subprocess.run([shell, "-n", str(script)], check=True)
