"""Tests of child processes."""

import os
import secrets
import signal
import sys
from pathlib import Path

import pytest

from tests.support.child_process import ChildProcess
from tests.support.polling import wait_until
from tests.support.processes import processes_that_mention

# A program that starts another one, prints, and then runs `{then}`.
PARENT_PROGRAM = """
import subprocess, sys, time
subprocess.Popen(["sh", "-c", "sleep 60", "{name}"])
print("started", flush=True)
{then}
"""
# A test process that runs that program.
TEST_PROGRAM = """
from tests.support.child_process import ChildProcess
import sys, time
with ChildProcess(sys.executable, "-c", {program!r}) as child:
    child.wait_for_output("started")
    print("child started", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def name() -> str:
    """A word that occurs only in the command lines of this test's processes."""
    return secrets.token_hex(8)


def wait_until_gone(name: str) -> None:
    """Wait until no process with this name is left."""
    wait_until(lambda: not processes_that_mention(name), description="no process is left")


def test_a_child_dies_with_a_killed_test_process(name: str) -> None:
    """The child of the child is killed, too, although no clean-up code can run."""
    program = PARENT_PROGRAM.format(name=name, then="time.sleep(60)")
    with ChildProcess(sys.executable, "-c", TEST_PROGRAM.format(program=program)) as test_process:
        test_process.wait_for_output("child started")
        assert processes_that_mention(name)

    wait_until_gone(name)


@pytest.mark.parametrize("then", ["time.sleep(60)", "sys.exit(3)"], ids=["killed", "ended"])
def test_descendants_of_a_child_are_killed_with_it(name: str, then: str) -> None:
    """The child itself was killed, or ended on its own."""
    with ChildProcess(sys.executable, "-c", PARENT_PROGRAM.format(name=name, then=then)) as child:
        child.wait_for_output("started")
        assert processes_that_mention(name)

    wait_until_gone(name)


def test_repeated_starts_leave_no_open_file_and_no_zombie(name: str) -> None:
    """The output of the last run can still be read after the end."""
    child = ChildProcess("sh", "-c", f"echo {name}; exec sleep 60")
    before = len(list(Path("/dev/fd").iterdir()))
    for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL) * 3:
        child.start()
        child.wait_for_output(name)
        pid = child.pid
        assert child.wait_for_exit(signal_number) == -signal_number
    child.kill()

    # Threads of earlier tests may close files of their own meanwhile.
    assert len(list(Path("/dev/fd").iterdir())) <= before
    assert child.output == f"{name}\n"
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_a_child_that_ends_early_is_reported_with_its_output() -> None:
    """The error does not wait for the timeout."""
    with (
        ChildProcess("sh", "-c", "echo port in use >&2; exit 3") as child,
        pytest.raises(AssertionError, match=r"(?s)ended with status 3: output contains 'hello'.*port in use"),
    ):
        child.wait_for_output("hello")
