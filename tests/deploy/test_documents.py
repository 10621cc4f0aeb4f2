"""deploy/README.md and TROUBLESHOOTING.md: their commands, files, links and chart values exist."""

import os
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deploy.tools.manifests import DEPLOY_DIR, read_values
from registry.cli.main import main
from registry.config.settings import SETTINGS
from tests.deploy.kubernetes_objects import by_kind_and_name, kubectl, overlay
from tests.support.source_code import ROOT

README, TROUBLESHOOTING = DEPLOY_DIR / "README.md", DEPLOY_DIR / "TROUBLESHOOTING.md"
DOCUMENTS = (README, TROUBLESHOOTING)

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)


def command_lines(path: Path) -> Iterator[str]:
    """Yield every command of a document: in blocks, tables and sentences."""
    text = path.read_text(encoding="utf-8")
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        # A quoted text can continue on the next line.
        pending = ""
        for line in block.replace("\\\n", " ").splitlines():
            pending = f"{pending}\n{line}" if pending else line
            if pending.count("'") % 2 == 0:
                yield pending
                pending = ""
        assert not pending, pending
    yield from re.findall(r"`((?:kubectl|helm|curl) [a-z-]+[^`]*)`", text)


def commands(path: Path, program: str) -> list[list[str]]:
    """Return the words of every call of a program, without pipes and redirections."""
    found = [re.split(r" (?:[|>&<]|&&) ?", line)[0] for line in command_lines(path)]
    return [shlex.split(line) for line in found if line.startswith(f"{program} ")]


@each_document
def test_kubectl_accepts_every_command_and_option(path: Path, tmp_path: Path) -> None:
    """The parser of kubectl reads them; nothing is sent."""
    calls = commands(path, "kubectl")
    assert len(calls) > 10
    for words in calls:
        kubectl_words, container_words = (words[: words.index("--")], words) if "--" in words else (words, [])
        text = kubectl(*kubectl_words[1:], "--help", HOME=str(tmp_path))
        verb = next(
            word for at, word in enumerate(kubectl_words[1:], 1) if word[0] != "-" and kubectl_words[at - 1] != "-n"
        )
        assert re.search(rf"^  kubectl (?:.* )?{verb}\b", text.partition("Usage:")[2], re.MULTILINE), words
        if "mcp-mesh-registry" in container_words:
            arguments = container_words[container_words.index("--") + 2 :]
            assert CliRunner().invoke(main, [arguments[0], "--help"]).exit_code == 0


@each_document
def test_the_objects_and_files_in_commands_exist(path: Path) -> None:
    """Objects are compared by kind and name."""
    objects = {*by_kind_and_name(overlay("ha")), *by_kind_and_name(overlay("dev"))}
    named = {(kind.lower(), name) for kind, name in objects}
    text = path.read_text(encoding="utf-8")

    assert re.search(r"(statefulset|cronjob)/", text)
    for kind, name in re.findall(r"\b(statefulset|svc|cronjob|configmap)[/ ](mcp-[a-z-]+)", text):
        assert (kind.replace("svc", "service"), name) in named, (kind, name)
    for file in re.findall(r"(?<![/\w])(deploy/[\w./-]*\w)", text):
        assert file.startswith("deploy/kubernetes") or (ROOT / file).exists(), file
    for folder in re.findall(r"(?<![/\w])deploy/kubernetes/(\w+)", text):
        assert (DEPLOY_DIR / "kubernetes" / folder / "kustomization.yaml").is_file(), folder


@each_document
def test_the_chart_has_every_value_that_a_command_sets(path: Path) -> None:
    """A file of values exists, too."""
    values = read_values("values.yaml")
    for words in commands(path, "helm"):
        for option, value in pairwise(words):
            if option in {"--set", "--set-string"}:
                found: Any = values
                for part in value.partition("=")[0].split("."):
                    assert part in found, value
                    found = found[part]
            if option == "--values":
                assert (ROOT / value).is_file()


@each_document
def test_every_link_has_a_target(path: Path) -> None:
    """The target is a file, with an anchor a heading in it."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", path.read_text(encoding="utf-8")):
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
            assert anchor in slugs, anchor


@each_document
def test_names_of_settings_are_settings(path: Path) -> None:
    """Settings of the guide that do not exist here are explained in the documents."""
    setting_names = {setting.env for setting in SETTINGS.values()} | {"REDIS_PASSWORD"}
    guide_names = {"DATABASE_TYPE", "DATABASE_PATH"}
    found = set(
        re.findall(r"`(?:config\.)?((?:REGISTRY|REDIS|AGENT|LEADER|ENABLE|DATABASE|AUTH)_[A-Z_]+)", path.read_text())
    )

    assert found - setting_names - guide_names == set()


def test_the_sections_that_alerts_refer_to_exist() -> None:
    """A section is named by its heading."""
    text = (DEPLOY_DIR / "chart" / "monitoring" / "alerts.yaml").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", TROUBLESHOOTING.read_text(encoding="utf-8"), re.MULTILINE)

    assert {*re.findall(r'See "([^"]+)" in TROUBLESHOOTING', text)} <= {*headings}


def test_the_health_check_script_is_executable() -> None:
    """The documents call it by its path."""
    assert os.access(DEPLOY_DIR / "health_check.sh", os.X_OK)
