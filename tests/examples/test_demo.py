"""The demo registers all agents, reports failures, and leaves no file or process behind."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from examples.demo.__main__ import main
from examples.demo.replicas import Replica
from registry.errors import StartupError
from tests.cli.cli_process import CliProcess, environment
from tests.support.child_process import ChildProcess
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.processes import processes_that_mention
from tests.support.source_code import ROOT


class Demo(ChildProcess):
    """`python -m examples.demo` with these arguments; all temporary files are in `directory`."""

    def __init__(self, *arguments: str, directory: Path, **environ: str) -> None:
        super().__init__(sys.executable, "-m", "examples.demo", *arguments, env=demo_environment(directory, **environ))


def demo_environment(directory: Path, **more: str) -> dict[str, str]:
    """Return the environment of the demo, which imports `examples` from the checkout."""
    return environment(directory, PYTHONPATH=str(ROOT), **more)


def leftovers(directory: Path) -> list[str]:
    """Return the files in this directory and the processes that use it."""
    return [*map(str, directory.iterdir()), *processes_that_mention(directory).values()]


def test_every_replica_lists_every_agent(directory: Path) -> None:
    """After each round all three list all agents so far, one is the leader, and nothing is left at the end."""
    with Demo("--agents", "20", "--agents", "40", directory=directory) as demo:
        status = demo.wait_for_exit()
        output = demo.output

    assert status == 0, output
    assert "20 of 20 registered (100.0%)" in output
    assert "40 of 40 registered (100.0%)" in output
    assert len(re.findall(r" in \d+ ms; one took \d+ ms \(p50\), \d+ ms \(p99\)$", output, re.MULTILINE)) == 2
    assert re.findall(r"^  (\S+) lists all (\d+)$", output, re.MULTILINE) == [
        (f"replica-{number}", agents) for agents in ("20", "60") for number in (1, 2, 3)
    ]
    assert len(re.findall("^replica-[123] is the leader", output, re.MULTILINE)) == 1
    assert "\x1b" not in output
    assert leftovers(directory) == []


@pytest.mark.parametrize(
    ("signal_number", "moment"),
    [
        (signal.SIGINT, "on one store"),
        (signal.SIGINT, "replica-1 listens"),
        (signal.SIGINT, "5000 agents at once"),
        (signal.SIGTERM, "5000 agents at once"),
        (signal.SIGHUP, "5000 agents at once"),
    ],
)
def test_a_stopped_demo_leaves_nothing(signal_number: signal.Signals, moment: str, directory: Path) -> None:
    """Ctrl-C at any moment, and again during the cleanup; SIGTERM and SIGHUP have the same effect."""
    with Demo("--agents", "5000", directory=directory) as demo:
        demo.wait_for_output(moment)
        demo.send_signal(signal_number)
        status = demo.wait_for_exit(signal_number)
        output = demo.output

    assert status == 1
    assert output.endswith("Aborted!\n")
    assert "Traceback" not in output
    assert leftovers(directory) == []


def test_a_dead_replica_is_reported_and_makes_the_demo_fail(directory: Path) -> None:
    """Registrations fail if a replica dies; the other replicas list the agents whose registration succeeded."""
    with Demo("--agents", "600", directory=directory) as demo:
        demo.wait_for_output("600 agents at once")
        processes = processes_that_mention(directory).items()
        os.kill(next(pid for pid, line in processes if "registry serve" in line), signal.SIGKILL)
        status = demo.wait_for_exit()
        output = demo.output

    assert status == 1, output
    assert "  failed: http://127.0.0.1:" in output
    assert len(re.findall(r"^  replica-\d list failed: http://", output, re.MULTILINE)) == 1
    assert "Traceback" not in output
    assert leftovers(directory) == []


def test_data_without_cleanup_can_be_served(directory: Path) -> None:
    """With --no-cleanup the data stays, and the printed command serves the agents."""
    with Demo("--replicas", "1", "--agents", "4", "--no-cleanup", directory=directory) as demo:
        assert demo.wait_for_exit() == 0
        printed = re.search(r"REGISTRY_DATA_DIR=(\S+) mcp-mesh-registry", demo.output)
    assert printed is not None

    with CliProcess("--port", "0", directory=directory, REGISTRY_DATA_DIR=printed[1]) as replica:
        listed = httpx2.get(f"{replica.wait_until_serving()}/agents", timeout=REQUEST_TIMEOUT_S).json()

    assert listed["count"] == 4


def test_settings_of_the_environment_are_ignored(directory: Path) -> None:
    """The replicas of the demo do not inherit the settings of the environment."""
    settings = {"AUTH_TOKEN": "x" * 40, "METRICS_PORT": "1", "REDIS_URL": "redis://nowhere", "LOG_LEVEL": "error"}
    with Demo("--replicas", "2", "--agents", "1", directory=directory, **settings) as demo:
        assert demo.wait_for_exit() == 0, demo.output


def test_a_terminal_shows_a_progress_bar(directory: Path) -> None:
    """It shows the progress of a round."""
    terminal, child_side = pty.openpty()
    arguments = [sys.executable, "-m", "examples.demo", "--replicas", "1", "--agents", "5"]
    environ = demo_environment(directory, TERM="xterm")
    with subprocess.Popen(arguments, env=environ, stdin=child_side, stdout=child_side, stderr=child_side) as demo:
        os.close(child_side)
        output = b""
        while b"is the leader" not in output:
            output += os.read(terminal, 65536)
        os.set_blocking(terminal, False)
        demo.wait()
    os.close(terminal)

    assert re.search(rb"\x1b.*5/5", output)


def test_without_a_redis_server_the_demo_names_the_packages_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas cannot share a store that is embedded in one process."""
    monkeypatch.setattr("registry.store.embedded.binary.find_server_binary", lambda: None)

    result = CliRunner().invoke(main, [])

    assert result.exit_code == 1
    assert "install one of them" in result.output


async def test_a_replica_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    """The reason is in the error, because the log file is removed."""
    replica = Replica("replica-1", "nonsense", tmp_path)

    with pytest.raises(StartupError, match=r"replica-1 did not start; its log:\nError: (.|\n)*nonsense"):
        await replica.wait_until_ready()
