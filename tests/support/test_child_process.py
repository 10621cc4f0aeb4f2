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

# A program that starts another, and then does as it is told.
FAMILY = """
import subprocess, sys, time
subprocess.Popen(["sh", "-c", "sleep 60", "{name}"])
print("born", flush=True)
{then}
"""
# Another process of tests, which runs that one.
TEST = """
from tests.support.child_process import ChildProcess
import sys, time
with ChildProcess(sys.executable, "-c", {program!r}) as child:
    child.wait_for_output("born")
    print("both", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def name() -> str:
    """A word that stands in the command lines of this test's processes and in no other."""
    return secrets.token_hex(8)


def is_over(name: str) -> None:
    """Return when nobody of this name is left."""
    wait_until(lambda: not processes_that_mention(name), description="nobody is left")


def test_it_dies_with_a_test_process_that_is_killed(name: str) -> None:
    """So does what it has started, though nobody could run a line of clean-up."""
    program = FAMILY.format(name=name, then="time.sleep(60)")
    with ChildProcess(sys.executable, "-c", TEST.format(program=program)) as test:
        test.wait_for_output("both")
        assert processes_that_mention(name)

    is_over(name)


@pytest.mark.parametrize("then", ["time.sleep(60)", "sys.exit(3)"], ids=["killed", "ended"])
def test_what_it_has_started_is_gone_after_it(name: str, then: str) -> None:
    """Whether it was killed or had ended by itself."""
    with ChildProcess(sys.executable, "-c", FAMILY.format(name=name, then=then)) as child:
        child.wait_for_output("born")
        assert processes_that_mention(name)

    is_over(name)


def test_it_leaves_no_file_open_and_no_zombie(name: str) -> None:
    """However often it is started, and however it ends; what it has written lately can still be read."""
    child = ChildProcess("sh", "-c", f"echo {name}; exec sleep 60")
    before = len(list(Path("/dev/fd").iterdir()))
    for how in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL) * 3:
        child.start()
        child.wait_for_output(name)
        pid = child.pid
        assert child.wait_for_exit(how) == -how
    child.kill()

    assert len(list(Path("/dev/fd").iterdir())) == before
    assert child.output == f"{name}\n"
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_one_that_does_not_come_up_is_told_with_its_last_words() -> None:
    """Without waiting for the rest of the time."""
    with (
        ChildProcess("sh", "-c", "echo no luck >&2; exit 3") as child,
        pytest.raises(AssertionError, match=r"(?s)ended with status 3: it says 'hello'.*no luck"),
    ):
        child.wait_for_output("hello")
