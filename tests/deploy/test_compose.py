"""compose.yaml: three replicas on a Redis that keeps what it acknowledges, and nothing open that need not be."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from registry.config.env import load_settings
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
from tests.support.replica import STOP_TIMEOUT_S
from tests.support.source_code import ROOT


def test_redis_keeps_what_it_acknowledges() -> None:
    """It is started as the embedded server is, in all that durability and the bell rest on."""
    ours, embedded = (
        command_options(shlex.split(compose_service("redis")["command"])),
        command_options(SERVER_ARGUMENTS),
    )
    names = ("--appendonly", "--appendfsync", "--save", "--maxmemory-policy", "--notify-keyspace-events")

    assert {name: ours[name] for name in names} == {name: embedded[name] for name in names}
    (volume,) = compose_service("redis")["volumes"]
    name, _, where = volume.partition(":")
    assert name in read_compose()["volumes"]
    assert where == ours["--dir"]


def test_there_are_three_replicas_with_names_of_their_own() -> None:
    """One name for all of them would make each think it leads."""
    assert compose_service("registry")["deploy"]["replicas"] == 3
    assert "REGISTRY_INSTANCE_ID" not in service_environment("registry")
    assert "container_name" not in compose_service("registry")


def test_what_replicas_are_told_are_settings() -> None:
    """And they are those of the image, where it says them, too."""
    environ = service_environment("registry")
    settings, warnings = load_settings(environ)

    assert environ.keys() <= {setting.env for setting in SETTINGS.values()}
    assert settings.redis_url == "redis://redis:6379"
    assert [warning for warning in warnings if "AUTH_TOKEN" not in warning] == []
    image = dockerfile_stages()[-1].environ
    both = environ.keys() & image.keys()
    assert {"REGISTRY_HOST", "REGISTRY_PORT", "METRICS_PORT"} <= both
    assert {name: environ[name] for name in both} == {name: image[name] for name in both}


@pytest.mark.parametrize("name", ["redis", "registry", "balancer", "date-service", "greeting"])
def test_nobody_can_do_more_than_he_must(name: str) -> None:
    """No root file system to write to, no privileges to gain; all of them come back when they die."""
    assert compose_service(name)["read_only"] is True
    assert compose_service(name)["security_opt"] == ["no-new-privileges:true"]
    assert compose_service(name)["restart"] == "unless-stopped"


def test_a_replica_has_no_capability() -> None:
    """Nor do the balancer and the sample agents."""
    for name in ("registry", "balancer", "date-service", "greeting"):
        assert compose_service(name)["cap_drop"] == ["ALL"]


def test_only_the_balancer_is_published_and_only_here() -> None:
    """On loopback unless told otherwise; Redis is reached by the replicas alone."""
    published = {name: found["ports"] for name, found in read_compose()["services"].items() if "ports" in found}

    assert published == {"balancer": ["${LISTEN:-127.0.0.1:8000}:8000"]}
    assert [name for name, found in read_compose()["services"].items() if "store" in found["networks"]] == [
        "redis",
        "registry",
    ]
    assert read_compose()["networks"]["store"] == {"internal": True}


def test_a_stop_waits_for_what_is_in_flight() -> None:
    """A replica takes so long at most."""
    assert duration_s(compose_service("registry")["stop_grace_period"]) > STOP_TIMEOUT_S


def test_the_files_it_names_are_there() -> None:
    """The Dockerfile, and the balancer's configuration where its command looks for it."""
    (mount,) = compose_service("balancer")["volumes"]
    here, there, mode = mount.split(":")

    assert (ROOT / compose_service("registry")["build"]["dockerfile"]).is_file()
    assert (ROOT / here) == HAPROXY_FILE
    assert there in compose_service("balancer")["command"]
    assert mode == "ro"


@pytest.mark.parametrize(("name", "needs"), [("date-service", []), ("greeting", ["date_service"])])
def test_the_sample_agents_are_run_from_this_checkout(name: str, needs: list[str]) -> None:
    """In the image of the replicas, which has the client in it unless told otherwise; one of them needs the other."""
    sample = compose_service(name)

    assert sample["image"] == compose_service("registry")["image"]
    assert not any(arg.startswith("WITHOUT") for arg in compose_service("registry")["build"]["args"])
    assert sample["command"] == [name.replace("-", "_"), *needs]
    script = sample["entrypoint"][-1].removeprefix("/")
    assert (ROOT / script).is_file()
    assert sample["volumes"] == [f"./{script.partition('/')[0]}:/examples:ro"]


def test_the_image_is_built_from_this_checkout() -> None:
    """And never taken from whoever has its name in a public place."""
    assert compose_service("registry")["pull_policy"] == "build"


def test_docker_compose_understands_it() -> None:
    """Where it is installed; that needs no daemon."""
    command = [shutil.which("docker") or "docker", "compose"]
    try:
        subprocess.run([*command, "version"], capture_output=True, check=True, timeout=20)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("docker compose is not installed")

    ran = subprocess.run([*command, "-f", COMPOSE_FILE, "config", "-q"], capture_output=True, check=False, timeout=20)

    assert (ran.returncode, ran.stderr) == (0, b"")


def test_without_docker_the_test_of_the_stack_says_what_it_needs() -> None:
    """In a line, without a trace."""
    command = [sys.executable, "-m", "deploy.tools"]
    environ = os.environ | {"PATH": ""}
    ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=False, timeout=20, text=True)

    assert ran.returncode == 2
    assert ran.stderr == "compose-test needs Docker with Compose: docker is not on PATH\n"
