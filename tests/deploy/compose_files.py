"""The files that bring the registry up elsewhere, read as what reads them in earnest would."""

import json
import re
import shlex
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

import yaml  # type: ignore[import-untyped]

from registry.config.duration import parse_duration
from tests.support.source_code import ROOT

COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
HAPROXY = ROOT / "deploy" / "compose" / "haproxy.cfg"


@dataclass
class Stage:
    """One stage of the Dockerfile: its base, and its instructions, joined where they run over lines."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def of(self, kind: str) -> list[str]:
        """Return what follows the instructions of this kind."""
        return [text for instruction, text in self.steps if instruction == kind]

    @property
    def environ(self) -> dict[str, str]:
        """The environment it sets."""
        return dict(pair.split("=", 1) for text in self.of("ENV") for pair in shlex.split(text))


def stages() -> list[Stage]:
    """Return the stages of the Dockerfile, in order."""
    text = re.sub(r"^ *#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[Stage] = []
    for line in text.replace("\\\n", "").splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "FROM":
            found.append(Stage(rest.split()[0]))
        elif found and kind:
            found[-1].steps.append((kind, rest.strip()))
    return found


def health_command() -> list[str]:
    """Return the command of HEALTHCHECK."""
    (check,) = stages()[-1].of("HEALTHCHECK")
    command: list[str] = json.loads(check.partition(" CMD ")[2])
    return command


def service(name: str) -> dict[str, Any]:
    """Return one service of compose.yaml."""
    found: dict[str, Any] = compose()["services"][name]
    return found


def compose() -> dict[str, Any]:
    """Return compose.yaml."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return found


def environment_of(name: str) -> dict[str, str]:
    """Return the environment a service gets; what is passed through, empty as where nobody sets it."""
    pairs = (entry.partition("=") for entry in service(name)["environment"])
    return {key: value for key, _, value in pairs}


def options(words: list[str]) -> dict[str, str]:
    """Return the `--name value` pairs of a command."""
    return {name: value for name, value in pairwise(words) if name.startswith("--") and not value.startswith("--")}


def haproxy() -> str:
    """Return the balancer's configuration without its comments."""
    return re.sub(r"^ *#.*\n", "", HAPROXY.read_text(encoding="utf-8"), flags=re.MULTILINE)


def haproxy_seconds(name: str) -> list[float]:
    """Return the durations that follow a name in it, such as `timeout server`, in seconds."""
    return [seconds(value) for value in re.findall(rf"{re.escape(name)} +(\d+m?s)\b", haproxy())]


def seconds(text: str) -> float:
    """Return a duration with its unit as seconds."""
    found: timedelta = parse_duration(text)
    return found.total_seconds()
