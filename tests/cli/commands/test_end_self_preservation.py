"""`end-self-preservation`: one call to any replica."""

import pytest

from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import invoke_cli
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica


def test_it_prints_that_self_preservation_is_not_active(call: InvokeCli) -> None:
    """The exit code is 0, because the mesh is in the requested state."""
    done = call("end-self-preservation")

    assert (done.exit_code, done.stdout) == (0, "Self-preservation is not active\n")


def test_it_ends_that_of_one_namespace(call: InvokeCli) -> None:
    """The name is sent as a parameter."""
    assert call("end-self-preservation", "--namespace", "dev").stdout == "Self-preservation of dev is not active\n"
    assert call("end-self-preservation", "--namespace", "*").stdout == "Self-preservation of * is not active\n"


@pytest.mark.parametrize("given", ["options", "environment"])
def test_url_and_token_come_from_options_or_the_environment(given: str) -> None:
    """Without the token the replica rejects the call."""
    with RedisServer() as server, Replica(server.url, AUTH_TOKEN="s3cret") as replica:  # noqa: S106 - made up
        if given == "options":
            done = invoke_cli("end-self-preservation", "--url", replica.url, "--token", "s3cret", url=None)
        else:
            done = invoke_cli("end-self-preservation", url=replica.url, AUTH_TOKEN="s3cret")  # noqa: S106 - made up
        refused = invoke_cli("end-self-preservation", url=replica.url)

    assert done.exit_code == 0, done.output
    assert refused.exit_code == 1
    assert "token" in refused.stderr


def test_an_unreachable_replica_is_reported() -> None:
    """The error is one line, with the exit code of an unreachable registry."""
    url = f"http://127.0.0.1:{free_port()}"

    done = invoke_cli("end-self-preservation", "--timeout", "1", url=url)

    assert done.exit_code == 4
    assert url in done.stderr
    assert done.stderr.count("\n") == 1
