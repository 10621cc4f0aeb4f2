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
from tests.support.processes import processes_that_mention
from tests.support.source_code import ROOT


class Demo(ChildProcess):
    """`python -m examples.demo` with these arguments; everything temporary lies in `directory`."""

    def __init__(self, *arguments: str, directory: Path, **environ: str) -> None:
        super().__init__(sys.executable, "-m", "examples.demo", *arguments, env=demo_environment(directory, **environ))


def demo_environment(directory: Path, **more: str) -> dict[str, str]:
    """Return the environment of the demo, which imports `examples` from the checkout."""
    return environment(directory, PYTHONPATH=str(ROOT), **more)


def what_is_left(directory: Path) -> list[str]:
    """Return the files in this directory and the processes that use it."""
    return [*map(str, directory.iterdir()), *processes_that_mention(directory).values()]


def test_every_replica_lists_every_agent(directory: Path) -> None:
    """After each round all three list all agents so far, one leads, and nothing of it is left."""
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
    assert what_is_left(directory) == []


@pytest.mark.parametrize(
    ("how", "moment"),
    [
        (signal.SIGINT, "on one store"),
        (signal.SIGINT, "replica-1 listens"),
        (signal.SIGINT, "5000 agents at once"),
        (signal.SIGTERM, "5000 agents at once"),
        (signal.SIGHUP, "5000 agents at once"),
    ],
)
def test_a_demo_that_is_stopped_leaves_nothing(how: signal.Signals, moment: str, directory: Path) -> None:
    """Ctrl-C at any moment, and once more while it takes everything back; so do its kin."""
    with Demo("--agents", "5000", directory=directory) as demo:
        demo.wait_for_output(moment)
        demo.send_signal(how)
        status = demo.wait_for_exit(how)
        output = demo.output

    assert status == 1
    assert output.endswith("Aborted!\n")
    assert "Traceback" not in output
    assert what_is_left(directory) == []


def test_a_dead_replica_is_told_and_counts(directory: Path) -> None:
    """A replica that dies in the middle makes registrations fail; the others list those that succeeded."""
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
    assert what_is_left(directory) == []


def test_what_is_kept_can_be_served(directory: Path) -> None:
    """With --no-cleanup the data stays, and the line it prints shows the agents."""
    with Demo("--replicas", "1", "--agents", "4", "--no-cleanup", directory=directory) as demo:
        assert demo.wait_for_exit() == 0
        kept = re.search(r"REGISTRY_DATA_DIR=(\S+) mcp-mesh-registry", demo.output)
    assert kept is not None

    with CliProcess("--port", "0", directory=directory, REGISTRY_DATA_DIR=kept[1]) as replica:
        listed = httpx2.get(f"{replica.wait_until_serving()}/agents").json()

    assert listed["count"] == 4


def test_settings_of_ones_own_do_not_disturb(directory: Path) -> None:
    """The replicas of the demo get none of the settings that stand in the environment."""
    own = {"AUTH_TOKEN": "x" * 40, "METRICS_PORT": "1", "REDIS_URL": "redis://nowhere", "LOG_LEVEL": "error"}
    with Demo("--replicas", "2", "--agents", "1", directory=directory, **own) as demo:
        assert demo.wait_for_exit() == 0, demo.output


def test_a_terminal_shows_a_bar(directory: Path) -> None:
    """On a terminal a bar shows how far a round is."""
    ours, theirs = pty.openpty()
    arguments = [sys.executable, "-m", "examples.demo", "--replicas", "1", "--agents", "5"]
    environ = demo_environment(directory, TERM="xterm")
    with subprocess.Popen(arguments, env=environ, stdin=theirs, stdout=theirs, stderr=theirs) as demo:
        os.close(theirs)
        shown = b""
        while b"is the leader" not in shown:
            shown += os.read(ours, 65536)
        os.set_blocking(ours, False)
        demo.wait()
    os.close(ours)

    assert re.search(rb"\x1b.*5/5", shown)


def test_without_a_server_to_run_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas cannot share a store that lives inside one process."""
    monkeypatch.setattr("registry.store.embedded.binary.find_server_binary", lambda: None)

    result = CliRunner().invoke(main, [])

    assert result.exit_code == 1
    assert "install one of them" in result.output


async def test_a_replica_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    """The reason stands in the error, not in a file that is removed."""
    replica = Replica("replica-1", "nonsense", tmp_path)

    with pytest.raises(StartupError, match=r"replica-1 did not start; its log:\nError: (.|\n)*nonsense"):
        await replica.wait_until_ready()
