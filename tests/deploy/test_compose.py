"""compose.yaml: three replicas on a durable Redis, with minimal privileges and published ports."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from registry.config.env import load_settings
from registry.config.exposure import find_missing_credential
from registry.config.settings import SETTINGS
from registry.store.embedded.server import SERVER_ARGUMENTS
from tests.deploy.compose_files import (
    COMPOSE_FILE,
    HAPROXY_FILE,
    command_options,
    compose_service,
    dockerfile_stages,
    duration_s,
    read_compose,
    service_environment,
)
from tests.support.replica import SHUTDOWN_S
from tests.support.source_code import ROOT


def test_redis_is_durable() -> None:
    """The options for durability and change notifications are those of the embedded server."""
    options, embedded = (
        command_options(shlex.split(compose_service("redis")["command"])),
        command_options(SERVER_ARGUMENTS),
    )
    names = ("--appendonly", "--appendfsync", "--save", "--maxmemory-policy", "--notify-keyspace-events")

    assert {name: options[name] for name in names} == {name: embedded[name] for name in names}
    (volume,) = compose_service("redis")["volumes"]
    name, _, path = volume.partition(":")
    assert name in read_compose()["volumes"]
    assert path == options["--dir"]


def test_there_are_three_replicas_with_different_names() -> None:
    """With the same name, each of them would report itself as the leader."""
    assert compose_service("registry")["deploy"]["replicas"] == 3
    assert "REGISTRY_INSTANCE_ID" not in service_environment("registry")
    assert "container_name" not in compose_service("registry")


def test_the_environment_of_replicas_consists_of_settings() -> None:
    """A setting that the image contains, too, has the same value there."""
    environ = service_environment("registry")
    settings, warnings = load_settings(environ)

    assert environ.keys() <= {setting.env for setting in SETTINGS.values()}
    assert settings.redis_url == "redis://redis:6379"
    assert warnings == ()
    assert find_missing_credential(settings, ()) == {}
    image = dockerfile_stages()[-1].environ
    shared = environ.keys() & image.keys()
    assert {"REGISTRY_HOST", "REGISTRY_PORT", "METRICS_PORT"} <= shared
    assert {name: environ[name] for name in shared} == {name: image[name] for name in shared}


@pytest.mark.parametrize("name", ["redis", "registry", "balancer", "date-service", "greeting"])
def test_each_service_has_minimal_privileges(name: str) -> None:
    """The root file system is read-only, no privileges can be gained, and a dead container restarts."""
    assert compose_service(name)["read_only"] is True
    assert compose_service(name)["security_opt"] == ["no-new-privileges:true"]
    assert compose_service(name)["restart"] == "unless-stopped"


def test_replicas_have_no_linux_capabilities() -> None:
    """The balancer and the sample agents have none either."""
    for name in ("registry", "balancer", "date-service", "greeting"):
        assert compose_service(name)["cap_drop"] == ["ALL"]


def test_only_the_balancer_is_published() -> None:
    """Its address is loopback by default, and only the replicas reach Redis."""
    published = {name: found["ports"] for name, found in read_compose()["services"].items() if "ports" in found}

    assert published == {"balancer": ["${LISTEN:-127.0.0.1:8000}:8000"]}
    assert [name for name, found in read_compose()["services"].items() if "store" in found["networks"]] == [
        "redis",
        "registry",
    ]
    assert read_compose()["networks"]["store"] == {"internal": True}


def test_a_stop_waits_for_requests_in_flight() -> None:
    """The grace period is longer than the shutdown of a replica."""
    assert duration_s(compose_service("registry")["stop_grace_period"]) > SHUTDOWN_S


def test_the_files_it_names_exist() -> None:
    """The files are the Dockerfile and the balancer's configuration, which is mounted path its command reads it."""
    (mount,) = compose_service("balancer")["volumes"]
    here, there, mode = mount.split(":")

    assert (ROOT / compose_service("registry")["build"]["dockerfile"]).is_file()
    assert (ROOT / here) == HAPROXY_FILE
    assert there in compose_service("balancer")["command"]
    assert mode == "ro"


@pytest.mark.parametrize(("name", "dependencies"), [("date-service", []), ("greeting", ["date_service"])])
def test_the_sample_agents_run_from_this_checkout(name: str, dependencies: list[str]) -> None:
    """Their image is that of the replicas, which includes the client; one agent depends on the other."""
    sample = compose_service(name)

    assert sample["image"] == compose_service("registry")["image"]
    assert not any(arg.startswith("WITHOUT") for arg in compose_service("registry")["build"]["args"])
    assert sample["command"] == [name.replace("-", "_"), *dependencies]
    script = sample["entrypoint"][-1].removeprefix("/")
    assert (ROOT / script).is_file()
    assert sample["volumes"] == [f"./{script.partition('/')[0]}:/examples:ro"]


def test_the_image_is_built_from_this_checkout() -> None:
    """An image with the same name in a public registry is never used."""
    assert compose_service("registry")["pull_policy"] == "build"


def test_docker_compose_accepts_it() -> None:
    """This requires docker compose, but no daemon."""
    command = [shutil.which("docker") or "docker", "compose"]
    try:
        subprocess.run([*command, "version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("docker compose is not installed")

    result = subprocess.run([*command, "-f", COMPOSE_FILE, "config", "-q"], capture_output=True, check=False)

    assert (result.returncode, result.stderr) == (0, b"")


def test_the_test_of_the_stack_reports_that_docker_is_missing() -> None:
    """The report is one line without a traceback."""
    command = [sys.executable, "-m", "deploy.tools"]
    environ = os.environ | {"PATH": ""}
    result = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=False, text=True)

    assert result.returncode == 2
    assert result.stderr == "compose-test needs Docker with Compose: docker is not on PATH\n"
