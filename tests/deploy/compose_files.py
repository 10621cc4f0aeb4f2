"""The Dockerfile, compose.yaml and haproxy.cfg, parsed."""

import json
import re
import shlex
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

import yaml  # type: ignore[import-untyped]

from registry.duration import parse_duration
from tests.support.source_code import ROOT

COMPOSE_FILE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
HAPROXY_FILE = ROOT / "deploy" / "compose" / "haproxy.cfg"


@dataclass
class DockerStage:
    """One stage of the Dockerfile: its base and its instructions, with continued lines joined."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def instructions(self, kind: str) -> list[str]:
        """Return the arguments of all instructions of this kind."""
        return [text for instruction, text in self.steps if instruction == kind]

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that the stage sets."""
        return dict(pair.split("=", 1) for text in self.instructions("ENV") for pair in shlex.split(text))


def dockerfile_stages() -> list[DockerStage]:
    """Return the stages of the Dockerfile, in order."""
    text = re.sub(r"^ *#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[DockerStage] = []
    for line in text.replace("\\\n", "").splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "FROM":
            found.append(DockerStage(rest.split()[0]))
        elif found and kind:
            found[-1].steps.append((kind, rest.strip()))
    return found


def healthcheck_command() -> list[str]:
    """Return the command of the HEALTHCHECK instruction."""
    (check,) = dockerfile_stages()[-1].instructions("HEALTHCHECK")
    command: list[str] = json.loads(check.partition(" CMD ")[2])
    return command


def compose_service(name: str) -> dict[str, Any]:
    """Return one service of compose.yaml."""
    found: dict[str, Any] = read_compose()["services"][name]
    return found


def read_compose() -> dict[str, Any]:
    """Return the parsed compose.yaml."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))
    return found


def service_environment(name: str) -> dict[str, str]:
    """Return the environment of a service; a variable that is passed through has its default, or is empty."""
    pairs = (entry.partition("=") for entry in compose_service(name)["environment"])
    return {key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for key, _, value in pairs}


def command_options(words: list[str]) -> dict[str, str]:
    """Return the `--name value` pairs of a command."""
    return {name: value for name, value in pairwise(words) if name.startswith("--") and not value.startswith("--")}


def haproxy_configuration() -> str:
    """Return the balancer's configuration without its comments."""
    return re.sub(r"^ *#.*\n", "", HAPROXY_FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def haproxy_durations_s(name: str) -> list[float]:
    """Return the durations of a haproxy setting, such as `timeout server`, in seconds."""
    return [duration_s(value) for value in re.findall(rf"{re.escape(name)} +(\d+m?s)\b", haproxy_configuration())]


def duration_s(text: str) -> float:
    """Return a duration with a unit in seconds."""
    found: timedelta = parse_duration(text)
    return found.total_seconds()
