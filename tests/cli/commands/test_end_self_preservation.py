"""`release-hold`: one call to any replica, told in a sentence."""

from pathlib import Path

import pytest

from tests.cli.cli_process import CliProcess
from tests.cli.test_serve import run
from tests.support.redis_server import RedisServer

TOKEN = {"AUTH_TOKEN": "s3cret"}


@pytest.mark.parametrize("given", ["options", "environment"])
def test_it_calls_the_replica_with_its_token(given: str, own_server: RedisServer, tmp_path: Path) -> None:
    """Where it is and what it asks for come from options or from the environment."""
    serving = CliProcess(*("--port", "0", "--redis-url", own_server.url), directory=tmp_path / "replica", **TOKEN)
    with serving as replica:
        url = replica.wait_until_serving()
        if given == "options":
            done = run("release-hold", "--url", url, "--token", "s3cret", directory=tmp_path)
        else:
            done = run("release-hold", directory=tmp_path, MCP_MESH_REGISTRY_URL=url, **TOKEN)
        refused = run("release-hold", "--url", url, directory=tmp_path)

    assert (done.returncode, done.stdout) == (0, "No hold is on\n")
    assert refused.returncode == 1
    assert "401" in refused.stderr


def test_a_replica_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """In a sentence that names the URL."""
    done = run("release-hold", "--url", "http://127.0.0.1:9", directory=tmp_path)

    assert done.returncode == 1
    assert "http://127.0.0.1:9/admin/sweep/release" in done.stderr
    assert "Traceback" not in done.stderr
